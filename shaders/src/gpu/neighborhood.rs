//! Two-dimensional neighborhood attention (Hassani et al., CVPR 2023, arXiv 2204.07143): every
//! query of an image sees the K×K keys around it, in a window that shifts inward at the borders.
//! Work and memory are linear in the tokens, and nothing is gathered in memory.
//!
//! A cube takes a small rectangle of tokens of one head. Its units first share out the pairs of
//! token and neighbor, a product of rows each, and put the scores into shared memory; then a few
//! units a token share out its columns.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::buffers;
use super::flash::{Dims, statistics};
use super::rows::{cubes, elem};
use super::view::{Layout, View};

/// Units of a cube.
const UNITS: u32 = 128;
/// Places of shared memory that a cube may take: 16 KiB, which every device has.
const PLACES: usize = 4096;
/// Queries of a key that are worked on at a time.
const CHUNK: u32 = 32;

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
pub(super) fn fits(kernel: usize, d: usize) -> bool {
    rectangle(kernel * kernel + 2 * d).is_some() && d <= 128
}

/// Cubes for rectangles of every head.
fn grid(image: Image, [h, w]: [u32; 2], dims: Dims) -> CubeCount {
    let tiles = image.height.div_ceil(h as usize) * image.width.div_ceil(w as usize);
    cubes(tiles * dims.batch * dims.heads)
}

/// As [`super::flash::forward`], each query among its neighbors.
pub(super) fn forward<R: CubeRuntime>(
    dims: Dims,
    image: Image,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    out: View<'_, R>,
    lse: &CubeTensor<R>,
) {
    let window = image.kernel * image.kernel;
    let tile = rectangle(window + dims.d).expect("`fits` was asked");
    let [q_arg, k_arg, v_arg, out_arg, lse_arg] =
        buffers([q.tensor, k.tensor, v.tensor, out.tensor, lse]);
    // SAFETY: rectangles are read and written within the image.
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            &q.tensor.client,
            grid(image, tile, dims),
            CubeDim::new_1d(UNITS),
            q_arg,
            k_arg,
            v_arg,
            out_arg,
            lse_arg,
            q.place(),
            k.place(),
            v.place(),
            out.place(),
            image.height as u32,
            image.width as u32,
            dims.heads as u32,
            dims.batch as u32,
            scale as f32,
            dims.d as u32,
            image.kernel as u32,
            tile[0],
            tile[1],
            elem(q.tensor.dtype),
        );
    }
}

/// As [`super::flash::backward`], each query among its neighbors.
pub(super) fn backward<R: CubeRuntime>(
    dims: Dims,
    image: Image,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    [out, gradient]: [View<'_, R>; 2],
    lse: &CubeTensor<R>,
    [dq, dk, dv]: [View<'_, R>; 3],
) {
    let client = q.tensor.client.clone();
    let stats = statistics(dims, out, gradient, lse);
    let queries = rectangle(image.kernel * image.kernel + 2 * dims.d).expect("`fits` was asked");
    let keys = rectangle(2 * CHUNK as usize + 2 * dims.d).expect("`fits` was asked");
    // SAFETY: rectangles are read and written within the image.
    unsafe {
        let [q_arg, k_arg, v_arg, gradient_arg, stats_arg, dq_arg] =
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, &stats, dq.tensor]);
        backward_queries::launch_unchecked::<R>(
            &client,
            grid(image, queries, dims),
            CubeDim::new_1d(UNITS),
            q_arg,
            k_arg,
            v_arg,
            gradient_arg,
            stats_arg,
            dq_arg,
            q.place(),
            k.place(),
            v.place(),
            gradient.place(),
            dq.place(),
            image.height as u32,
            image.width as u32,
            dims.heads as u32,
            dims.batch as u32,
            scale as f32,
            dims.d as u32,
            image.kernel as u32,
            queries[0],
            queries[1],
            elem(q.tensor.dtype),
        );
        let [q_arg, k_arg, v_arg, gradient_arg, stats_arg, dk_arg, dv_arg] =
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, &stats, dk.tensor, dv.tensor]);
        backward_keys::launch_unchecked::<R>(
            &client,
            grid(image, keys, dims),
            CubeDim::new_1d(UNITS),
            q_arg,
            k_arg,
            v_arg,
            gradient_arg,
            stats_arg,
            dk_arg,
            dv_arg,
            q.place(),
            k.place(),
            v.place(),
            gradient.place(),
            dk.place(),
            dv.place(),
            image.height as u32,
            image.width as u32,
            dims.heads as u32,
            dims.batch as u32,
            (image.most_queries() as u32).div_ceil(CHUNK),
            scale as f32,
            dims.d as u32,
            image.kernel as u32,
            keys[0],
            keys[1],
            elem(q.tensor.dtype),
        );
    }
}

