//! The real app in a harness that stands in for a window.

mod bench;
mod people;
mod views;
