//! What recognising a network reads of a checkpoint: its metadata, and names and shapes of its tensors.

use crate::weights::{Weights, WeightsError};

/// A checkpoint that does not fit what it seems to be.
pub(super) fn problem(weights: &Weights, problem: impl Into<String>) -> WeightsError {
    WeightsError::Format { file: weights.file.clone(), problem: problem.into() }
}

/// What the weights do not tell.
pub(super) fn needs_configuration(weights: &Weights, reason: impl Into<String>) -> WeightsError {
    WeightsError::NeedsConfiguration { file: weights.file.clone(), reason: reason.into() }
}

/// The configuration in a checkpoint's metadata.
pub(super) fn metadata(weights: &Weights) -> Option<&str> {
    // A mark before it is of the program that saved the text.
    weights.metadata.get("config").map(|text| text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Whether a configuration is JSON, and not YAML.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// A configuration of a network from its JSON.
pub(super) fn parse<C: serde::de::DeserializeOwned>(
    weights: &Weights,
    network: &str,
    json: &str,
) -> Result<C, WeightsError> {
    serde_json::from_str(json).map_err(|e| not_that_of(weights, network, &e))
}

/// The same of JSON that was read already.
pub(super) fn typed<C: serde::de::DeserializeOwned>(
    weights: &Weights,
    network: &str,
    json: serde_json::Value,
) -> Result<C, WeightsError> {
    serde_json::from_value(json).map_err(|e| not_that_of(weights, network, &e))
}

fn not_that_of(weights: &Weights, network: &str, e: &serde_json::Error) -> WeightsError {
    problem(weights, format!("its configuration is not that of a {network}: {e}"))
}

/// The shape of a tensor that must be there with so many dimensions.
pub(super) fn shape<'a>(
    weights: &'a Weights,
    name: &str,
    rank: usize,
) -> Result<&'a [usize], WeightsError> {
    match weights.tensors.get(name) {
        Some(view) if view.shape.len() == rank => Ok(&view.shape),
        Some(view) => Err(problem(weights, format!("tensor {name:?} has shape {:?}", view.shape))),
        None => Err(match weights.unreadable.get(name) {
            Some(reason) => WeightsError::Unreadable {
                file: weights.file.clone(),
                tensor: name.into(),
                reason: reason.clone(),
            },
            None => problem(weights, format!("tensor {name:?} is missing")),
        }),
    }
}

/// One more than the largest number that follows `prefix` in a tensor's name. A name may hold any number:
/// configurations are validated before a network is made of it.
pub(super) fn count(weights: &Weights, prefix: &str) -> usize {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    let names = weights.tensors.keys().chain(weights.unreadable.keys());
    names.filter_map(number).max().map_or(0, |last: usize| last.saturating_add(1))
}
