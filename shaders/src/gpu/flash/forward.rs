//! The forward pass.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::rows::{cubes, elem, vector_sum};
use super::super::tile::{
    PRODUCT_STAGE, SIDE, rows_by_rows, side, stage_size, tile_by_rows, tile_size,
};
use super::super::view::{Layout, View};
use super::{Dims, LOWEST, filled, rows_per_unit, share, span, write};

/// As [`super::forward`], on any GPU.
pub(in crate::gpu) fn forward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    out: View<'_, R>,
    lse: &CubeTensor<R>,
) {
    let per = rows_per_unit(q.tensor, dims);
    let tiles = dims.queries.div_ceil(side(per) as usize);
    let [q_arg, k_arg, v_arg, out_arg, lse_arg] =
        buffers([q.tensor, k.tensor, v.tensor, out.tensor, lse]);
    // SAFETY: tiles are read and written within the counts; places fit 32 bits (`bridge::MOST`).
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            &q.tensor.client,
            cubes(tiles * dims.batch * dims.heads),
            CubeDim::new_2d(SIDE, SIDE),
            per as usize,
            q_arg,
            k_arg,
            v_arg,
            out_arg,
            lse_arg,
            q.place(),
            k.place(),
            v.place(),
            out.place(),
            dims.queries as u32,
            dims.keys as u32,
            dims.heads as u32,
            dims.batch as u32,
            scale as f32,
            dims.d as u32,
            dims.e as u32,
            per,
            elem(q.tensor.dtype),
        );
    }
}

#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    q: &[F],
    k: &[F],
    v: &[F],
    out: &mut [F],
    lse: &mut [f32],
    q_layout: Layout,
    k_layout: Layout,
    v_layout: Layout,
    out_layout: Layout,
    queries: u32,
    keys: u32,
    heads: u32,
    batch: u32,
    scale: f32,
    #[comptime] d: u32,
    #[comptime] e: u32,
    #[comptime] per: u32,
    #[define(F)] _dtype: ElemType,
) {
    let tile = comptime!(side(per));
    let columns = comptime!(e.div_ceil(SIDE));
    let mut p = Shared::<[f32]>::new_slice(comptime!(tile_size(per)));
    let mut stage = Shared::<[f32]>::new_slice(comptime!(stage_size(if d > e { d } else { e })));
    let mut product = Shared::<[Vector<f32, N>]>::new_slice(PRODUCT_STAGE);
    let tiles = queries.div_ceil(tile);
    let place = CUBE_POS as u32;
    if place < tiles * heads * batch {
        let (first, head) = (place % tiles * tile, place / tiles % heads);
        let image = place / tiles / heads;
        let q_span = span(&q_layout, image, head, first, queries);
        let mut s = Array::<Vector<f32, N>>::new(comptime!(per as usize));
        let mut o = filled(comptime!(per * columns), 0.0f32);
        // Each query's maximum so far, and this unit's part of its sum.
        let mut maximum = filled(per, f32::new(LOWEST));
        let mut sum = filled(per, 0.0f32);
        for step in 0..keys.div_ceil(tile) {
            let k_span = span(&k_layout, image, head, step * tile, keys);
            let v_span = span(&v_layout, image, head, step * tile, keys);
            rows_by_rows::<F, N>(q, &q_span, k, &k_span, &mut product, &mut s, d, per);
            #[unroll]
            for i in 0..per {
                let mut largest = f32::new(LOWEST);
                let mut row = s[i as usize];
                #[unroll]
                for j in 0..per {
                    let at = comptime!(j as usize);
                    if k_span.first + UNIT_POS_X * per + j < keys {
                        row.insert(at, row.extract(at) * scale);
                    } else {
                        row.insert(at, f32::new(LOWEST));
                    }
                    largest = max(largest, row.extract(at));
                }
                s[i as usize] = row;
                p[((UNIT_POS_Y * per + i) * SIDE + UNIT_POS_X) as usize] = largest;
            }
            sync_cube();
            #[unroll]
            for i in 0..per {
                let start = ((UNIT_POS_Y * per + i) * SIDE) as usize;
                let mut largest = maximum[i as usize];
                for x in 0..comptime!(SIDE as usize) {
                    largest = max(largest, p[start + x]);
                }
                let factor = (maximum[i as usize] - largest).exp();
                maximum[i as usize] = largest;
                sum[i as usize] *= factor;
                #[unroll]
                for j in 0..columns {
                    o[(i * columns + j) as usize] *= factor;
                }
            }
            sync_cube();
            #[unroll]
            for i in 0..per {
                let weights = (s[i as usize] - Vector::new(maximum[i as usize])).exp();
                sum[i as usize] += vector_sum::<N>(weights);
                s[i as usize] = weights;
            }
            share::<N>(&s, &mut p, per);
            tile_by_rows::<F>(&p, v, &v_span, &mut stage, &mut o, false, e, per);
        }
        #[unroll]
        for i in 0..per {
            p[((UNIT_POS_Y * per + i) * SIDE + UNIT_POS_X) as usize] = sum[i as usize];
        }
        sync_cube();
        #[unroll]
        for i in 0..per {
            let row = UNIT_POS_Y * per + i;
            let mut total = 0.0f32;
            for x in 0..comptime!(SIDE as usize) {
                total += p[(row * SIDE) as usize + x];
            }
            if UNIT_POS_X == 0 && first + row < queries {
                let at = (image * heads + head) * queries + first + row;
                lse[at as usize] = maximum[i as usize] + total.ln();
            }
            sum[i as usize] = 1.0f32 / total;
        }
        let out_span = span(&out_layout, image, head, first, queries);
        write::<F>(&o, &sum, out, &out_span, e, per);
    }
}
