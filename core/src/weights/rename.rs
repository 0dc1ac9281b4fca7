//! Tables of names: what a file calls its tensors, and what the network does.
//!
//! A table is a text with a rule a line, `OLD -> NEW`. In a rule `*` stands for one or more characters without a
//! dot and `**` for one or more of any, and both sides have the same wildcards in the same order. A tensor
//! takes the first rule that is one for its name, and keeps its name where none is. Where there is nothing
//! behind the arrow, it is left out. What follows a `#` is a comment, at the start of a line or behind a space.

use super::pattern::Pattern;
use super::store::{Collision, Weights};

/// Rules that a sentence lists before "and N more".
const NAMED: usize = 8;

/// Why tensors are not renamed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// The table cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file of the table.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A line of the table is no rule.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file of the table.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: RuleProblem,
    },
    /// Two tensors would have one name.
    #[error("{file}: {table} gives both {:?} and {:?} the name {name:?}", .tensors[0], .tensors[1])]
    Collision {
        /// The file of the tensors.
        file: String,
        /// The file of the table.
        table: String,
        /// What they are called.
        tensors: Box<[String; 2]>,
        /// What both would be called.
        name: String,
    },
}

/// Why a line is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// It has no arrow.
    #[error("{0:?} is no rule; a rule is OLD -> NEW")]
    NoArrow(String),
    /// There is nothing before the arrow.
    #[error("there is no name before the arrow")]
    NoOld,
    /// A side is more than one word.
    #[error("{0:?} is not one name")]
    SeveralNames(String),
    /// The sides have different wildcards.
    #[error("{new:?} has not the wildcards of {old:?} in their order")]
    Wildcards {
        /// The side before the arrow.
        old: String,
        /// The side behind it.
        new: String,
    },
}

/// A line of a table.
#[derive(Clone, Debug)]
struct Rule {
    /// Counted from 1.
    line: usize,
    text: String,
    old: Pattern,
    /// `None` leaves the tensor out.
    new: Option<Pattern>,
    /// Whether a tensor took it.
    taken: bool,
}

impl Rule {
    fn parse(line: usize, text: &str) -> Result<Self, RuleProblem> {
        let sides = text.split_once("->").ok_or_else(|| RuleProblem::NoArrow(text.into()))?;
        let (old, new) = (sides.0.trim(), sides.1.trim());
        if old.is_empty() {
            return Err(RuleProblem::NoOld);
        }
        let is_several = |side: &&str| side.contains(char::is_whitespace) || side.contains("->");
        if let Some(side) = [old, new].into_iter().find(is_several) {
            return Err(RuleProblem::SeveralNames(side.into()));
        }
        let patterns = (Pattern::new(old), Pattern::new(new));
        if !new.is_empty() && !patterns.1.has_wildcards_of(&patterns.0) {
            return Err(RuleProblem::Wildcards { old: old.into(), new: new.into() });
        }
        Ok(Self {
            line,
            text: text.into(),
            old: patterns.0,
            new: Some(patterns.1).filter(|_| !new.is_empty()),
            taken: false,
        })
    }
}

/// A table of names. The default one has no rules and changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Rename {
    file: String,
    rules: Vec<Rule>,
}

impl Rename {
    /// The table in a text; `file` is its name for messages.
    ///
    /// # Errors
    ///
    /// [`RenameError::Line`] where a line is no rule.
    pub fn parse(text: &str, file: &str) -> Result<Self, RenameError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = without_comment(text).trim();
            if text.is_empty() {
                continue;
            }
            let wrong = |problem| RenameError::Line { file: file.into(), line, problem };
            rules.push(Rule::parse(line, text).map_err(wrong)?);
        }
        Ok(Self { file: file.into(), rules })
    }

    /// The table in a file.
    ///
    /// # Errors
    ///
    /// * [`RenameError::Io`] where the file cannot be read
    /// * [`RenameError::Line`] where a line is no rule
    #[cfg(feature = "files")]
    pub fn open(path: &std::path::Path) -> Result<Self, RenameError> {
        let file = path.display().to_string();
        match crate::files::read_text(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(source) => Err(RenameError::Io { path: file, source }),
        }
    }

    /// Whether it has no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The new name of a tensor; `None` where it is left out.
    pub fn name(&self, old: &str) -> Option<String> {
        self.find(old).map_or_else(|| Some(old.into()), |(_, new)| new)
    }

    /// The rule for a name, by its place, and what it makes of the name.
    fn find(&self, old: &str) -> Option<(usize, Option<String>)> {
        self.rules.iter().enumerate().find_map(|(place, rule)| {
            let captures = rule.old.captures(old)?;
            Some((place, rule.new.as_ref().map(|new| new.fill(&captures))))
        })
    }

    /// The tensors under their new names; those that cannot be read are renamed, too. It remembers which rules
    /// were taken, over all checkpoints that it is applied to.
    ///
    /// # Errors
    ///
    /// [`RenameError::Collision`] where two tensors would have one name.
    pub fn apply(&mut self, weights: Weights) -> Result<Weights, RenameError> {
        let file = weights.file.clone();
        let mut taken = vec![false; self.rules.len()];
        let renamed = weights.renamed(|old| match self.find(old) {
            Some((rule, new)) => {
                taken[rule] = true;
                new
            }
            None => Some(old.into()),
        });
        for (rule, taken) in self.rules.iter_mut().zip(taken) {
            rule.taken |= taken;
        }
        renamed.map_err(|Collision { first, second, name }| RenameError::Collision {
            file,
            table: self.file.clone(),
            tensors: Box::new([first, second]),
            name,
        })
    }

    /// A sentence where rules were taken by no tensor.
    pub fn note(&self) -> Option<String> {
        if self.rules.is_empty() {
            return (!self.file.is_empty()).then(|| format!("{}: it has no rules", self.file));
        }
        let idle = self.rules.iter().filter(|rule| !rule.taken);
        let idle: Vec<String> =
            idle.map(|rule| format!("line {} ({})", rule.line, rule.text)).collect();
        let more = match idle.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = idle[..idle.len().min(NAMED)].join(", ");
        (!idle.is_empty()).then(|| format!("{}: no tensor takes {named}{more}", self.file))
    }
}

