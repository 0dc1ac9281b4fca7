//! The position table on another grid than it was trained for.

use burn::tensor::Tensor;

use crate::resize::{Method, resize_tensor};

/// How the position table is brought to another grid. Four tools, three results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The authors' own: bicubic with an offset of 0.1 without registers, antialiased with them.
    Native,
    /// timm's `resample_abs_pos_embed`: antialiased (REPA, Hi-DiT, VA-VAE).
    Timm,
    /// transformers' `Dinov2Model`: bicubic without the offset; antialiased with registers.
    Transformers,
}

impl Interpolation {
    /// The resizing of the table of a network with registers, or without.
    pub(super) fn method(self, has_registers: bool) -> Method {
        match (self, has_registers) {
            (Self::Timm, _) | (_, true) => Method::BicubicAntialias,
            (Self::Native, false) => Method::BicubicOffset,
            (Self::Transformers, false) => Method::Bicubic,
        }
    }
}

/// A position table for another grid (height, width): the class row stays, the square grid behind it is resampled.
///
/// # Shapes
///
/// * `table`: `[1, 1 + from², D]`
/// * returns `[1, 1 + height·width, D]`
///
/// # Panics
///
/// If `table` has no row behind the class's, or not those of a square.
pub fn resample_positions(table: Tensor<3>, to: [usize; 2], method: Method) -> Tensor<3> {
    let [_, rows, d] = table.dims();
    let from = (rows - 1).isqrt();
    let class = table.clone().narrow(1, 0, 1); // [1, 1, D]
    let grid = table.narrow(1, 1, rows - 1).swap_dims(1, 2).reshape([1, d, from, from]);
    let grid = resize_tensor(grid, to, method); // [1, D, height, width]
    let grid = grid.reshape([1, d, to[0] * to[1]]).swap_dims(1, 2); // [1, height·width, D]
    Tensor::cat(vec![class, grid], 1)
}
