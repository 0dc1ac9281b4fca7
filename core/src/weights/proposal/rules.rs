//! Few rules for many tensors.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::matching::Basis;
use super::words::{runs, starred};
use crate::weights::pattern::Pattern;

/// Most tensors for which rules with wildcards are looked for: more than any published network has.
const MOST: usize = 2048;

/// A rule of a proposed table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProposedRule {
    /// The file's names.
    pub old: String,
    /// The network's.
    pub new: String,
    /// The least sure of what it rests on.
    pub basis: Basis,
    /// Tensors that it names.
    pub tensors: usize,
}

/// A tensor by the file's name and the network's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) old: &'a str,
    pub(super) new: &'a str,
    pub(super) basis: Basis,
}

/// Rules that give tensors their names and touch no other tensor that the network needs. `file` has all names of
/// the file, `needed` all of the network.
pub(super) fn rules(
    named: &[Named<'_>],
    file: &BTreeSet<&str>,
    needed: &BTreeSet<&str>,
) -> Vec<ProposedRule> {
    let wanted: BTreeMap<&str, usize> = named.iter().map(|n| n.old).zip(0..).collect();
    let mut seen = BTreeSet::new();
    let mut candidates = Vec::new();
    for tensor in named {
        for (old, new) in generalized(tensor.old, tensor.new, named.len() <= MOST) {
            if seen.insert((old.clone(), new.clone())) {
                candidates.extend(Candidate::of(old, new, named, &wanted, file, needed));
            }
        }
    }
    let mut table =
        Table { names: vec![None; named.len()], given: BTreeMap::new(), overlap: false };
    let mut rules = Vec::new();
    while let Some(best) = table.best(&candidates) {
        let right = table.take(best);
        let basis = right.iter().map(|&tensor| named[tensor].basis).max().unwrap_or(Basis::Shape);
        let (old, new) = (best.old.clone(), best.new.clone());
        let rule = ProposedRule { old, new, basis, tensors: right.len() };
        rules.push((right.iter().min().copied(), best.said, rule));
    }
    match table.overlap {
        // Stable: of two that are as particular the one that was chosen first stays first, as the table counts on.
        true => rules.sort_by_key(|(_, said, _)| Reverse(*said)),
        false => rules.sort_by_key(|(first, _, _)| *first),
    }
    rules.into_iter().map(|(_, _, rule)| rule).collect()
}

/// A rule, and what it does.
struct Candidate<'a> {
    old: String,
    new: String,
    /// How particular it is: of two rules for a tensor the more particular one comes first.
    said: usize,
    is_name: bool,
    /// The tensors to be named that it is a rule for, and whether it names them right.
    tensors: Vec<(usize, bool)>,
    /// Names that it gives to other tensors of the file, with what these are called there.
    others: Vec<(String, &'a str)>,
}

impl<'a> Candidate<'a> {
    /// `None` where it would touch a tensor that has its name, or give another one a name that is taken.
    fn of(
        old: String,
        new: String,
        named: &[Named<'_>],
        wanted: &BTreeMap<&str, usize>,
        file: &BTreeSet<&'a str>,
        needed: &BTreeSet<&str>,
    ) -> Option<Self> {
        let (from, to) = (Pattern::new(&old), Pattern::new(&new));
        let (mut tensors, mut others) = (Vec::new(), Vec::new());
        for name in file {
            let Some(captures) = from.captures(name) else { continue };
            let made = to.fill(&captures);
            match wanted.get(*name) {
                Some(&tensor) => tensors.push((tensor, named[tensor].new == made)),
                None => {
                    let is_free = !file.contains(made.as_str()) && !needed.contains(made.as_str());
                    if needed.contains(*name) || !is_free {
                        return None;
                    }
                    others.push((made, *name));
                }
            }
        }
        Some(Self { old, new, said: from.said(), is_name: from.is_name(), tensors, others })
    }
}

/// What the chosen rules make of each tensor.
struct Table<'a> {
    /// How particular the tensor's rule is, and whether it names it right.
    names: Vec<Option<(usize, bool)>>,
    /// Names that they give to other tensors of the file, with what these are called there.
    given: BTreeMap<String, &'a str>,
    /// Whether two rules say different things of a tensor, so that their order matters.
    overlap: bool,
}

impl<'a> Table<'a> {
    /// The rule that names most of the tensors that have no right name yet.
    fn best<'c>(&self, candidates: &'c [Candidate<'a>]) -> Option<&'c Candidate<'a>> {
        // Of equal ones the first, which is the most general; the search takes the last.
        let gains = candidates.iter().rev().filter_map(|c| Some((self.gain(c)?, c)));
        gains.max_by_key(|(gain, _)| *gain).map(|(_, candidate)| candidate)
    }

    /// How many more tensors a rule names right than wrong; `None` where it spoils a right name, gives two others one
    /// name, or a name of its own would do.
    fn gain(&self, candidate: &Candidate<'a>) -> Option<usize> {
        let is_taken = |(new, old): &(String, &'a str)| {
            self.given.get(new).is_some_and(|holder| holder != old)
        };
        if candidate.others.iter().any(is_taken) {
            return None;
        }
        let (mut right, mut wrong) = (0usize, 0usize);
        for &(tensor, is_right) in &candidate.tensors {
            match self.names[tensor] {
                Some((said, _)) if said >= candidate.said => {}
                Some((_, true)) if is_right => {}
                Some((_, true)) => return None,
                _ if is_right => right += 1,
                // A more particular rule can name it.
                _ => wrong += 1,
            }
        }
        let enough = right > 1 || candidate.is_name && right == 1;
        right.checked_sub(wrong).filter(|gain| enough && *gain > 0)
    }

    /// Adds a rule; the tensors that have their right name by it.
    fn take(&mut self, candidate: &Candidate<'a>) -> Vec<usize> {
        self.given.extend(candidate.others.iter().cloned());
        let mut right = Vec::new();
        for &(tensor, is_right) in &candidate.tensors {
            let before = self.names[tensor];
            self.overlap |= before.is_some_and(|(_, was_right)| was_right != is_right);
            if before.is_some_and(|(said, was_right)| was_right || said >= candidate.said) {
                continue;
            }
            self.names[tensor] = Some((candidate.said, is_right));
            if is_right {
                right.push(tensor);
            }
        }
        right
    }
}

/// Rules for a tensor, the most general first: the names' common end and common numbers become wildcards. With
/// `wild` false the names alone.
fn generalized(old: &str, new: &str, wild: bool) -> Vec<(String, String)> {
    if !wild {
        return vec![(old.into(), new.into())];
    }
    let ends = old.rsplit('.').zip(new.rsplit('.')).take_while(|(a, b)| a == b).count();
    let mut rules = Vec::new();
    for parts in [ends, ends.min(1), 0] {
        let (old, new) = (beginning(old, parts), beginning(new, parts));
        let end = ["", "*", "**"][parts.min(2)];
        let (in_old, in_new) = (runs(old), runs(new));
        let both = in_old.iter().zip(&in_new);
        let shared = both.take_while(|(a, b)| old[a.start..a.end] == new[b.start..b.end]).count();
        for stars in [shared, shared.min(1), 0] {
            let rule = (starred(old, &in_old[..stars]), starred(new, &in_new[..stars]));
            rules.push((rule.0 + end, rule.1 + end));
        }
    }
    rules
}

/// A name without its last parts.
fn beginning(name: &str, parts: usize) -> &str {
    match name.rmatch_indices('.').nth(parts.saturating_sub(1)) {
        _ if parts == 0 => name,
        Some((dot, _)) => &name[..=dot],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(named: &[(&str, &str)], others: &[&str], needed: &[&str]) -> Vec<String> {
        let file = named.iter().map(|n| n.0).chain(others.iter().copied()).collect();
        let needed = named.iter().map(|n| n.1).chain(needed.iter().copied()).collect();
        let named: Vec<Named<'_>> =
            named.iter().map(|&(old, new)| Named { old, new, basis: Basis::Shape }).collect();
        let rules = rules(&named, &file, &needed);
        rules.into_iter().map(|rule| format!("{} -> {}", rule.old, rule.new)).collect()
    }

    #[test]
    fn names_are_generalized_from_their_end() {
        let rules = generalized("px.3.ff.w1.bias", "blocks.3.mlp.fc1.bias", true);
        assert_eq!(rules[0], ("px.*.ff.w*.*".into(), "blocks.*.mlp.fc*.*".into()));
        assert_eq!(rules[1], ("px.*.ff.w1.*".into(), "blocks.*.mlp.fc1.*".into()));
        assert_eq!(rules[8], ("px.3.ff.w1.bias".into(), "blocks.3.mlp.fc1.bias".into()));
        assert_eq!(generalized("net.a.w", "a.w", true)[0], ("net.**".into(), "**".into()));
        assert_eq!(beginning("a.b.c", 1), "a.b.");
        assert_eq!((beginning("a.b.c", 3), beginning("a.b.c", 0)), ("", "a.b.c"));
    }

    #[test]
    fn a_prefix_is_one_rule_and_exceptions_come_before_it() {
        let (mut named, mut old) = (Vec::new(), Vec::new());
        for i in 0..12 {
            for part in ["qkv.weight", "qkv.bias", "proj.weight"] {
                old.push((format!("net.layers.{i}.{part}"), format!("blocks.{i}.{part}")));
            }
        }
        for name in ["embed.weight", "embed.bias", "final.weight"] {
            old.push((format!("net.{name}"), name.into()));
        }
        old.push(("net.out.bias".into(), "final.bias".into()));
        named.extend(old.iter().map(|(old, new)| (old.as_str(), new.as_str())));
        let wanted = ["net.out.bias -> final.bias", "net.layers.** -> blocks.**", "net.** -> **"];
        assert_eq!(of(&named, &["net.step"], &[]), wanted);
        // A tensor that would get a name that the network needs takes the rule away.
        let rules = of(&named, &["net.head"], &["head"]);
        assert!(rules.len() > 3 && !rules.contains(&wanted[2].to_string()), "{rules:?}");
    }

    /// `p.1.q.2.w` is of both rules, which are equally particular.
    #[test]
    fn the_rule_that_was_chosen_first_comes_first() {
        let named = [
            ("p.5.q.2.w", "z.5.y"),
            ("p.6.q.2.w", "z.6.y"),
            ("p.1.q.2.w", "n.1.m2.w"),
            ("p.1.q.2.b", "n.1.m2.b"),
            ("p.1.q.2.c", "n.1.m2.c"),
        ];
        assert_eq!(of(&named, &[], &[]), ["p.1.q.2.* -> n.1.m2.*", "p.*.q.2.w -> z.*.y"]);
    }

    #[test]
    fn two_other_tensors_do_not_get_one_name() {
        let named = [
            ("enc.p.weight", "p.weight"),
            ("enc.p.bias", "p.bias"),
            ("dec.q.weight", "q.weight"),
            ("dec.q.bias", "q.bias"),
        ];
        let prefixes = ["enc.** -> **", "dec.** -> **"];
        assert_eq!(of(&named, &["enc.step", "dec.epoch"], &[]), prefixes);
        let both = of(&named, &["enc.step", "dec.step"], &[]);
        assert_eq!(both, ["enc.** -> **", "dec.q.* -> q.*"]);
    }

    #[test]
    fn tensors_that_fit_are_left_alone() {
        let named = [("p.3.weight", "p.1.weight"), ("p.3.bias", "p.1.bias")];
        let rules = of(&named, &["p.0.weight", "p.0.bias"], &["p.0.weight", "p.0.bias"]);
        assert_eq!(rules, ["p.3.* -> p.1.*"]);
        let alone = of(&[("a.weight", "b.weight")], &[], &[]);
        assert_eq!(alone, ["a.weight -> b.weight"]);
    }
}
