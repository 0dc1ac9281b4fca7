//! The parts of a PyTorch checkpoint, and which of them is sampled with.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;

use super::pickle::{MAX_TEXT, Node, spend};
use super::prefixes::{OF_AUTOENCODER, bare};
use super::pytorch::{self, Container};
use super::rebuild::tensor;
use super::source::Memory;
use super::store::{AVERAGES, AVERAGES_NOT_READ, LEFT_OUT, RAW, TensorView, Weights};
use super::training;

/// Deepest dictionary in a dictionary that is searched for tensors.
const MAX_DEPTH: usize = 6;
/// Bytes that a tensor takes beside its name, counted with the names: there is room for a million tensors.
const BESIDE_NAME: usize = 256;
/// Names that a sentence lists before "and N more".
const NAMED: usize = 8;

/// Names of averaged weights: LightningDiT's and REPA's, k-diffusion's, timm's, and others'.
const AVERAGED: [&str; 5] = ["ema", "model_ema", "state_dict_ema", "ema_model", "model_ema1"];
/// Words in other names of averaged weights.
const AVERAGE_WORDS: [&str; 6] = ["ema", "avg", "averaged", "average", "swa", "shadow"];
/// Dictionaries that hold the weights of such an entry where it is a dictionary of more.
const INNER: [&str; 6] = ["state_dict", "model", "module", "shadow", "params", "ema_model"];
/// Prefixes that Lightning gives all of a network's names.
const NETWORK: [&str; 3] = ["model.", "net.", "inner_model."];
/// Prefixes of their averages.
const NETWORK_AVERAGED: [&str; 4] = ["model_ema.", "ema_model.", "net_ema.", "ema."];

/// The tensors of one dictionary.
#[derive(Default)]
struct Section {
    /// The keys that lead to it.
    keys: Vec<String>,
    tensors: BTreeMap<String, TensorView>,
    /// Why a tensor cannot be read, by name.
    unreadable: BTreeMap<String, String>,
    /// Keys of what is no tensor.
    others: Vec<String>,
}

impl Section {
    fn len(&self) -> usize {
        self.tensors.len() + self.unreadable.len()
    }

    /// The names of its tensors without prefixes of wrappers.
    fn names(&self) -> BTreeSet<&str> {
        self.tensors.keys().chain(self.unreadable.keys()).map(|name| bare(name)).collect()
    }

    fn is_autoencoder(&self) -> bool {
        let names = self.names();
        OF_AUTOENCODER.iter().any(|name| names.contains(*name))
    }

    /// Under other names, those tensors that get one; fails with a name that two of them get.
    fn renamed(self, name: impl Fn(&str) -> Option<&str>) -> Result<Self, String> {
        let twice = |name: &str| format!("it holds tensor {name:?} under two names");
        let mut renamed = Self { keys: self.keys, others: self.others, ..Self::default() };
        for (old, view) in self.tensors {
            let Some(new) = name(&old) else { continue };
            if renamed.tensors.insert(new.to_string(), view).is_some() {
                return Err(twice(new));
            }
        }
        for (old, why) in self.unreadable {
            let Some(new) = name(&old) else { continue };
            let is_tensor = renamed.tensors.contains_key(new);
            if renamed.unreadable.insert(new.to_string(), why).is_some() || is_tensor {
                return Err(twice(new));
            }
        }
        Ok(renamed)
    }

    /// The prefix that all names share, and whether it is that of averages; where the network's averages lie
    /// beside it, theirs.
    fn prefix(&self) -> Option<(&'static str, bool)> {
        let names = self.names();
        let is_all = |parts: usize| parts > 0 && parts == names.len();
        let is_beside = |network: &str, averages: &BTreeSet<&str>| {
            let network = under(&names, network);
            network == *averages && is_all(network.len() + averages.len())
        };
        for prefix in NETWORK_AVERAGED {
            let averages = under(&names, prefix);
            if is_all(averages.len()) || NETWORK.into_iter().any(|n| is_beside(n, &averages)) {
                return Some((prefix, true));
            }
        }
        let shared = NETWORK.into_iter().find(|prefix| is_all(under(&names, prefix).len()));
        shared.map(|prefix| (prefix, false))
    }
}

/// The names with a prefix, without it.
fn under<'a>(names: &BTreeSet<&'a str>, prefix: &str) -> BTreeSet<&'a str> {
    names.iter().copied().filter_map(|name: &'a str| name.strip_prefix(prefix)).collect()
}

