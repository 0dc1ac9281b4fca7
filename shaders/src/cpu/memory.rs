//! Memory of results, used again.
//!
//! The memory of a new tensor of Burn's is filled with zeros first, by one thread, and a large block comes from the
//! system a page at a time, at the first touch of each. Kernels write every value of their results, and the sizes of
//! these come again and again. So a block that its tensor gives back is kept for the next one of its size.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_backend::{AllocationProperty, Bytes};
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Values of a block that is worth keeping: 16 KiB.
const LEAST: usize = 1 << 12;
/// Values that are kept at most: 256 MiB.
const MOST: usize = 1 << 26;

/// Blocks without a tensor, by their size.
struct Free {
    blocks: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Values of all of them.
    values: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free { blocks: BTreeMap::new(), values: 0 });

fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for so many values of float32. They are any numbers: of another tensor, or zeros.
pub(super) fn take(count: usize) -> Bytes {
    let mut free = free();
    let kept = free.blocks.get_mut(&count).and_then(Vec::pop);
    free.values -= kept.as_ref().map_or(0, Vec::len);
    drop(free);
    // In tests, whoever reads what it did not write is found out.
    let any = if cfg!(test) { f32::NAN } else { 0.0 };
    let block = Block(kept.unwrap_or_else(|| vec![any; count]));
    // SAFETY: the block has so many bytes, and every value of a vector is initialised.
    unsafe { Bytes::from_controller(Box::new(block), count * size_of::<f32>()) }
}

fn give_back(mut block: Vec<f32>) {
    if !(LEAST..=MOST).contains(&block.len()) {
        return;
    }
    if cfg!(test) {
        block.fill(f32::NAN);
    }
    let mut free = free();
    if free.values + block.len() > MOST {
        // Sizes of work that is over make room for those of today's.
        free.blocks.clear();
        free.values = 0;
    }
    free.values += block.len();
    free.blocks.entry(block.len()).or_default().push(block);
}

/// A tensor's memory.
struct Block(Vec<f32>);

impl Drop for Block {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
    }
}

impl AllocationController for Block {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let (bytes, first) = (size_of_val(self.0.as_slice()), self.0.as_mut_ptr());
        // SAFETY: those are the vector's bytes, borrowed as it is. The caller promises to write initialised ones, and any
        // initialised bytes are numbers.
        Ok(unsafe { std::slice::from_raw_parts_mut(first.cast(), bytes) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let (bytes, first) = (size_of_val(self.0.as_slice()), self.0.as_ptr());
        // SAFETY: those are the vector's bytes, borrowed as it is.
        Ok(unsafe { std::slice::from_raw_parts(first.cast(), bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again() {
        // No other test has blocks of this size.
        let count = LEAST + 4321;
        let mut bytes = take(count);
        assert_eq!(bytes.len(), 4 * count);
        bytes.fill(1);
        let place = bytes.as_ptr();
        drop(bytes);
        assert_eq!(free().blocks[&count].len(), 1);
        let again = take(count);
        assert_eq!(again.as_ptr(), place);
        let other = take(count);
        assert_ne!(other.as_ptr(), again.as_ptr());
    }
}
