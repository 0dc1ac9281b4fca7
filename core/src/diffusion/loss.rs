//! Training losses of the flow models; times are on this library's clock, where 1 is noise.

use burn::tensor::Tensor;

use crate::nn::norm::{cosine_similarity, l2_normalize};

/// Mean squared error of each sample.
///
/// # Shapes
///
/// * `prediction`, `target`: `[B, C, H, W]`
/// * returns `[B]`
///
/// # Panics
///
/// If the shapes differ.
pub fn mean_squared_error(prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let b = prediction.dims()[0];
    (prediction - target).square().mean_dims(&[1, 2, 3]).reshape([b])
}

/// LightningDiT's direction loss of each sample: mean over positions of `1 − cos` over channels.
///
/// # Shapes
///
/// * `prediction`, `target`: `[B, C, H, W]`
/// * returns `[B]`
///
/// # Panics
///
/// If the shapes differ.
pub fn cosine_loss(prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let b = prediction.dims()[0];
    let cosine = cosine_similarity(prediction, target, 1, 1e-8); // [B, 1, H, W]
    (-cosine + 1.0).mean_dims(&[1, 2, 3]).reshape([b])
}

/// REPA's alignment: the negative mean cosine of projected and teacher features over samples,
/// tokens and teachers, in −1…1.
///
/// # Shapes
///
/// * `projected`, `teachers`: `[B, N, z_dim]` for each teacher
/// * returns one scalar, `[1]`
///
/// # Panics
///
/// If there is no teacher, or the shapes of a pair differ.
pub fn projection_loss(projected: &[Tensor<3>], teachers: &[Tensor<3>]) -> Tensor<1> {
    let unit = |x: &Tensor<3>| l2_normalize(x.clone(), 2, 1e-12);
    let terms: Vec<_> = projected
        .iter()
        .zip(teachers)
        .map(|(p, z)| (unit(p) * unit(z)).sum_dim(2).mean()) // [1]
        .collect();
    let count = terms.len() as f64;
    -Tensor::cat(terms, 0).sum() / count
}

/// Hi-DiT's pixel loss: the squared velocity error `‖x̂ − x‖² / max(t, t_min)²` of each sample.
///
/// # Shapes
///
/// * `image`, `clean`: `[B, 3, H, W]`
/// * `t`: `[B]` in 0…1 (1 is noise)
/// * returns `[B]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn pixel_velocity_loss(
    image: Tensor<4>,
    clean: Tensor<4>,
    t: Tensor<1>,
    t_min: f64,
) -> Tensor<1> {
    mean_squared_error(image, clean) / t.clamp_min(t_min).square()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Two channels at two positions of three samples: the same direction, another one at one place, and the opposite.
    #[test]
    fn directions_count_and_not_lengths() {
        let x = |values: [[[[f32; 2]; 1]; 2]; 3]| Tensor::<4>::from_floats(values, &Device::flex());
        let a = x([[[[1.0, 3.0]], [[2.0, 0.0]]]; 3]);
        let b = x([
            [[[2.0, 1.0]], [[4.0, 0.0]]],
            [[[2.0, 0.0]], [[4.0, 5.0]]],
            [[[-1.0, -6.0]], [[-2.0, 0.0]]],
        ]);
        let found: Vec<f32> = cosine_loss(a, b).into_data().iter::<f32>().collect();
        for (found, expected) in found.into_iter().zip([0.0, 0.5, 2.0]) {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }
}
