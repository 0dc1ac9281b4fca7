//! Tokens of heads inside a larger tensor.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

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
pub(super) struct View<R: CubeRuntime> {
    pub tensor: CubeTensor<R>,
    pub layout: [usize; 4],
}

impl<R: CubeRuntime> Clone for View<R> {
    fn clone(&self) -> Self {
        Self { tensor: self.tensor.clone(), layout: self.layout }
    }
}

impl<R: CubeRuntime> View<R> {
    /// Of `[B, heads, N, d]`, copied only where the values of a head do not lie together.
    pub(super) fn heads_first(tensor: CubeTensor<R>) -> Self {
        let tensor = if tensor.meta.strides()[3] == 1 { tensor } else { into_contiguous(tensor) };
        let strides = tensor.meta.strides();
        let layout = [0, strides[0], strides[2], strides[1]];
        Self { tensor, layout }
    }

    /// Part `part` of a contiguous `[B, N, parts, heads, d]`.
    pub(super) fn packed(
        tensor: CubeTensor<R>,
        part: usize,
        [n, parts, heads, d]: [usize; 4],
    ) -> Self {
        let row = parts * heads * d;
        Self { tensor, layout: [part * heads * d, n * row, row, d] }
    }

    /// The buffer.
    pub(super) fn arg(&self) -> BufferArg<R> {
        self.tensor.clone().into_buffer_arg()
    }

    /// The layout.
    pub(super) fn place(&self) -> LayoutLaunch<R> {
        let [offset, batch, row, head] = self.layout.map(|n| n as u32);
        LayoutLaunch::new(offset, batch, row, head)
    }
}
