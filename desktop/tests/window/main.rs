//! The real app in a harness that stands in for a window.
#![recursion_limit = "256"]

mod average;
mod bench;
mod compare;
mod first;
mod live;
mod models;
mod more;
mod names;
mod people;
mod server;
mod views;
