//! The real app in a harness that stands in for a window.

mod bench;
mod models;
mod names;
mod people;
mod server;
mod views;
