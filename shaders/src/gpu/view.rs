//! Tokens of heads inside a larger tensor.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::MOST;
use super::rows::Rows;

/// Where the values of a token's head begin: `offset + image·batch + token·row + head·head`.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Layout {
    pub offset: u32,
    pub batch: u32,
    pub row: u32,
    pub head: u32,
}

#[cube]
impl Layout {
    /// Where the first token of a head begins.
    pub fn start(&self, image: u32, head: u32) -> usize {
        (self.offset + image * self.batch + head * self.head) as usize
    }
}

/// A tensor and where its heads are.
#[derive(Debug)]
pub(super) struct View<'a, R: CubeRuntime> {
    pub tensor: &'a CubeTensor<R>,
    layout: [usize; 4],
}

impl<R: CubeRuntime> Clone for View<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: CubeRuntime> Copy for View<'_, R> {}

/// A `[B, heads, N, d]` whose heads' values lie together, copied only where they do not, or so far apart that
/// their places do not fit 32 bits.
pub(super) fn contiguous_heads<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let axes = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
    let reach: u64 = axes.map(|(&side, &stride)| side as u64 * stride as u64).sum();
    let fits = tensor.meta.strides()[3] == 1 && reach <= MOST;
    if fits { tensor } else { into_contiguous(tensor) }
}

impl<'a, R: CubeRuntime> View<'a, R> {
    /// Of `[B, heads, N, d]` that [`contiguous_heads`] gave.
    pub(super) fn heads_first(tensor: &'a CubeTensor<R>) -> Self {
        let strides = tensor.meta.strides();
        Self { tensor, layout: [0, strides[0], strides[2], strides[1]] }
    }

    /// Part `part` of rows `[B·N, parts·heads·d]`, of which an image has `n`.
    pub(super) fn packed(rows: &'a Rows<R>, part: usize, n: usize, [heads, d]: [usize; 2]) -> Self {
        let layout = [part * heads * d, n * rows.stride, rows.stride, d];
        Self { tensor: &rows.tensor, layout }
    }

    /// The layout as kernels in CUDA C++ take it.
    #[cfg(feature = "cuda")]
    pub(super) fn numbers(&self) -> [u32; 4] {
        self.layout.map(|n| n as u32)
    }

    /// Whether every token of a head begins at a multiple of 16 bytes.
    #[cfg(feature = "cuda")]
    pub(super) fn is_aligned(&self) -> bool {
        let size = self.tensor.dtype.size();
        let start = self.tensor.handle.offset_start.unwrap_or(0);
        self.layout.iter().all(|n| (n * size).is_multiple_of(16)) && start.is_multiple_of(16)
    }

    /// The layout.
    pub(super) fn place(&self) -> LayoutLaunch<R> {
        self.place_in_vectors(1)
    }

    /// The layout, counted in vectors of `n` values.
    pub(super) fn place_in_vectors(&self, n: usize) -> LayoutLaunch<R> {
        let [offset, batch, row, head] = self.layout.map(|values| (values / n) as u32);
        LayoutLaunch::new(offset, batch, row, head)
    }

    /// Whether heads can be read in vectors of `n` values.
    pub(super) fn allows(&self, n: usize) -> bool {
        let start = self.tensor.handle.offset_start.unwrap_or(0);
        let size = self.tensor.dtype.size();
        self.layout.iter().all(|values| values.is_multiple_of(n))
            && start.is_multiple_of((n * size) as u64)
    }
}
