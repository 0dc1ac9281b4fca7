//! Class lists and search over them.

use serde::{Deserialize, Serialize};

/// The classes of a model, in the order of its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels {
    names: Vec<String>,
}

/// Why a class was not found.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum LabelError {
    /// Nothing of that name.
    #[error("there is no class {query:?}{}", suggest(.near))]
    Unknown {
        /// What was asked for.
        query: String,
        /// Names that are close.
        near: Vec<String>,
    },
    /// Several names contain it and none is it.
    #[error("{query:?} could be {}; say which", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        query: String,
        /// The names that contain it.
        candidates: Vec<String>,
    },
    /// A number beyond the last class.
    #[error("class {number} does not exist; they run from 0 to {last}")]
    OutOfRange {
        /// What was asked for.
        number: usize,
        /// The last class.
        last: usize,
    },
}

/// How close a class is to a text in lower case, 0 the closest; `None` where it does not hold it.
fn rank(class: usize, name: &str, text: &str) -> Option<u8> {
    let name = name.to_lowercase();
    let synonyms = || name.split(',').map(str::trim);
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    match text {
        "" => Some(0),
        _ if class.to_string() == text => Some(0),
        _ if synonyms().any(|synonym| synonym == text) => Some(1),
        _ if synonyms().any(|synonym| synonym.starts_with(text)) => Some(2),
        _ if words.any(|word| word.starts_with(text)) => Some(3),
        _ => name.contains(text).then_some(4),
    }
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
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

    /// Number and name of every class whose name contains the text, ignoring case; all for "".
    ///
    /// The closest come first: the class of that number, names and synonyms that are the text, that
    /// begin with it, that have a word which does; within each kind in the order of the labels.
    pub fn search(&self, text: &str) -> Vec<(usize, &str)> {
        let text = text.trim().to_lowercase();
        let mut hits: Vec<(u8, usize, &str)> = self
            .names
            .iter()
            .enumerate()
            .filter_map(|(i, name)| Some((rank(i, name, &text)?, i, name.as_str())))
            .collect();
        hits.sort_by_key(|(rank, i, _)| (*rank, *i));
        hits.into_iter().map(|(_, i, name)| (i, name)).collect()
    }

    /// The class that a number, a name, a synonym or an unambiguous part of a name means.
    ///
    /// # Errors
    ///
    /// * [`LabelError::OutOfRange`] where a number is beyond the last class
    /// * [`LabelError::Ambiguous`] where several names contain the text and none is it
    /// * [`LabelError::Unknown`] where none does
    pub fn find(&self, query: &str) -> Result<usize, LabelError> {
        let wanted = query.trim().to_lowercase();
        if let Ok(number) = wanted.parse::<usize>() {
            return match number < self.len() {
                true => Ok(number),
                false => Err(LabelError::OutOfRange { number, last: self.len().saturating_sub(1) }),
            };
        }
        let exact = |name: &&String| {
            name.to_lowercase() == wanted
                || name.split(',').any(|synonym| synonym.trim().to_lowercase() == wanted)
        };
        if let Some(class) = self.names.iter().position(|name| exact(&name)) {
            return Ok(class);
        }
        let hits = if wanted.is_empty() { Vec::new() } else { self.search(&wanted) };
        match hits.as_slice() {
            [] => Err(LabelError::Unknown { query: query.into(), near: self.near(&wanted) }),
            [(class, _)] => Ok(*class),
            many => Err(LabelError::Ambiguous {
                query: query.into(),
                candidates: many.iter().take(8).map(|(_, name)| name.to_string()).collect(),
            }),
        }
    }

    /// Up to three names that are spelled much like the text.
    fn near(&self, text: &str) -> Vec<String> {
        let score = |name: &String| {
            name.to_lowercase()
                .split(|c: char| !c.is_alphanumeric())
                .chain([name.to_lowercase().as_str()])
                .map(|word| strsim::jaro_winkler(word, text))
                .fold(0.0, f64::max)
        };
        let mut scored: Vec<_> = self.names.iter().map(|n| (score(n), n)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().filter(|(s, _)| *s > 0.75).take(3).map(|(_, n)| n.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        let names = ["smiley", "land-vehicle", "sea-creature", "tench, Tinca tinca", "fruit"];
        Labels::new(names.map(String::from).to_vec())
    }

    #[test]
    fn a_class_is_found_by_number_name_synonym_and_part() {
        for (query, class) in
            [("0", 0), ("Smiley", 0), ("vehicle", 1), ("tinca TINCA", 3), (" fruit ", 4)]
        {
            assert_eq!(labels().find(query), Ok(class), "{query}");
        }
    }

    #[test]
    fn the_closest_come_first() {
        let labels = Labels::imagenet();
        let first = |text: &str| labels.search(text).first().map(|(class, _)| *class);
        assert_eq!(first("207"), Some(207));
        assert_eq!(first("Golden Retriever"), Some(207));
        assert_eq!(first("panda bear"), Some(388)); // a synonym
        assert_eq!(first("daisy"), Some(985));
        assert_eq!(first("gold"), Some(1)); // goldfish begins with it, marigold does not
        assert_eq!(labels.search("").len(), 1000);
        assert_eq!(labels.search("  ")[999].1, "toilet tissue, toilet paper, bathroom tissue");
        assert!(labels.search("no such thing").is_empty());
    }

    #[test]
    fn a_miss_says_what_is_near() {
        let error = labels().find("smily").unwrap_err();
        assert_eq!(error.to_string(), "there is no class \"smily\"; did you mean smiley?");
        let error = labels().find("e").unwrap_err();
        assert!(error.to_string().starts_with("\"e\" could be smiley, land-vehicle"), "{error}");
        assert!(labels().find("9").unwrap_err().to_string().contains("from 0 to 4"));
        assert!(labels().find("").is_err());
    }
}
