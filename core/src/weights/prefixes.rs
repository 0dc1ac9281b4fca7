//! Prefixes that wrappers put before the names of tensors.

use super::WeightsError;
use super::store::Weights;

/// Prefixes of DistributedDataParallel and torch.compile.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// Prefixes of an autoencoder that is a part of a model: CompVis' and others'.
const AUTOENCODER: [&str; 2] = ["first_stage_model.", "vae."];
/// Tensors that an autoencoder, or a half of it, has.
pub(super) const OF_AUTOENCODER: [&str; 2] = ["decoder.conv_in.weight", "encoder.conv_in.weight"];
/// Tensors of networks here: a file of one may hold its autoencoder besides.
const OF_NETWORK: [&str; 3] =
    ["x_embedder.proj.weight", "x_embedder.proj1.weight", "patch_in.proj.weight"];
/// The prefix of all names in their authors' files of iMF, pMF and JiT.
const NET: &str = "net.";
/// A tensor of iMF and pMF.
const OF_MEAN_FLOW: &str = "u_final_layer.norm.weight";
/// A tensor of JiT (and of pMF).
const OF_JIT: &str = "x_embedder.proj1.weight";
/// pMF's table of rotations: complex numbers, which are computed here.
const ROTATIONS: &str = "rope_freqs";

/// A name without the prefixes of wrappers.
pub(super) fn bare(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

/// Without the prefixes of wrappers, an iMF, a pMF or a JiT without that of its authors, a pMF without its table of
/// rotations, and an autoencoder without the prefix of the model that it is a part of; the rest of that model is left out.
///
/// # Errors
///
/// [`WeightsError::Format`] where two tensors have one name then.
pub(super) fn unwrapped(weights: Weights) -> Result<Weights, WeightsError> {
    let is_wrapped = |name: &String| bare(name).len() != name.len();
    let weights = match weights.tensors.keys().chain(weights.unreadable.keys()).any(is_wrapped) {
        true => renamed(weights, |name| Some(bare(name)))?,
        false => weights,
    };
    let weights = published(weights)?;
    if OF_NETWORK.iter().any(|name| weights.contains(name)) {
        return Ok(weights);
    }
    let is_under = |prefix: &&str| {
        OF_AUTOENCODER.iter().any(|name| weights.contains(&format!("{prefix}{name}")))
    };
    match AUTOENCODER.into_iter().find(is_under) {
        Some(prefix) => renamed(weights, |name| name.strip_prefix(prefix)),
        None => Ok(weights),
    }
}

/// An iMF, a pMF or a JiT without the prefix of all of its names, which PyTorch files have lost already, and a pMF without
/// rotations; other weights as they are.
fn published(weights: Weights) -> Result<Weights, WeightsError> {
    let has = |tensor: &str| weights.contains(&format!("{NET}{tensor}"));
    let is_prefixed = has(OF_MEAN_FLOW) || has(OF_JIT);
    let is_rotated = weights.contains(OF_MEAN_FLOW) && weights.contains(ROTATIONS);
    if !(is_prefixed || is_rotated) {
        return Ok(weights);
    }
    renamed(weights, |name| {
        Some(name.strip_prefix(NET).unwrap_or(name)).filter(|name| *name != ROTATIONS)
    })
}

/// The tensors that get a name.
fn renamed(weights: Weights, name: impl Fn(&str) -> Option<&str>) -> Result<Weights, WeightsError> {
    let file = weights.file.clone();
    weights.renamed(|old| name(old).map(String::from)).map_err(|twice| WeightsError::Format {
        file,
        problem: format!("it holds tensor {:?} under two names", twice.name),
    })
}
