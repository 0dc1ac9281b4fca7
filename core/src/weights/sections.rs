//! The parts of a PyTorch checkpoint, and which of them is sampled with.

use std::collections::{BTreeMap, HashSet};

use super::pickle::Node;
use super::pytorch::{self, Container};
use super::rebuild::tensor;
use super::source::Memory;
use super::store::{RAW, TensorView, Weights};
use super::training;

/// Deepest dictionary in a dictionary that is searched for tensors.
const MAX_DEPTH: usize = 6;

/// Names of averaged weights: LightningDiT's and REPA's, k-diffusion's, timm's, and others'.
const AVERAGED: [&str; 5] = ["ema", "model_ema", "state_dict_ema", "ema_model", "model_ema1"];
/// Dictionaries that hold the weights of such an entry where it is a dictionary of more.
const INNER: [&str; 3] = ["state_dict", "model", "module"];

/// The tensors of one dictionary.
#[derive(Default)]
struct Section {
    tensors: BTreeMap<String, TensorView>,
    /// Why a tensor cannot be read, by name.
    unreadable: BTreeMap<String, String>,
}

/// Every dictionary of the checkpoint that directly holds tensors, by its path.
pub(super) struct Sections {
    sections: BTreeMap<String, Section>,
    /// What the checkpoint says besides.
    metadata: BTreeMap<String, String>,
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

    /// The tensors to sample with: averaged ones, else `state_dict`, else `model`, else the flat
    /// dictionary; prefixes of wrappers are removed.
    pub(super) fn into_inference_weights(mut self, file: &str) -> Result<Weights, String> {
        let name = self.inference().ok_or_else(|| {
            let known: Vec<_> =
                AVERAGED.iter().chain(&RAW).map(|name| format!("{name:?}")).collect();
            format!("it holds no weights under {} or at the top", known.join(", "))
        })?;
        let section = self.sections.remove(&name).unwrap_or_default();
        if let (true, Some((tensor, reason))) =
            (section.tensors.is_empty(), section.unreadable.iter().next())
        {
            return Err(format!("tensor {tensor:?}: {reason}"));
        }
        let mut metadata = self.metadata;
        metadata.insert("section".into(), name);
        Ok(Weights {
            file: file.into(),
            tensors: section.tensors.into_iter().map(|(name, view)| (bare(&name), view)).collect(),
            unreadable: section
                .unreadable
                .into_iter()
                .map(|(name, why)| (bare(&name), why))
                .collect(),
            metadata,
        })
    }

    /// The path of the tensors to sample with.
    fn inference(&self) -> Option<String> {
        let paths = AVERAGED.iter().chain(&RAW).flat_map(|name| {
            let inner = INNER.iter().map(move |inner| format!("{name}.{inner}"));
            std::iter::once(name.to_string()).chain(inner)
        });
        paths.chain([String::new()]).find(|path| self.sections.contains_key(path))
    }
}

/// A name without the prefixes of DistributedDataParallel and torch.compile.
fn bare(mut name: &str) -> String {
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod."))
    {
        name = rest;
    }
    name.to_string()
}

pub(super) fn read(bytes: Memory) -> Result<Sections, String> {
    let container = pytorch::read(bytes)?;
    let metadata = training::metadata(&container.pickle);
    Ok(Sections { sections: collect(&container), metadata })
}

/// Walks the dictionaries below the root and gathers tensors by section.
fn collect(container: &Container) -> BTreeMap<String, Section> {
    let pickle = &container.pickle;
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut pending = vec![(String::new(), pickle.root, 0)];
    while let Some((path, id, depth)) = pending.pop() {
        let Node::Dict(pairs) = pickle.node(id) else { continue };
        if depth > MAX_DEPTH || !seen.insert(id) {
            continue;
        }
        for &(key, value) in pairs {
            let key = match pickle.node(key) {
                Node::Text(text) => text.clone(),
                Node::Int(i) => i.to_string(),
                _ => continue,
            };
            match tensor(container, value) {
                Some(Ok(tensor)) => {
                    sections.entry(path.clone()).or_default().tensors.insert(key, tensor);
                }
                Some(Err(reason)) => {
                    sections.entry(path.clone()).or_default().unreadable.insert(key, reason);
                }
                None if matches!(pickle.node(value), Node::Dict(_)) => {
                    let inner = if path.is_empty() { key } else { format!("{path}.{key}") };
                    pending.push((inner, value, depth + 1));
                }
                None => {}
            }
        }
    }
    sections
}