/// Every dictionary of the checkpoint that directly holds tensors, by its path.
pub(super) struct Sections {
    sections: BTreeMap<String, Section>,
    /// What the checkpoint says besides.
    metadata: BTreeMap<String, String>,
    /// Keys of the checkpoint's dictionary, and whether there are values in what they name.
    top: Vec<(String, bool)>,
}

/// Whether a key calls something averaged weights: a word of it does, in whatever case.
fn is_average(key: &str) -> bool {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in key.chars() {
        if !c.is_alphanumeric() || lower && c.is_uppercase() {
            words.push(String::new());
        }
        lower = c.is_lowercase();
        if let (true, Some(word)) = (c.is_alphabetic(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
    }
    words.iter().any(|word| AVERAGE_WORDS.contains(&word.as_str()))
}

/// Quoted names, the first ones where there are many.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names: Vec<_> = names.take(NAMED).map(|name| format!("{name:?}")).collect();
    format!("{}{more}", names.join(", "))
}

/// The average of a number, counted from 1.
fn numbered(averages: &[String], number: usize) -> Result<String, String> {
    let found = number.checked_sub(1).and_then(|place| averages.get(place));
    found.cloned().ok_or_else(|| match averages {
        [] => "it holds no averaged weights".into(),
        _ => format!("it holds no average {number}; its averages are {}", listed(averages.iter())),
    })
}

impl Sections {
    pub(super) fn into_weights(self, file: &str) -> BTreeMap<String, Weights> {
        let weights = |section: Section| Weights {
            file: file.into(),
            tensors: section.tensors,
            unreadable: section.unreadable,
            metadata: BTreeMap::new(),
        };
        self.sections.into_iter().map(|(name, section)| (name, weights(section))).collect()
    }

    /// The tensors to sample with: the average of this number, counted from 1, or where none is asked for the first
    /// one, else `state_dict`, else `model`, else other raw ones or the flat dictionary; prefixes of wrappers are
    /// removed.
    pub(super) fn into_inference_weights(
        mut self,
        file: &str,
        average: Option<usize>,
    ) -> Result<Weights, String> {
        let raw = self.raw();
        let averages = self.averages(raw.as_deref());
        let several = (averages.len() > 1).then(|| json!(averages).to_string());
        let chosen = match average {
            Some(number) => Some(numbered(&averages, number)?),
            None => averages.into_iter().next().or(raw),
        };
        let name = chosen.ok_or_else(|| {
            let known: Vec<_> =
                AVERAGED.iter().chain(&RAW).map(|name| format!("{name:?}")).collect();
            let found = match self.top.as_slice() {
                [] => "it has no keys".to_string(),
                top => format!("its keys are {}", listed(top.iter().map(|(key, _)| key))),
            };
            format!("it holds no weights under {} or at the top; {found}", known.join(", "))
        })?;
        let section = self.sections.remove(&name).unwrap_or_default();
        if let (true, Some((tensor, reason))) =
            (section.tensors.is_empty(), section.unreadable.iter().next())
        {
            return Err(format!("tensor {tensor:?}: {reason}"));
        }
        let taken = section.keys.first().cloned();
        let mut section = section.renamed(|name| Some(bare(name)))?;
        let prefix = section.prefix();
        if let Some((prefix, _)) = prefix {
            section = section.renamed(|name| name.strip_prefix(prefix))?;
        }
        let mut metadata = self.metadata;
        if let Some(averages) = several {
            metadata.insert(AVERAGES.into(), averages);
        }
        if !section.others.is_empty() {
            metadata.insert(LEFT_OUT.into(), listed(section.others.iter()));
        }
        let averages: Vec<String> = self
            .top
            .into_iter()
            .filter(|(key, holds)| *holds && is_average(key) && taken.as_ref() != Some(key))
            .map(|(key, _)| key)
            .collect();
        if !averages.is_empty() {
            metadata.insert(AVERAGES_NOT_READ.into(), listed(averages.iter()));
        }
        let name = match prefix {
            Some((_, true)) => format!("ema.{name}"),
            _ => name,
        };
        metadata.insert("section".into(), name);
        Ok(Weights {
            file: file.into(),
            tensors: section.tensors,
            unreadable: section.unreadable,
            metadata,
        })
    }

    /// The entry with an autoencoder's tensors, an average of them before others; prefixes of wrappers are
    /// removed. What the checkpoint says besides is of its network, and left out.
    pub(super) fn into_autoencoder(mut self, file: &str) -> Result<Option<Weights>, String> {
        let is_autoencoder =
            |path: &String| self.sections.get(path).is_some_and(Section::is_autoencoder);
        let entries = self.top.iter().filter_map(|(key, _)| Some((key, self.entry(key)?)));
        let mut seen = HashSet::new();
        let found = entries
            .filter(|(key, path)| seen.insert(*key) && is_autoencoder(path))
            .min_by_key(|(key, _)| !is_average(key))
            .map(|(_, path)| path);
        let Some(path) = found else { return Ok(None) };
        let section = self.sections.remove(&path).unwrap_or_default();
        let section = section.renamed(|name| Some(bare(name)))?;
        Ok(Some(Weights {
            file: file.into(),
            tensors: section.tensors,
            unreadable: section.unreadable,
            metadata: BTreeMap::from([("section".to_string(), path)]),
        }))
    }

    /// The path of the most tensors of an entry: itself, or a dictionary in it.
    fn entry(&self, name: &str) -> Option<String> {
        let inner = INNER.iter().map(|inner| format!("{name}.{inner}"));
        let paths = std::iter::once(name.to_string()).chain(inner).rev();
        // Of several as large ones the last is taken, which is the first of these names.
        paths
            .filter_map(|path| Some((self.sections.get(&path)?.len(), path)))
            .max_by_key(|(len, _)| *len)
            .map(|(_, path)| path)
    }

    /// The paths of averaged weights: the one to sample with, then others of the same tensors in the file's order.
    fn averages(&self, raw: Option<&str>) -> Vec<String> {
        // Lightning's lie beside the raw weights, under a prefix.
        let is_inside = |path: &&str| {
            let prefix = self.sections.get(*path).and_then(Section::prefix);
            prefix.is_some_and(|(_, averaged)| averaged)
        };
        let first = self.known_averages(raw).or_else(|| self.other_averages(raw));
        let first = first.or_else(|| raw.filter(is_inside).map(String::from));
        let Some(first) = first else { return Vec::new() };
        let names = |path: &str| self.sections.get(path).map(Section::names);
        let wanted = names(&first);
        let keys = self.top.iter().filter(|(key, holds)| *holds && is_average(key));
        let paths = keys.filter_map(|(key, _)| self.entry(key));
        // A pickle may give one key a million times.
        let mut seen = HashSet::from([first.clone()]);
        let others = paths.filter(|path| seen.insert(path.clone()) && names(path) == wanted);
        let others: Vec<String> = others.collect();
        std::iter::once(first).chain(others).collect()
    }

    /// Averaged weights of the names that are sure, unless they are a few numbers beside raw weights.
    fn known_averages(&self, raw: Option<&str>) -> Option<String> {
        let tensors = |path: &str| self.sections.get(path).map_or(0, Section::len);
        let least = raw.map_or(0, tensors) / 10;
        let mut known = AVERAGED.iter().filter_map(|name| self.entry(name));
        known.find(|path| tensors(path.as_str()) >= least)
    }

    /// The weights as training left them: of the names that are not sure, or the flat dictionary, the most.
    fn raw(&self) -> Option<String> {
        let (sure, others) = RAW.split_at(2);
        sure.iter().find_map(|name| self.entry(name)).or_else(|| {
            let others = others.iter().filter_map(|name| self.entry(name));
            let flat = self.sections.contains_key("").then(String::new);
            let tensors = |path: &String| self.sections.get(path).map_or(0, Section::len);
            flat.into_iter().chain(others).max_by_key(tensors)
        })
    }

    /// Averaged weights of another name: those of the raw weights' names, or the largest where there are none.
    fn other_averages(&self, raw: Option<&str>) -> Option<String> {
        let raw = raw.and_then(|path| self.sections.get(path)).map(Section::names);
        let fits = |section: &Section| -> Option<usize> {
            let (first, inner) = section.keys.split_first()?;
            let is_inner = |key: &String| INNER.contains(&key.as_str()) || is_average(key);
            if !is_average(first) || !inner.iter().all(is_inner) {
                return None;
            }
            let Some(raw) = &raw else { return Some(section.len()) };
            let names = section.names();
            let shared = names.intersection(raw).count();
            let most = |all: usize| shared * 10 >= all * 9;
            (shared > 0 && most(names.len()) && most(raw.len())).then_some(shared)
        };
        let fitting =
            self.sections.iter().filter_map(|(path, section)| Some((fits(section)?, path)));
        fitting.max().map(|(_, path)| path.clone())
    }
}

pub(super) fn read(bytes: Memory) -> Result<Sections, String> {
    let container = pytorch::read(bytes)?;
    let metadata = training::metadata(&container);
    Ok(Sections { sections: collect(&container)?, metadata, top: top(&container)? })
}

/// The keys of the checkpoint's dictionary, and whether there are values in what they name.
fn top(container: &Container) -> Result<Vec<(String, bool)>, String> {
    let pickle = &container.pickle;
    let Node::Dict(pairs) = pickle.node(pickle.root) else { return Ok(Vec::new()) };
    let holds = |value| match pickle.node(value) {
        Node::Dict(pairs) => !pairs.is_empty(),
        Node::List(items) | Node::Tuple(items) => !items.is_empty(),
        Node::Call { .. } => tensor(container, value).is_none(),
        _ => false,
    };
    let mut left = MAX_TEXT;
    let mut keys = Vec::new();
    for &(key, value) in pairs {
        let Some(key) = pickle.text(key) else { continue };
        spend(&mut left, key.len())?;
        keys.push((key.to_string(), holds(value)));
    }
    Ok(keys)
}

/// Walks the dictionaries below the root and gathers tensors by section. Names are copied, and a pickle may give a long
/// one to a million values: all together they have as many bytes as texts may have in a pickle.
fn collect(container: &Container) -> Result<BTreeMap<String, Section>, String> {
    let pickle = &container.pickle;
    let mut left = MAX_TEXT;
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut pending = vec![(Vec::new(), pickle.root)];
    while let Some((keys, id)) = pending.pop() {
        let Node::Dict(pairs) = pickle.node(id) else { continue };
        if keys.len() > MAX_DEPTH || !seen.insert(id) {
            continue;
        }
        let mut section = Section { keys, ..Section::default() };
        for &(key, value) in pairs {
            let key = match pickle.node(key) {
                Node::Text(text) => {
                    spend(&mut left, text.len())?;
                    text.clone()
                }
                Node::Int(i) => i.to_string(),
                _ => continue,
            };
            match tensor(container, value) {
                Some(Ok(tensor)) => {
                    spend(&mut left, BESIDE_NAME)?;
                    let place = section.len();
                    section.tensors.insert(key, tensor.at_place(place));
                }
                Some(Err(reason)) => {
                    spend(&mut left, BESIDE_NAME + reason.len())?;
                    section.unreadable.insert(key, reason);
                }
                None => {
                    if matches!(pickle.node(value), Node::Dict(_)) {
                        let inner = || section.keys.iter().chain([&key]);
                        let bytes = inner().map(|key| key.len() + size_of::<String>());
                        spend(&mut left, bytes.sum())?;
                        pending.push((inner().cloned().collect(), value));
                    }
                    section.others.push(key);
                }
            }
        }
        if section.len() > 0 {
            let path = section.keys.join(".");
            spend(&mut left, path.len())?;
            sections.entry(path).or_insert(section);
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use tintype_test_models::pickles::{archive, dict, pickle, tensor};

    use super::is_average;
    use crate::weights::Weights;

    #[test]
    fn names_of_averages_are_told_by_their_words() {
        for key in [
            "model_ema2",
            "ema_state_dict",
            "model_state_dict_ema",
            "params_ema",
            "net_ema",
            "module_ema",
            "ema_0.9999",
            "G_ema",
            "EMA",
            "modelEMA",
            "averaged_model",
            "swa_model",
            "ema_shadow",
            "shadow",
        ] {
            assert!(is_average(key), "{key}");
        }
        for key in ["schema", "model", "optimizer", "state_dict", "thematic", "swap"] {
            assert!(!is_average(key), "{key}");
        }
    }

    #[test]
    fn a_key_that_a_pickle_gives_twice_is_one_average() {
        let of = || dict(&[("w", tensor("FloatStorage", &[1], &[1]))]);
        let sections = ["model", "ema", "my_ema", "my_ema", "ema"].map(|name| (name, of()));
        let file = archive(&pickle(&dict(&sections)), &[1.0]);
        let weights = Weights::from_bytes(file, "x.pt").expect("it opens");
        assert_eq!(weights.averages(), ["ema", "my_ema"]);
    }
}