/// First key of the window of query `i` on an axis of `n` keys.
#[cube]
fn window_start(i: u32, n: u32, #[comptime] kernel: u32) -> u32 {
    let half = comptime!(kernel / 2);
    min(max(i, half) - half, n - kernel)
}

/// First query whose window holds key `j`.
#[cube]
fn first_query(j: u32, #[comptime] kernel: u32) -> u32 {
    let mut first = u32::new(0);
    if j >= kernel {
        first = j + comptime!(1 + kernel / 2) - kernel;
    }
    first
}

/// Last query whose window holds key `j`.
#[cube]
fn last_query(j: u32, n: u32, #[comptime] kernel: u32) -> u32 {
    let mut last = n - 1;
    if j < n - kernel {
        last = j + comptime!(kernel / 2);
    }
    last
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

#[cube(launch_unchecked)]
fn forward_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    out: &mut [F],
    lse: &mut [f32],
    q_layout: Layout,
    k_layout: Layout,
    v_layout: Layout,
    out_layout: Layout,
    height: u32,
    width: u32,
    heads: u32,
    batch: u32,
    scale: f32,
    #[comptime] d: u32,
    #[comptime] kernel: u32,
    #[comptime] tile_height: u32,
    #[comptime] tile_width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tokens = comptime!(tile_height * tile_width);
    let lanes = comptime!(UNITS / tokens);
    let window = comptime!(kernel * kernel);
    let per_lane = comptime!(d.div_ceil(lanes));
    let mut shared = Shared::<[f32]>::new_slice(comptime!((tokens * (window + d)) as usize));
    let place = place(height, width, heads, tile_height, tile_width);
    if place.image < batch {
        let scores = comptime!(tokens * d);
        load::<F>(
            q,
            &q_layout,
            &place,
            height,
            width,
            &mut shared,
            0u32,
            d,
            tile_height,
            tile_width,
        );
        sync_cube();
        let (token, lane) = (UNIT_POS / lanes, UNIT_POS % lanes);
        let own = scores + token * window;
        let (y, x) = (place.top + token / tile_width, place.left + token % tile_width);
        let inside = y < height && x < width;
        let top = window_start(min(y, height - 1), height, kernel);
        let left = window_start(min(x, width - 1), width, kernel);
        let k_start = k_layout.start(place.image, place.head);
        let mut key = lane;
        while key < window {
            let at = (top + key / kernel) * width + left + key % kernel;
            let product =
                dot::<F>(&shared, token * d, k, k_start + (at * k_layout.row) as usize, d);
            shared[(own + key) as usize] = product * scale;
            key += lanes;
        }
        sync_cube();
        let mut maximum = shared[own as usize];
        for key in 1..window {
            maximum = max(maximum, shared[(own + key) as usize]);
        }
        sync_cube();
        let mut key = lane;
        while key < window {
            let at = (own + key) as usize;
            shared[at] = (shared[at] - maximum).exp();
            key += lanes;
        }
        sync_cube();
        let v_start = v_layout.start(place.image, place.head);
        let mut sum = 0.0f32;
        let mut o = Array::<f32>::new(comptime!(per_lane as usize));
        #[unroll]
        for i in 0..per_lane {
            o[i as usize] = 0.0f32;
        }
        for key in 0..window {
            let weight = shared[(own + key) as usize];
            sum += weight;
            let at = (top + key / kernel) * width + left + key % kernel;
            let row = v_start + (at * v_layout.row + lane) as usize;
            #[unroll]
            for i in 0..per_lane {
                if lane + i * lanes < d {
                    o[i as usize] +=
                        weight * f32::cast_from(v[row + comptime!((i * lanes) as usize)]);
                }
            }
        }
        if inside {
            let at = y * width + x;
            let row =
                out_layout.start(place.image, place.head) + (at * out_layout.row + lane) as usize;
            #[unroll]
            for i in 0..per_lane {
                if lane + i * lanes < d {
                    out[row + comptime!((i * lanes) as usize)] = F::cast_from(o[i as usize] / sum);
                }
            }
            if lane == 0 {
                let head = place.image * heads + place.head;
                lse[(head * height * width + at) as usize] = maximum + sum.ln();
            }
        }
    }
}

