//! Whether an engine of 32 bits has room for a model.

use tintype::device::{Found, Kind};
use tintype::generate::{LoadError, Parts};
use tintype::precision::Precision;

/// Bytes of its 4 GiB that a model may take: the rest is for what a picture takes.
pub const ROOM: u64 = 3 << 30;

/// Refuses a model that takes more than `room` bytes of the engine's memory.
///
/// * `held`: bytes of its files that lie there as a whole, such as PyTorch's
///
/// On the processor the networks come to that as they are loaded; a GPU has a memory of its own.
///
/// # Errors
///
/// [`LoadError::Memory`] where it takes more, and all of [`Parts::needed`].
pub fn check(parts: Parts<'_>, held: u64, found: &Found, room: u64) -> Result<(), LoadError> {
    let networks = match found.kind {
        // In no other dtype they take more.
        Kind::Processor => parts.needed(Precision::F32, &found.device)?,
        _ => 0,
    };
    let needed = held.saturating_add(networks);
    match needed > room {
        true => Err(LoadError::Memory { file: parts.model.file.clone(), needed, free: room }),
        false => Ok(()),
    }
}
