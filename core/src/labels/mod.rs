//! Class lists and search over them.

mod search;

use serde::{Deserialize, Serialize};

pub use search::LabelError;

/// The classes of a model, in the order of its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels {
    names: Vec<String>,
}

/// A class by its first synonym.
pub fn short(class_name: &str) -> &str {
    class_name.split(',').next().unwrap_or_default().trim()
}

/// Whether a terminal shows a letter: it obeys control characters (C1's, too), and marks of direction turn around
/// the text behind them.
pub fn is_printable(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as a terminal can show it: letters that it would obey are escaped ([`is_printable`]).
pub fn printable(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match is_printable(letter) {
            true => text.push(letter),
            false => text.extend(letter.escape_default()),
        }
    }
    text
}

impl Labels {
    /// Classes by name; a name may list synonyms after commas, as ImageNet's do.
    pub fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// The class names in a checkpoint's metadata; where it has none for its `n` classes,
    /// ImageNet's for 1000 and else numbers.
    pub fn of(weights: &crate::weights::Weights, n: usize) -> Self {
        let names = weights.metadata.get("classes");
        let names = names.and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
        match names {
            Some(names) if names.len() == n => Self::new(names),
            _ if n == 1000 => Self::imagenet(),
            _ => Self::numbered(n),
        }
    }

    /// The thousand classes of ImageNet (ILSVRC 2012) in the order of their WordNet numbers,
    /// which is the order of every published checkpoint; each with its synonyms in WordNet 3.0.
    pub fn imagenet() -> Self {
        Self::new(include_str!("imagenet.txt").lines().map(String::from).collect())
    }

    /// `n` classes known by number only.
    pub fn numbered(n: usize) -> Self {
        Self::new((0..n).map(|i| i.to_string()).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a class, or its number where it is beyond the list (the null class).
    pub fn name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let of = printable;
        assert_eq!(of("\u{1b}[31mred\n\u{7f}"), "\\u{1b}[31mred\\n\\u{7f}");
        assert_eq!(of("\u{9b}31m \u{85}"), "\\u{9b}31m \\u{85}");
        assert_eq!(of("\u{202e}gnp.\u{2066}"), "\\u{202e}gnp.\\u{2066}");
        let plain = "Küken, 雛, \\u{1b} 🐣\u{fe0f} \u{200d} \u{a0}";
        assert_eq!(of(plain), plain);
    }
}
