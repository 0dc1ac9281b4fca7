//! What is done to queries and keys between their projection and attention.

use burn::tensor::{DType, FloatDType, Tensor, TensorData};

use super::statistics_type;

/// Rotates adjacent pairs by tables: `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)`, in the dtype that `x` and the
/// tables share, else in float32.
///
/// # Shapes
///
/// * `x`: `[B, heads, N, d]`
/// * `cos`, `sin`: `[N, d]`
/// * returns `[B, heads, N, d]`
///
/// # Panics
///
/// If the shapes do not fit each other, or `d` is odd.
pub fn rotate_pairs(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let dtype = x.dtype();
    let x = if dtype == cos.dtype() { x } else { x.cast(FloatDType::F32) };
    let [b, h, n, d] = x.dims();
    let pairs = x.clone().reshape([b, h, n, d / 2, 2]);
    let first = pairs.clone().narrow(4, 0, 1);
    let second = pairs.narrow(4, 1, 1);
    let turned = Tensor::cat(vec![-second, first], 4).reshape([b, h, n, d]);
    (x * cos.reshape([1, 1, n, d]) + turned * sin.reshape([1, 1, n, d])).cast(dtype)
}

/// HDiT's axial grid `[H, W, 2]` of cell centres as (y, x): the longer side spans −1…1, the
/// shorter one proportionally less (`hdit` §3).
pub fn axial_grid(height: usize, width: usize) -> Vec<f64> {
    let longer = height.max(width) as f64;
    let (y_span, x_span) = (height as f64 / longer, width as f64 / longer);
    let centre = |i: usize, n: usize, span: f64| -span + (2 * i + 1) as f64 * span / n as f64;
    let mut grid = Vec::with_capacity(height * width * 2);
    for i in 0..height {
        for j in 0..width {
            grid.extend([centre(i, height, y_span), centre(j, width, x_span)]);
        }
    }
    grid
}

/// HDiT's angles on the axial grid, vertical first, in float32.
///
/// # Shapes
///
/// * `freqs`: `[heads, d/8]`
/// * returns `[height, width, heads, d/4]`
pub fn head_angles(freqs: Tensor<2>, height: usize, width: usize) -> Tensor<4> {
    let freqs = freqs.cast(FloatDType::F32);
    let [heads, n] = freqs.dims();
    let grid: Vec<f32> = axial_grid(height, width).into_iter().map(|p| p as f32).collect();
    let grid = Tensor::<5>::from_data(
        TensorData::new(grid, [height, width, 1, 2, 1]),
        (&freqs.device(), DType::F32),
    );
    let angles = grid * freqs.reshape([1, 1, heads, 1, n]); // [H, W, heads, 2, n]
    angles.reshape([height, width, heads, 2 * n])
}

/// Rotates pairs `(u_i, u_{i+d/4})` of the lower half of every head; the upper half passes.
///
/// # Shapes
///
/// * `x`: `[B, H, W, heads, d]`
/// * `angles`: `[H, W, heads, d/4]`
/// * returns `[B, H, W, heads, d]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn rotate_halves(x: Tensor<5>, angles: Tensor<4>) -> Tensor<5> {
    let dtype = x.dtype();
    let dims = x.dims();
    let (d, quarter) = (dims[4], dims[4] / 4);
    let x = x.cast(FloatDType::F32);
    let a = x.clone().narrow(4, 0, quarter);
    let b = x.clone().narrow(4, quarter, quarter);
    let rest = x.narrow(4, 2 * quarter, d - 2 * quarter);
    let cos = angles.clone().cos().unsqueeze::<5>();
    let sin = angles.sin().unsqueeze::<5>();
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second, rest], 4).cast(dtype)
}

/// `q̂ = q·√scale / √(Σq² + 1e-6)`, likewise k: their product is `scale` times the cosine.
///
/// # Shapes
///
/// * `q`, `k`: `[B, H, W, heads, d]`
/// * `scale`: `[heads]`
/// * returns the shapes of `q` and `k`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn cosine_similarity_scale(
    q: Tensor<5>,
    k: Tensor<5>,
    scale: Tensor<1>,
) -> (Tensor<5>, Tensor<5>) {
    let heads = scale.dims()[0];
    let root = scale.sqrt().reshape([1, 1, 1, heads, 1]);
    let unit = |x: Tensor<5>| {
        let dtype = x.dtype();
        let x = statistics_type(x);
        let norm = (x.clone().square().sum_dim(4) + 1e-6).sqrt();
        (x / norm).cast(dtype) * root.clone()
    };
    (unit(q), unit(k))
}
