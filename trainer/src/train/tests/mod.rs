//! Whole runs in one process, and what they cost.

mod trouble;
