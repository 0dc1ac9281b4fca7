//! The forward pass.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::flash::Dims;
use super::super::rows::elem;
use super::super::view::{Layout, View};
use super::{Image, UNITS, dot, grid, load, place, rectangle, window_start};

/// As [`super::flash::forward`], each query among its neighbors.
pub(in crate::gpu) fn forward<R: CubeRuntime>(
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
    // SAFETY: rectangles are read and written within the image; places fit 32 bits (`bridge::MOST`).
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
