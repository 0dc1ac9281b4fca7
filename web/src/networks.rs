//! What this engine makes pictures with.

use tintype::model::families;
#[cfg(target_family = "wasm")]
use wasm_bindgen::prelude::wasm_bindgen;

/// The networks that it knows, by name.
#[cfg_attr(target_family = "wasm", wasm_bindgen)]
pub fn networks() -> Vec<String> {
    families().iter().map(|family| family.name.into()).collect()
}
