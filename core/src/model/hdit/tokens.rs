//! Between levels: cells of tokens merged into one and split again.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::nn::constant;
use crate::nn::linear::{Init, Linear};
use crate::nn::patch::{depth_to_space, space_to_depth};

/// Folds cells of tokens into one and projects it.
#[derive(Module, Debug)]
pub struct TokenMerge {
    proj: Linear,
    cell: [usize; 2],
}

impl TokenMerge {
    /// `d_in` counts the values of a whole cell.
    pub fn new(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self { proj: Linear::without_bias(d_in, d_out, Init::FanIn, device), cell }
    }

    /// Merges cells of ph × pw tokens.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, C]`
    /// * returns `[B, H/ph, W/pw, out]`
    ///
    /// # Panics
    ///
    /// If C is not `d_in/(ph·pw)`, or ph does not divide H or pw W.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.proj.forward(space_to_depth(x, self.cell))
    }
}

/// Projects tokens onto cells.
#[derive(Module, Debug)]
pub struct TokenUnpatch {
    proj: Linear,
    cell: [usize; 2],
}

impl TokenUnpatch {
    /// `d_out` counts the values of a whole cell.
    pub fn new(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self { proj: Linear::without_bias(d_in, d_out, Init::Zero, device), cell }
    }

    /// Splits tokens into cells of ph × pw.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, in]`
    /// * returns `[B, H·ph, W·pw, C]` with C = `d_out/(ph·pw)`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        depth_to_space(self.proj.forward(x), self.cell)
    }
}

/// The 2×2 inverse of a merge, lerped with the skip: `skip + fac·(upsampled − skip)`.
#[derive(Module, Debug)]
pub struct TokenSplit {
    proj: Linear,
    fac: Param<Tensor<1>>,
    cell: [usize; 2],
}

impl TokenSplit {
    /// `d_out` counts the values of a whole 2×2 cell.
    pub fn new(d_in: usize, d_out: usize, device: &Device) -> Self {
        Self::with_cell(d_in, d_out, [2, 2], device)
    }

    /// Likewise with other cells.
    pub fn with_cell(d_in: usize, d_out: usize, cell: [usize; 2], device: &Device) -> Self {
        Self {
            proj: Linear::without_bias(d_in, d_out, Init::FanIn, device),
            fac: constant([1], 0.5, device),
            cell,
        }
    }

    /// Splits tokens into cells of ph × pw (2 × 2 but for [`with_cell`](Self::with_cell)) and mixes
    /// them with the skip.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, H, W, in]`
    /// * `skip`: `[B, H·ph, W·pw, out]`
    /// * returns the skip's shape
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn forward(&self, x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let upsampled = depth_to_space(self.proj.forward(x), self.cell);
        let fac = self.fac.val().reshape([1, 1, 1, 1]);
        skip.clone() + (upsampled - skip) * fac
    }
}
