//! The browser engine of Tintype: the library in WebAssembly, in a worker, on WebGPU or on the
//! processor.
//!
//! * [`session`] — a loaded model that makes pictures; nothing in it is a browser's
//! * [`ask`] — what a page asks for, in JavaScript's spelling; [`fields`] — what it can ask for of a network;
//!   [`room`] — whether a model fits; [`face`] — errors in its words
//! * `engine` — the session as JavaScript sees it; the page's side of it is `web/engine/`; `half` — what two engines
//!   that share a picture say to each other
//!
//! Only `engine` and its neighbours need a browser, so the rest is tested natively too.
#![recursion_limit = "256"]

pub mod ask;
pub mod face;
pub mod fields;
pub mod room;
pub mod session;

// Asked in browsers alone, and tested everywhere.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
mod addressable;
mod checksum;
#[cfg(target_family = "wasm")]
mod engine;
#[cfg(target_family = "wasm")]
mod file;
#[cfg(target_family = "wasm")]
mod half;
mod networks;
#[cfg(target_family = "wasm")]
mod turn;

pub use addressable::largest_file;
pub use checksum::Checksum;
pub use networks::networks;
