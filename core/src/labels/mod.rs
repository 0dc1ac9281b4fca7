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

/// A name as a terminal can show it: control characters are escaped.
pub fn printable(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        match letter.is_control() {
            true => text.extend(letter.escape_default()),
            false => text.push(letter),
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
