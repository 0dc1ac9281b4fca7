//! Rotary position embeddings: LightningDiT's, iMF's and pMF's over adjacent pairs, HDiT's over split halves.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
pub use tintype_shaders::plain::{axial_grid, rotate_halves};
use tintype_shaders::{QkTransform, plain, rotate_pairs};

use super::kept::{Kept, kept};
use super::table;

/// LightningDiT's angles `[grid², head_dim]` (§2): integer positions, each frequency in two
/// adjacent slots, **row angles in the first half, column angles in the second**.
///
/// `head_dim` must be divisible by 4.
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

    /// The tables as attention takes them.
    pub fn table(&self) -> RotaryTable {
        RotaryTable { cos: self.freqs_cos.val(), sin: self.freqs_sin.val() }
    }
}

/// iMF's angles `[count, head_dim]`: positions 0, 1, … in one dimension, each frequency in two adjacent slots.
///
/// `head_dim` must be even.
pub fn line_angles(head_dim: usize, count: usize) -> Vec<f64> {
    let frequency = |j: usize| 10000f64.powf(-(2.0 * j as f64) / head_dim as f64);
    let freqs: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
    let mut angles = Vec::with_capacity(count * head_dim);
    for position in 0..count {
        for f in &freqs {
            angles.extend([position as f64 * f; 2]);
        }
    }
    angles
}

/// Where the tokens of a sequence are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// One behind the other, so many from place 0 on (iMF).
    Line {
        /// Tokens.
        count: usize,
    },
    /// On a square grid, behind tokens that have no place and are not turned (pMF, JiT).
    Grid {
        /// Tokens before the grid.
        prefix: usize,
        /// Rows of the grid, and tokens of a row.
        side: usize,
    },
}

impl Places {
    fn angles(self, head_dim: usize) -> Vec<f64> {
        match self {
            Self::Line { count } => line_angles(head_dim, count),
            Self::Grid { prefix, side } => {
                let mut angles = vec![0.0; prefix * head_dim];
                angles.extend(axial_angles(head_dim, side));
                angles
            }
        }
    }
}

/// Rotary tables over adjacent pairs: computed, or those of a checkpoint ([`AxialRope::table`]).
#[derive(Clone, Debug)]
pub struct RotaryTable {
    /// `[N, head_dim]`
    pub cos: Tensor<2>,
    /// `[N, head_dim]`
    pub sin: Tensor<2>,
}

impl RotaryTable {
    /// The table of these places. It stays on the device. `head_dim` must be even, and divisible by 4 for a grid.
    pub fn new(places: Places, head_dim: usize, device: &Device) -> Self {
        static TABLES: Kept<(Places, usize), RotaryTable> = Kept::new(Vec::new());
        kept(&TABLES, device, (places, head_dim), || {
            let angles = places.angles(head_dim);
            let column = |f: fn(f64) -> f64| -> Tensor<2> {
                let values: Vec<f32> = angles.iter().map(|&angle| f(angle) as f32).collect();
                let shape = [values.len() / head_dim.max(1), head_dim];
                Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
            };
            Self { cos: column(f64::cos), sin: column(f64::sin) }
        })
    }

    /// Rotates adjacent pairs, `(a, b) → (a cos θ − b sin θ, b cos θ + a sin θ)`, in the dtype that `x` and the tables
    /// share, else in float32.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, heads, N, head_dim]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        rotate_pairs(x, self.cos.clone(), self.sin.clone())
    }

    /// The rotation inside of attention.
    pub fn preparation(&self) -> QkTransform {
        QkTransform::Rotary { cos: self.cos.clone(), sin: self.sin.clone() }
    }

    /// The tables off the graph of automatic differentiation.
    pub fn inner(&self) -> Self {
        Self { cos: self.cos.clone().inner(), sin: self.sin.clone().inner() }
    }
}

/// HDiT's frequencies `[heads, head_dim/8]`: one geometric ladder from π to 10π (end excluded),
/// shared out over the heads so that neighbours hold neighbouring frequencies.
///
/// `head_dim` must be divisible by 8.
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

    /// Angles of an axial grid, vertical first, in float32.
    ///
    /// # Shapes
    ///
    /// * returns `[H, W, heads, head_dim/4]`
    pub fn angles(&self, height: usize, width: usize) -> Tensor<4> {
        plain::head_angles(self.freqs.val(), height, width)
    }
}
