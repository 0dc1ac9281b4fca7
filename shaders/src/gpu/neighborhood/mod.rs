//! Two-dimensional neighborhood attention (Hassani et al., CVPR 2023, arXiv 2204.07143): every
//! query of an image sees the K×K keys around it, in a window that shifts inward at the borders.
//! Work and memory are linear in the tokens, and nothing is gathered in memory.
//!
//! A cube takes a small rectangle of tokens of one head. Its units first share out the pairs of
//! token and neighbor, a product of rows each, and put the scores into shared memory; then a few
//! units a token share out its columns.

mod backward;
mod forward;

pub(super) use backward::backward;
use cubecl::prelude::*;
pub(super) use forward::forward;

use super::flash::Dims;
use super::rows::cubes;
use super::view::Layout;

/// Units of a cube.
const UNITS: u32 = 128;
/// Places of shared memory that a cube may take: 16 KiB, which every device has.
const PLACES: usize = 4096;

/// The image that the tokens make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub height: usize,
    pub width: usize,
    /// Side K of the window, at most height and width.
    pub kernel: usize,
}

impl Image {
    /// The most queries that one key is seen by.
    fn most_queries(&self) -> usize {
        let axis = |n: usize| {
            let (half, last) = (self.kernel / 2, n - self.kernel);
            let count = |j: usize| {
                let low = if j < self.kernel { 0 } else { j + 1 + half - self.kernel };
                let high = if j >= last { n - 1 } else { j + half };
                high + 1 - low
            };
            (0..n).map(count).max().unwrap_or(0)
        };
        axis(self.height) * axis(self.width)
    }
}

/// Rows and columns of the largest rectangle whose tokens, of `places` places each, fit.
fn rectangle(places: usize) -> Option<[u32; 2]> {
    let shapes = [[8, 8], [4, 8], [4, 4], [2, 4], [2, 2], [1, 1]];
    shapes.into_iter().find(|[h, w]| (h * w) as usize * places <= PLACES)
}

/// Whether the kernels hold a neighborhood of this size.
pub(in crate::gpu) fn fits(kernel: usize, d: usize) -> bool {
    rectangle(kernel * kernel + 2 * d).is_some() && d <= 128
}

/// Cubes for rectangles of every head.
fn grid(image: Image, [h, w]: [u32; 2], dims: Dims) -> CubeCount {
    let tiles = image.height.div_ceil(h as usize) * image.width.div_ceil(w as usize);
    cubes(tiles * dims.batch * dims.heads)
}

/// First key of the window of query `i` on an axis of `n` keys.
#[cube]
fn window_start(i: u32, n: u32, #[comptime] kernel: u32) -> u32 {
    let half = comptime!(kernel / 2);
    min(max(i, half) - half, n - kernel)
}

/// What a cube works on.
#[derive(CubeType)]
struct Place {
    image: u32,
    head: u32,
    /// The rectangle's corner.
    top: u32,
    left: u32,
}

#[cube]
fn place(
    height: u32,
    width: u32,
    heads: u32,
    #[comptime] tile_height: u32,
    #[comptime] tile_width: u32,
) -> Place {
    let across = width.div_ceil(tile_width);
    let tiles = across * height.div_ceil(tile_height);
    let cube = CUBE_POS as u32;
    let tile = cube % tiles;
    Place {
        image: cube / tiles / heads,
        head: cube / tiles % heads,
        top: tile / across * tile_height,
        left: tile % across * tile_width,
    }
}

/// Copies the rows of a rectangle of tokens into shared memory, from `to` on; beyond the border,
/// the last ones again.
#[cube]
fn load<F: Float>(
    from: &[F],
    layout: &Layout,
    place: &Place,
    height: u32,
    width: u32,
    shared: &mut Shared<[f32]>,
    to: u32,
    #[comptime] d: u32,
    #[comptime] tile_height: u32,
    #[comptime] tile_width: u32,
) {
    let start = layout.start(place.image, place.head);
    let mut i = UNIT_POS;
    while i < comptime!(tile_height * tile_width * d) {
        let (token, column) = (i / d, i % d);
        let y = min(place.top + token / tile_width, height - 1);
        let x = min(place.left + token % tile_width, width - 1);
        let at = start + ((y * width + x) * layout.row + column) as usize;
        shared[(to + i) as usize] = f32::cast_from(from[at]);
        i += UNITS;
    }
}

/// The product of a row in shared memory and one in memory.
#[cube]
fn dot<F: Float>(
    shared: &Shared<[f32]>,
    at: u32,
    values: &[F],
    start: usize,
    #[comptime] d: u32,
) -> f32 {
    let mut sum = 0.0f32;
    for i in 0..comptime!(d as usize) {
        sum += shared[at as usize + i] * f32::cast_from(values[start + i]);
    }
    sum
}
