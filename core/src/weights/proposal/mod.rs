//! A table of names for a checkpoint that calls its network's tensors otherwise, made of the tensors' shapes, their
//! order and their names. It is a proposal: shapes say nothing about what a tensor means.

mod left;
mod matching;
mod rules;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

pub use left::{Absent, Ambiguous};
pub use matching::Basis;
pub use rules::ProposedRule;

use self::matching::{Slot, pairs};
use self::rules::{Named, rules};
use super::names::is_ignored;
use super::store::Weights;

/// A table for a checkpoint, as far as shapes, order and names tell. Its text ([`fmt::Display`]) is one of
/// [`Rename`](super::Rename).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// The rules.
    pub rules: Vec<ProposedRule>,
    /// Tensors of the network that could be several of the file.
    pub ambiguous: Vec<Ambiguous>,
    /// Tensors of the network for which the file has none left.
    pub absent: Vec<Absent>,
    /// Tensors of the file that have another shape than the network's of their name, which goes to others by the
    /// rules. The table leaves them out.
    pub displaced: Vec<String>,
}

impl Proposal {
    /// Whether there is nothing to name.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.ambiguous.is_empty()
    }
}

/// Proposes a table for the tensors of a network that a checkpoint lacks: `network` has their names and shapes in
/// its order ([`layout_in_order`](super::layout_in_order)).
///
/// Layers that are alike but for numbers are matched together. Where a PyTorch file keeps its network's order, that
/// breaks ties; safetensors are sorted by name.
pub fn propose(network: &[(String, Vec<usize>)], weights: &Weights) -> Proposal {
    let needed: BTreeMap<&str, &[usize]> =
        network.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let lacks = |name: &str, shape: &[usize]| match weights.tensors.get(name) {
        Some(view) => view.shape != shape,
        None => !weights.unreadable.contains_key(name),
    };
    let missing: Vec<Slot<'_>> = network
        .iter()
        .filter(|(name, shape)| lacks(name, shape))
        .map(|(name, shape)| Slot { name, shape })
        .collect();
    let fits = |name: &str, shape: &[usize]| needed.get(name).is_some_and(|n| *n == shape);
    let mut spare: Vec<_> = weights
        .tensors
        .iter()
        .filter(|(name, view)| !fits(name, &view.shape) && !is_ignored(name) && is_sayable(name))
        .collect();
    let ordered = spare.iter().all(|(_, view)| view.place().is_some());
    // Stable: by name where there is no order.
    spare.sort_by_key(|(_, view)| view.place());
    let spare: Vec<Slot<'_>> =
        spare.into_iter().map(|(name, view)| Slot { name, shape: &view.shape }).collect();

    let pairs = pairs(&missing, &spare, ordered);
    let of = |pair: &matching::Pair| {
        let (old, new) = (spare[pair.old].name, missing[pair.new].name);
        Named { old, new, basis: pair.basis }
    };
    let named: Vec<Named<'_>> = pairs.iter().map(of).collect();
    let names = weights.tensors.keys().chain(weights.unreadable.keys());
    let file: BTreeSet<&str> = names.map(String::as_str).collect();
    let rules = rules(&named, &file, &needed.keys().copied().collect());
    let (ambiguous, absent) = left::left(&missing, &spare, &pairs);
    let renamed: BTreeSet<&str> = named.iter().map(|n| n.old).collect();
    let stays = |name: &&str| file.contains(*name) && !renamed.contains(*name);
    let displaced = named.iter().map(|n| n.new).filter(stays).map(String::from).collect();
    Proposal { rules, ambiguous, absent, displaced }
}

/// Whether a name can stand in a table.
fn is_sayable(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(|c: char| c.is_whitespace() || "*#".contains(c))
        && !name.contains("->")
}

/// How far the shapes of a network's tensors are those of a checkpoint, whatever their names: those that are in
/// both over all, 0 to 1.
pub fn shared_shapes(network: &[(String, Vec<usize>)], weights: &Weights) -> f64 {
    let mut counts: BTreeMap<&[usize], [usize; 2]> = BTreeMap::new();
    for (_, shape) in network {
        counts.entry(shape).or_default()[0] += 1;
    }
    for (_, view) in weights.tensors.iter().filter(|(name, _)| !is_ignored(name)) {
        counts.entry(&view.shape).or_default()[1] += 1;
    }
    let sum =
        |of: fn(usize, usize) -> usize| counts.values().map(|&[a, b]| of(a, b)).sum::<usize>();
    match sum(usize::max) {
        0 => 0.0,
        all => sum(usize::min) as f64 / all as f64,
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ProposedRule { old, new, basis, .. } in &self.rules {
            let basis = match basis {
                Basis::Shape => "",
                Basis::Name => "  # by name",
                Basis::Order => "  # by order",
            };
            writeln!(f, "{old} -> {new}{basis}")?;
        }
        for ambiguous in &self.ambiguous {
            write!(f, "{ambiguous}")?;
        }
        // Behind what a person may choose.
        for name in &self.displaced {
            writeln!(f, "{name} ->  # another one gets its name")?;
        }
        for absent in &self.absent {
            writeln!(f, "# {absent}")?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests;
