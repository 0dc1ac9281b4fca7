//! Two-dimensional neighborhood attention with NATTEN's semantics.

pub use tintype_shaders::neighborhood_attention;
pub use tintype_shaders::plain::window_start;
