//! LPIPS (Zhang et al., arXiv 1801.03924) in taming-transformers' version, after the VGG features.

use tintype::burn::tensor::{Device, Tensor, TensorData};

/// Shift of the scaling layer, per channel, for images in −1…1.
pub const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
/// Scale of the scaling layer.
pub const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// `(x − shift)/scale`, `[B, 3, H, W]` in −1…1.
pub fn scale_input(x: Tensor<4>) -> Tensor<4> {
    let device: Device = x.device();
    let row =
        |v: [f32; 3]| Tensor::<4>::from_data(TensorData::new(v.to_vec(), [1, 3, 1, 1]), &device);
    (x - row(SHIFT)) / row(SCALE)
}

/// The distance from the five layers of features of two images.
///
/// * `a`, `b`: `[B, C_l, H_l, W_l]` a layer
/// * `weights`: the non-negative 1×1 convolutions, `[1, C_l, 1, 1]`
///
/// Returns `[B, 1, 1, 1]`.
pub fn distance(a: &[Tensor<4>], b: &[Tensor<4>], weights: &[Tensor<4>]) -> Tensor<4> {
    let unit = |x: &Tensor<4>| {
        let norm = x.clone().square().sum_dim(1).sqrt();
        x.clone() / (norm + 1e-10)
    };
    let layers = a.iter().zip(b).zip(weights).map(|((a, b), w)| {
        let difference = (unit(a) - unit(b)).square(); // [B, C, H, W]
        (difference * w.clone()).sum_dim(1).mean_dims(&[2, 3]) // [B, 1, 1, 1]
    });
    layers.reduce(|a, b| a + b).expect("there are five layers")
}
