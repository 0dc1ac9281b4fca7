//! Rotary position embeddings: LightningDiT's over adjacent pairs, HDiT's over split halves.

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use super::table;

/// LightningDiT's angles `[grid², head_dim]` (§2): integer positions, each frequency in two
/// adjacent slots, **row angles in the first half, column angles in the second**.
pub fn axial_angles(head_dim: usize, grid: usize) -> Vec<f64> {
    let n = head_dim / 2;
    let freqs: Vec<f64> = (0..n / 2).map(|j| 10000f64.powf(-(2.0 * j as f64) / n as f64)).collect();
    let mut angles = Vec::with_capacity(grid * grid * head_dim);
    for row in 0..grid {
        for column in 0..grid {
            for position in [row, column] {
                for f in &freqs {
                    angles.extend([position as f64 * f; 2]);
                }
            }
        }
    }
    angles
}

/// LightningDiT's rotary tables, stored in its checkpoints as `feat_rope.*`.
#[derive(Module, Debug)]
pub struct AxialRope {
    /// `[N, head_dim]`
    pub freqs_cos: Param<Tensor<2>>,
    /// `[N, head_dim]`
    pub freqs_sin: Param<Tensor<2>>,
}

impl AxialRope {
    /// Tables for a square grid.
    pub fn new(head_dim: usize, grid: usize, device: &Device) -> Self {
        let shape = [grid * grid, head_dim];
        let column = |f: fn(f64) -> f64| {
            move || axial_angles(head_dim, grid).into_iter().map(|a| f(a) as f32).collect()
        };
        Self {
            freqs_cos: table(shape, column(f64::cos), device),
            freqs_sin: table(shape, column(f64::sin), device),
        }
    }

    /// Rotates adjacent pairs: `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)`.
    ///
    /// `[B, heads, N, head_dim]` → the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, n, d] = x.dims();
        let pairs = x.clone().reshape([b, h, n, d / 2, 2]);
        let first = pairs.clone().narrow(4, 0, 1);
        let second = pairs.narrow(4, 1, 1);
        let turned = Tensor::cat(vec![-second, first], 4).reshape([b, h, n, d]);
        let cos = self.freqs_cos.val().reshape([1, 1, n, d]);
        let sin = self.freqs_sin.val().reshape([1, 1, n, d]);
        x * cos + turned * sin
    }
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

/// HDiT's frequencies `[heads, head_dim/8]`: one geometric ladder from π to 10π (end excluded),
/// shared out over the heads so that neighbours hold neighbouring frequencies.
pub fn head_frequencies(heads: usize, head_dim: usize) -> Vec<f64> {
    let n = head_dim / 8;
    let mut freqs = Vec::with_capacity(heads * n);
    for h in 0..heads {
        for j in 0..n {
            let step = (j * heads + h) as f64 / (heads * n) as f64;
            freqs.push(std::f64::consts::PI * 10f64.powf(step));
        }
    }
    freqs
}

/// HDiT's rotary embedding; the frequencies are a buffer of the checkpoint.
#[derive(Module, Debug)]
pub struct HeadRope {
    /// `[heads, head_dim/8]`
    pub freqs: Param<Tensor<2>>,
}

impl HeadRope {
    /// Frequencies for `heads` heads of `head_dim`.
    pub fn new(heads: usize, head_dim: usize, device: &Device) -> Self {
        let values = move || head_frequencies(heads, head_dim).iter().map(|&f| f as f32).collect();
        Self { freqs: table([heads, head_dim / 8], values, device) }
    }

    /// Angles `[H, W, heads, head_dim/4]` of an axial grid, vertical first, in float32.
    pub fn angles(&self, height: usize, width: usize) -> Tensor<4> {
        let freqs = self.freqs.val().cast(FloatDType::F32);
        let [heads, n] = freqs.dims();
        let grid: Vec<f32> = axial_grid(height, width).into_iter().map(|p| p as f32).collect();
        let grid = Tensor::<5>::from_data(
            TensorData::new(grid, [height, width, 1, 2, 1]),
            (&freqs.device(), burn::tensor::DType::F32),
        );
        let angles = grid * freqs.reshape([1, 1, heads, 1, n]); // [H, W, heads, 2, n]
        angles.reshape([height, width, heads, 2 * n])
    }

    /// Rotates pairs `(u_i, u_{i+d/4})` of the lower half of every head; the upper half passes.
    ///
    /// * `x`: `[B, H, W, heads, head_dim]`
    /// * `angles`: `[H, W, heads, head_dim/4]`
    pub fn rotate(x: Tensor<5>, angles: Tensor<4>) -> Tensor<5> {
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
}
