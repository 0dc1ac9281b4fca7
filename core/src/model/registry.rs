//! Every kind of network that checkpoints are tried for.

use std::sync::{PoisonError, RwLock};

use super::{Family, ditdh, hdit, hidit, imf, jit, lightningdit, pmf, sit};

/// The networks of this library. The more particular ones come first: every Hi-DiT also has the tensors of
/// its SiT, and every DiT-DH and JiT most of those of a LightningDiT.
pub static FAMILIES: [&Family; 8] = [
    &hdit::FAMILY,
    &imf::FAMILY,
    &pmf::FAMILY,
    &ditdh::FAMILY,
    &jit::FAMILY,
    &hidit::FAMILY,
    &lightningdit::FAMILY,
    &sit::FAMILY,
];

static REGISTERED: RwLock<Vec<&'static Family>> = RwLock::new(Vec::new());

/// Adds a network of another crate, which is tried before this library's.
pub fn register(family: &'static Family) {
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(family);
}

/// All families, in the order in which a checkpoint is tried for them.
pub fn families() -> Vec<&'static Family> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    registered.iter().copied().chain(FAMILIES).collect()
}

/// Whether there is a network of this name.
pub fn is_known(name: &str) -> bool {
    families().iter().any(|family| family.name == name)
}
