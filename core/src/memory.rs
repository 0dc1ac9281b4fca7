//! Keeping memory that tensors will ask for again, and giving it back.

/// Lets the C library keep what tensors free, for the next ones: up to 256 MiB, and blocks of up to 64 MiB.
///
/// glibc gives every block of more than 128 KiB back to the system until it has learned better, and the end of
/// its heap for good; a network that frees and asks for the same sizes at each step then waits for the system to
/// clear pages, a sixth of an image's time on the processor. To be called by programs, once, at their start. Other
/// C libraries have no such setting.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MIB: libc::c_int = 1 << 20;
        // SAFETY: `mallopt` takes numbers and locks the heap itself.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * MIB);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * MIB);
            libc::mallopt(libc::M_TOP_PAD, 16 * MIB);
        }
    }
}

/// Gives what tensors have freed back to the system, as far as the C library can. To be called where a network has gone
/// and another one comes: the system counts what is kept as used, so that the next one would not seem to fit.
pub fn give_back_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes a number and locks the heap itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
