//! Whole runs in one process, and what they cost.

#[cfg(target_os = "linux")]
mod memory;
mod trouble;
