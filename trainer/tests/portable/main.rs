//! What a person does with the program, on every system that it is built for: it makes pictures, prepares data, converts
//! and trains, in a folder whose name has spaces, umlauts and an emoji.
//!
//! Where programs of another processor run in an emulator, `TINTYPE_TEST_RUNNER` has the words that start it. What a
//! system does not let be tested is told on standard error.

#[path = "../common/mod.rs"]
mod common;
mod conversion;
mod generation;
mod images;
mod interruption;
mod odd_names;
mod place;
mod preparation;
mod run;
#[allow(dead_code)] // one of its configurations is used here
#[path = "../training/runs.rs"]
mod runs;
mod training;
