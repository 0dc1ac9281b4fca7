//! Whole runs in one process, and what they cost.

mod in_flight;
#[cfg(target_os = "linux")]
mod memory;
mod trouble;
