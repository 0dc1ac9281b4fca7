//! `tintype-web`: will be the engine that runs Tintype in a browser worker on WebGPU. Not built
//! yet; the library itself (`tintype`) already compiles for `wasm32-unknown-unknown`.

/// The version of the engine that a page would load.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
