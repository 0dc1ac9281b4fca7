//! Fused kernels for Burn's CPU backend, float32.
//!
//! Burn's Flex computes one operation at a time on one thread, and its exponentials one number at
//! a time. These kernels fuse what a transformer block does between its products, run on all
//! cores, and are compiled for the vector instructions that the machine has (chosen at run time).
//!
//! Work is cut into pieces whose size does not depend on the batch, and every number is computed
//! by the same sequence of operations wherever it lies, so a picture does not depend on what is
//! computed beside it.

mod attention;
mod glu;
mod linear;
mod math;
mod neighborhood;
mod norm;
mod prepare;
mod tensor;

pub(crate) use attention::{attention, qkv_attention};
pub(crate) use glu::{geglu, swiglu};
pub(crate) use linear::{Epilogue, linear};
pub(crate) use neighborhood::qkv_neighborhood;
pub(crate) use norm::{gated_residual, gelu_tanh, group_norm_silu, layer_norm_modulate};
pub(crate) use prepare::prepare;

/// Runs `f(index, piece)` for consecutive pieces of `data`, on all cores where there are several.
pub(crate) fn for_each_piece(
    data: &mut [f32],
    size: usize,
    f: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    #[cfg(not(target_family = "wasm"))]
    {
        use rayon::prelude::*;
        data.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    }
    #[cfg(target_family = "wasm")]
    data.chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
}
