//! A heap that ends, so that a reader that trusts a size in a file is found with or without a sanitizer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that may be allocated at a time. Inputs have 64 KiB at most, and unpack to 66 MB.
const MOST: usize = 512 << 20;

/// Bytes that are allocated now.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// The system's heap on a machine of [`MOST`] bytes: more is not given, which ends the process unless the
/// reader asked whether there is memory.
struct Bounded;

#[global_allocator]
static HEAP: Bounded = Bounded;

/// Takes `size` more bytes, or none.
fn taken(size: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    let before = ALLOCATED.fetch_add(size, Relaxed);
    let pointer = if before.saturating_add(size) <= MOST { allocate() } else { null_mut() };
    if pointer.is_null() {
        ALLOCATED.fetch_sub(size, Relaxed);
    }
    pointer
}

// SAFETY: the system's heap gets every argument as it came, and what it returns is returned; null where
// it was not asked.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) };
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let more = size.saturating_sub(layout.size());
        let moved = taken(more, || unsafe { System.realloc(pointer, layout, size) });
        if !moved.is_null() {
            ALLOCATED.fetch_sub(layout.size().saturating_sub(size), Relaxed);
        }
        moved
    }
}
