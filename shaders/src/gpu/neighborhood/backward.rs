//! The backward pass, from the side of the queries and from that of the keys.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::flash::{Dims, statistics};
use super::super::rows::elem;
use super::super::view::{Layout, View};
use super::{Image, UNITS, dot, grid, load, place, rectangle, window_start};

/// Queries of a key that are worked on at a time.
const CHUNK: u32 = 32;

/// As [`super::flash::backward`], each query among its neighbors.
pub(in crate::gpu) fn backward<R: CubeRuntime>(
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
    // SAFETY: rectangles are read and written within the image; places fit 32 bits (`bridge::MOST`).
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
