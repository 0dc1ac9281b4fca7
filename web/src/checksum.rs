//! SHA-256 of a file that arrives in pieces.

use sha2::{Digest, Sha256};
#[cfg(target_family = "wasm")]
use wasm_bindgen::prelude::wasm_bindgen;

/// A running SHA-256.
#[cfg_attr(target_family = "wasm", wasm_bindgen)]
#[derive(Clone, Debug, Default)]
pub struct Checksum(Sha256);

#[cfg_attr(target_family = "wasm", wasm_bindgen)]
impl Checksum {
    /// Of nothing yet.
    #[cfg_attr(target_family = "wasm", wasm_bindgen(constructor))]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece in.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The sum so far, 64 digits.
    pub fn hex(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
