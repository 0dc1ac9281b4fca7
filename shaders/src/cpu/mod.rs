//! Fused kernels for Burn's CPU backend, float32, with their gradients. Without a gradient, the weights of linear
//! layers may be float16 or bfloat16.
//!
//! Burn's Flex computes one operation at a time on one thread, and its exponentials one number at
//! a time. These kernels fuse what a transformer block does between its products, run on all
//! cores, and are compiled for the vector instructions that the machine has (chosen at run time).
//!
//! Every number is computed by the same sequence of operations wherever it lies, and however the work is cut into
//! pieces. So on one processor a picture's bits do not depend on what is computed beside it, and not on the number of
//! cores: of products, which are cut for the cores that there are, see `product`. In gradients, what is summed over
//! rows is summed in pieces that the sizes alone decide, or by a product, so these do not depend on the cores either.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod gelu;
pub(crate) mod glu;
pub(crate) mod group_norm;
pub(crate) mod linear;
pub(crate) mod lists;
mod math;
mod memory;
mod neighborhood;
pub(crate) mod norm;
pub(crate) mod pool;
mod prepare;
mod product;
pub(crate) mod qkv;
pub(crate) mod rotate;
pub(crate) mod softmax;
mod sums;
mod tensor;
mod tile;
pub(crate) mod upsample;
mod vectors;
mod weight;

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

/// The same for arrays of `sizes` values a piece whose pieces belong together.
pub(crate) fn for_each_pieces<const K: usize>(
    data: [&mut [f32]; K],
    sizes: [usize; K],
    f: impl Fn(usize, [&mut [f32]; K]) + Send + Sync,
) {
    let mut chunks: Vec<_> =
        data.into_iter().zip(sizes).map(|(data, size)| data.chunks_mut(size)).collect();
    let count = chunks.first().map_or(0, |chunks| chunks.len());
    let piece = |_| std::array::from_fn(|i| chunks[i].next().unwrap_or_default());
    let pieces: Vec<[&mut [f32]; K]> = (0..count).map(piece).collect();
    for_each(pieces, f);
}

/// Runs `f(index, piece)` for each piece, on all cores where there are several.
pub(crate) fn for_each<T: Send>(pieces: Vec<T>, f: impl Fn(usize, T) + Send + Sync) {
    #[cfg(not(target_family = "wasm"))]
    {
        use rayon::prelude::*;
        pieces.into_par_iter().enumerate().for_each(|(i, piece)| f(i, piece));
    }
    #[cfg(target_family = "wasm")]
    pieces.into_iter().enumerate().for_each(|(i, piece)| f(i, piece));
}
