//! The real app in a harness that stands in for a window.

mod bench;
mod names;
mod people;
mod views;