/// A line up to its comment.
fn without_comment(line: &str) -> &str {
    let begins = |&(at, _): &(usize, &str)| at == 0 || line[..at].ends_with(char::is_whitespace);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::super::store::TensorView;
    use super::*;

    fn weights(names: &[&str]) -> Weights {
        let tensor = |(i, name): (usize, &&str)| {
            let view = TensorView::from_f32(vec![1], &[i as f32]).expect("a value");
            (name.to_string(), view)
        };
        let tensors = names.iter().enumerate().map(tensor).collect();
        Weights { file: "x.pt".into(), tensors, ..Weights::default() }
    }

    /// Names after a table, each with the place of its tensor before.
    fn renamed(table: &str, names: &[&str]) -> Result<Vec<(String, f32)>, RenameError> {
        let weights = Rename::parse(table, "t")?.apply(weights(names))?;
        Ok(weights.tensors.into_iter().map(|(name, view)| (name, view.to_f32()[0])).collect())
    }

    fn named(names: &[(&str, f32)]) -> Vec<(String, f32)> {
        names.iter().map(|(name, place)| (name.to_string(), *place)).collect()
    }

    #[test]
    fn the_first_rule_for_a_name_is_taken() {
        let table = "\u{feff}# REPA's\r\n\r\n  px.*.w1.* -> blocks.*.fc1.*  # by name\r\n\
                     px.** -> **\r\nloss.** ->\r\n";
        let names = ["kept", "loss.a.b", "px.10.w1.bias", "px.2.w1.bias", "px.head#1"];
        let wanted = [
            ("blocks.10.fc1.bias", 2.0),
            ("blocks.2.fc1.bias", 3.0),
            ("head#1", 4.0),
            ("kept", 0.0),
        ];
        assert_eq!(renamed(table, &names).expect("it renames"), named(&wanted));
        let table = Rename::parse(table, "t").expect("a table");
        assert_eq!((table.name("loss.a"), table.name("a")), (None, Some("a".into())));
    }

    #[test]
    fn names_can_be_exchanged() {
        let swapped = renamed("a -> b\nb -> a", &["a", "b"]).expect("it renames");
        assert_eq!(swapped, named(&[("a", 1.0), ("b", 0.0)]));
    }

    #[test]
    fn two_tensors_of_one_name_are_an_error_with_both() {
        let error = renamed("px.* -> *", &["px.w", "w"]).expect_err("twice").to_string();
        assert_eq!(error, "x.pt: t gives both \"px.w\" and \"w\" the name \"w\"");
        let mut odd = weights(&["a"]);
        odd.unreadable.insert("b".into(), "sparse".into());
        let mut table = Rename::parse("b -> a", "t").expect("a table");
        assert!(matches!(table.apply(odd), Err(RenameError::Collision { .. })));
    }

    #[test]
    fn lines_that_are_no_rules_are_told_by_number() {
        let problem = |text: &str| match Rename::parse(text, "t") {
            Err(RenameError::Line { line, problem, .. }) => (line, problem),
            other => panic!("{other:?}"),
        };
        assert_eq!(problem("\n# a\nnames"), (3, RuleProblem::NoArrow("names".into())));
        assert_eq!(problem("-> b"), (1, RuleProblem::NoOld));
        assert_eq!(problem("a b -> c").1, RuleProblem::SeveralNames("a b".into()));
        assert_eq!(problem("a -> b -> c").1, RuleProblem::SeveralNames("b -> c".into()));
        for (old, new) in [("a.*", "b"), ("a", "*"), ("a.*.**", "**.*"), ("*.*", "*")] {
            let wanted = RuleProblem::Wildcards { old: old.into(), new: new.into() };
            assert_eq!(problem(&format!("{old} -> {new}")).1, wanted);
        }
        let error = Rename::parse("{}", "t").expect_err("no rule").to_string();
        assert_eq!(error, "t, line 1: \"{}\" is no rule; a rule is OLD -> NEW");
    }

    #[test]
    fn rules_that_no_checkpoint_takes_are_told() {
        let mut table = Rename::parse("a.* -> *\nb.* -> *\na.** -> c.**", "t").expect("a table");
        assert!(Rename::default().note().is_none());
        for names in [["a.w"], ["x"]] {
            table.apply(weights(&names)).expect("it renames");
        }
        let note = table.note().expect("a note");
        assert_eq!(note, "t: no tensor takes line 2 (b.* -> *), line 3 (a.** -> c.**)");
        table.apply(weights(&["a.b.c", "b.w"])).expect("it renames");
        assert_eq!(table.note(), None);
        let empty = Rename::parse("# nothing", "t").expect("a table");
        assert_eq!(empty.note().expect("a note"), "t: it has no rules");
    }
}
