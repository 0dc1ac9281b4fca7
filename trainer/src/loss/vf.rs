//! VA-VAE's vision-foundation alignment loss (`vavae` §6).

use tintype::burn::tensor::{Tensor, activation::relu};
use tintype::nn::norm::{cosine_similarity, l2_normalize};

/// Margins below which a deviation is not penalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// Of the similarity matrices.
    pub distmat: f64,
    /// Of the cosines.
    pub cos: f64,
}

/// Both terms, `[1]` each; the loss is their sum.
#[derive(Debug)]
pub struct Terms {
    /// Difference of the matrices of pairwise cosines.
    pub distmat: Tensor<1>,
    /// Distance of each position's cosine from 1.
    pub cos: Tensor<1>,
}

/// Compares projected latents with the teacher's features, `[B, C, H, W]` each.
///
/// # Shapes
///
/// * `projected`, `teacher`: `[B, C, H, W]`
/// * returns two terms of `[1]`
///
/// # Panics
///
/// If the shapes of the two differ.
pub fn alignment(projected: Tensor<4>, teacher: Tensor<4>, margins: Margins) -> Terms {
    let pairwise = |x: Tensor<4>| {
        let [b, c, h, w] = x.dims();
        let unit = l2_normalize(x.reshape([b, c, h * w]), 1, 1e-12); // [B, C, N]
        unit.clone().swap_dims(1, 2).matmul(unit) // [B, N, N]
    };
    let difference = (pairwise(projected.clone()) - pairwise(teacher.clone())).abs();
    let cosine = cosine_similarity(teacher, projected, 1, 1e-8); // [B, 1, H, W]
    Terms {
        distmat: relu(difference - margins.distmat).mean(),
        cos: relu(-cosine + (1.0 - margins.cos)).mean(),
    }
}