/// `dq = Σ ds·k` over the window.
#[cube(launch_unchecked)]
fn backward_queries<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    gradient: &[F],
    stats: &[f32],
    dq: &mut [F],
    q_layout: Layout,
    k_layout: Layout,
    v_layout: Layout,
    gradient_layout: Layout,
    dq_layout: Layout,
    height: u32,
    width: u32,
    heads: u32,
    batch: u32,
    scale: f32,
    #[comptime] d: u32,
    #[comptime] kernel: u32,
    #[comptime] tile_height: u32,
    #[comptime] tile_width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tokens = comptime!(tile_height * tile_width);
    let lanes = comptime!(UNITS / tokens);
    let window = comptime!(kernel * kernel);
    let per_lane = comptime!(d.div_ceil(lanes));
    let mut shared = Shared::<[f32]>::new_slice(comptime!((tokens * (window + 2 * d)) as usize));
    let place = place(height, width, heads, tile_height, tile_width);
    if place.image < batch {
        let gradients = comptime!(tokens * d);
        load::<F>(
            q,
            &q_layout,
            &place,
            height,
            width,
            &mut shared,
            0u32,
            d,
            tile_height,
            tile_width,
        );
        load::<F>(
            gradient,
            &gradient_layout,
            &place,
            height,
            width,
            &mut shared,
            gradients.runtime(),
            d,
            tile_height,
            tile_width,
        );
        sync_cube();
        let (token, lane) = (UNIT_POS / lanes, UNIT_POS % lanes);
        let own = comptime!(2 * tokens * d) + token * window;
        let (y, x) = (place.top + token / tile_width, place.left + token % tile_width);
        let (y_in, x_in) = (min(y, height - 1), min(x, width - 1));
        let top = window_start(y_in, height, kernel);
        let left = window_start(x_in, width, kernel);
        let k_start = k_layout.start(place.image, place.head);
        let v_start = v_layout.start(place.image, place.head);
        let head = place.image * heads + place.head;
        let row = (head * height * width + y_in * width + x_in) as usize;
        let mut key = lane;
        while key < window {
            let at = (top + key / kernel) * width + left + key % kernel;
            let s = dot::<F>(&shared, token * d, k, k_start + (at * k_layout.row) as usize, d);
            let v_row = v_start + (at * v_layout.row) as usize;
            let dp = dot::<F>(&shared, gradients + token * d, v, v_row, d);
            let weight = (s * scale - stats[2 * row]).exp();
            shared[(own + key) as usize] = weight * (dp - stats[2 * row + 1]) * scale;
            key += lanes;
        }
        sync_cube();
        let mut sums = Array::<f32>::new(comptime!(per_lane as usize));
        #[unroll]
        for i in 0..per_lane {
            sums[i as usize] = 0.0f32;
        }
        for key in 0..window {
            let ds = shared[(own + key) as usize];
            let at = (top + key / kernel) * width + left + key % kernel;
            let row = k_start + (at * k_layout.row + lane) as usize;
            #[unroll]
            for i in 0..per_lane {
                if lane + i * lanes < d {
                    sums[i as usize] +=
                        ds * f32::cast_from(k[row + comptime!((i * lanes) as usize)]);
                }
            }
        }
        if y < height && x < width {
            let row = dq_layout.start(place.image, place.head)
                + ((y * width + x) * dq_layout.row + lane) as usize;
            #[unroll]
            for i in 0..per_lane {
                if lane + i * lanes < d {
                    dq[row + comptime!((i * lanes) as usize)] = F::cast_from(sums[i as usize]);
                }
            }
        }
    }
}

