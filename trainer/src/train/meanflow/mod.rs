//! Training of mean flows: average velocities whose derivative along the flow is part of the target, so that one
//! evaluation makes an image. Their clock: t = 1 is noise, t = 0 is data.
//!
//! From `draws` and data to a `batch`, to the `loss` of u and v: all of that iMF and pMF share. `imf` brings latents;
//! `pmf` brings pixels and `perceptual` losses, which compare a `crop` of the estimated picture with that of the true
//! one. `products` tells devices on which du/dt is lost.

pub mod batch;
pub mod crop;
pub mod draws;
pub mod imf;
pub mod loss;
pub mod perceptual;
pub mod pmf;
pub mod products;

use tintype::model::meanflow::Shape;

/// The shape that is trained, with the head of v.
fn with_head(shape: &Shape) -> Shape {
    Shape { v_heads: true, ..shape.clone() }
}

/// Whether a matrix is the weight of a linear layer; tables are matrices, too.
fn is_linear(name: &str) -> bool {
    name.ends_with("_flax_linear.weight")
}