/// `dv = Σ p·dO` and `dk = Σ ds·q` over the queries that see a key.
#[cube(launch_unchecked)]
fn backward_keys<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    gradient: &[F],
    stats: &[f32],
    dk: &mut [F],
    dv: &mut [F],
    q_layout: Layout,
    k_layout: Layout,
    v_layout: Layout,
    gradient_layout: Layout,
    dk_layout: Layout,
    dv_layout: Layout,
    height: u32,
    width: u32,
    heads: u32,
    batch: u32,
    chunks: u32,
    scale: f32,
    #[comptime] d: u32,
    #[comptime] kernel: u32,
    #[comptime] tile_height: u32,
    #[comptime] tile_width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tokens = comptime!(tile_height * tile_width);
    let lanes = comptime!(UNITS / tokens);
    let per_lane = comptime!(d.div_ceil(lanes));
    let mut shared = Shared::<[f32]>::new_slice(comptime!((tokens * 2 * (CHUNK + d)) as usize));
    let place = place(height, width, heads, tile_height, tile_width);
    if place.image < batch {
        let values = comptime!(tokens * d);
        load::<F>(
            k,
            &k_layout,
            &place,
            height,
            width,
            &mut shared,
            0u32,
            d,
            tile_height,
            tile_width,
        );
        load::<F>(
            v,
            &v_layout,
            &place,
            height,
            width,
            &mut shared,
            values.runtime(),
            d,
            tile_height,
            tile_width,
        );
        sync_cube();
        let (token, lane) = (UNIT_POS / lanes, UNIT_POS % lanes);
        let own = comptime!(2 * tokens * d) + token * comptime!(2 * CHUNK);
        let (y, x) = (place.top + token / tile_width, place.left + token % tile_width);
        let (y_in, x_in) = (min(y, height - 1), min(x, width - 1));
        let top = first_query(y_in, kernel);
        let left = first_query(x_in, kernel);
        let across = last_query(x_in, width, kernel) + 1 - left;
        let count = across * (last_query(y_in, height, kernel) + 1 - top);
        let q_start = q_layout.start(place.image, place.head);
        let o_start = gradient_layout.start(place.image, place.head);
        let head = (place.image * heads + place.head) * height * width;
        let mut dk_sums = Array::<f32>::new(comptime!(per_lane as usize));
        let mut dv_sums = Array::<f32>::new(comptime!(per_lane as usize));
        #[unroll]
        for i in 0..per_lane {
            dk_sums[i as usize] = 0.0f32;
            dv_sums[i as usize] = 0.0f32;
        }
        for chunk in 0..chunks {
            let first = chunk * CHUNK;
            let mut i = lane;
            while i < CHUNK {
                let query = first + i;
                if query < count {
                    let at = (top + query / across) * width + left + query % across;
                    let row = (head + at) as usize;
                    let q_row = q_start + (at * q_layout.row) as usize;
                    let o_row = o_start + (at * gradient_layout.row) as usize;
                    let s = dot::<F>(&shared, token * d, q, q_row, d);
                    let dp = dot::<F>(&shared, values + token * d, gradient, o_row, d);
                    let weight = (s * scale - stats[2 * row]).exp();
                    shared[(own + i) as usize] = weight;
                    shared[(own + CHUNK + i) as usize] = weight * (dp - stats[2 * row + 1]) * scale;
                }
                i += lanes;
            }
            sync_cube();
            let mut i = u32::new(0);
            while i < CHUNK && first + i < count {
                let query = first + i;
                let at = (top + query / across) * width + left + query % across;
                let q_row = q_start + (at * q_layout.row + lane) as usize;
                let o_row = o_start + (at * gradient_layout.row + lane) as usize;
                let weight = shared[(own + i) as usize];
                let ds = shared[(own + CHUNK + i) as usize];
                #[unroll]
                for j in 0..per_lane {
                    if lane + j * lanes < d {
                        let step = comptime!((j * lanes) as usize);
                        dv_sums[j as usize] += weight * f32::cast_from(gradient[o_row + step]);
                        dk_sums[j as usize] += ds * f32::cast_from(q[q_row + step]);
                    }
                }
                i += 1;
            }
            sync_cube();
        }
        if y < height && x < width {
            let at = y * width + x;
            let k_row =
                dk_layout.start(place.image, place.head) + (at * dk_layout.row + lane) as usize;
            let v_row =
                dv_layout.start(place.image, place.head) + (at * dv_layout.row + lane) as usize;
            #[unroll]
            for j in 0..per_lane {
                if lane + j * lanes < d {
                    let step = comptime!((j * lanes) as usize);
                    dk[k_row + step] = F::cast_from(dk_sums[j as usize]);
                    dv[v_row + step] = F::cast_from(dv_sums[j as usize]);
                }
            }
        }
    }
}
