//! The backward pass: queries and keys each in a kernel of their own, since WGSL cannot add to
//! float32 from several cubes.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::bridge::{alloc, buffers};
use super::super::rows::{cubes, elem, vector_sum};
use super::super::tile::{
    PRODUCT_STAGE, SIDE, Span, rows_by_rows, side, stage_size, tile_by_rows, tile_size,
};
use super::super::view::{Layout, View};
use super::{Dims, filled, rows_per_unit, share, span, write};

/// The gradients of `q`, `k` and `v`, from that of the result and the [`statistics`].
pub(in crate::gpu) fn backward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    gradient: View<'_, R>,
    stats: &CubeTensor<R>,
    [dq, dk, dv]: [View<'_, R>; 3],
) {
    let client = q.tensor.client.clone();
    let per = rows_per_unit(q.tensor, dims);
    let cube = CubeDim::new_2d(SIDE, SIDE);
    let heads = dims.batch * dims.heads;
    // SAFETY: tiles are read and written within the counts; places fit 32 bits (`bridge::MOST`).
    unsafe {
        let [q_arg, k_arg, v_arg, gradient_arg, stats_arg, dk_arg, dv_arg] =
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, stats, dk.tensor, dv.tensor]);
        backward_keys::launch_unchecked::<R>(
            &client,
            cubes(dims.keys.div_ceil(side(per) as usize) * heads),
            cube,
            per as usize,
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
        let [q_arg, k_arg, v_arg, gradient_arg, stats_arg, dq_arg] =
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, stats, dq.tensor]);
        backward_queries::launch_unchecked::<R>(
            &client,
            cubes(dims.queries.div_ceil(side(per) as usize) * heads),
            cube,
            per as usize,
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

/// What the backward pass knows of each query, `[B, heads, N, 2]`, float32: the logarithm of its
/// sum, and `Σ out·gradient`, which the softmax's derivative subtracts.
pub(in crate::gpu) fn statistics<R: CubeRuntime>(
    dims: Dims,
    out: View<'_, R>,
    gradient: View<'_, R>,
    lse: &CubeTensor<R>,
) -> CubeTensor<R> {
    let stats = alloc(lse, [dims.batch, dims.heads, dims.queries, 2], DType::F32);
    const UNITS: u32 = 64;
    let most = out.tensor.client.properties().hardware.max_vector_size;
    let longest = most.min(16 / out.tensor.dtype.size());
    let fits = |n: &usize| {
        *n <= longest && dims.e.is_multiple_of(*n) && out.allows(*n) && gradient.allows(*n)
    };
    let n = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
    let [out_arg, gradient_arg, lse, stats_arg] =
        buffers([out.tensor, gradient.tensor, lse, &stats]);
    // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
    unsafe {
        statistics_kernel::launch_unchecked::<R>(
            &stats.client,
            cubes(dims.rows().div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            n,
            out_arg,
            gradient_arg,
            lse,
            stats_arg,
            out.place_in_vectors(n),
            gradient.place_in_vectors(n),
            dims.rows() as u32,
            dims.heads as u32,
            dims.queries as u32,
            (dims.e / n) as u32,
            elem(out.tensor.dtype),
        );
    }
    stats
}

#[cube(launch_unchecked)]
fn statistics_kernel<F: Float, N: Size>(
    out: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    lse: &[f32],
    stats: &mut [f32],
    out_layout: Layout,
    gradient_layout: Layout,
    rows: u32,
    heads: u32,
    queries: u32,
    #[comptime] e: u32,
    #[define(F)] _dtype: ElemType,
) {
    let row = ABSOLUTE_POS as u32;
    if row < rows {
        // Neighbouring units take neighbouring heads, which lie together.
        let (head, token) = (row % heads, row / heads % queries);
        let image = row / heads / queries;
        let a = out_layout.start(image, head) + (token * out_layout.row) as usize;
        let b = gradient_layout.start(image, head) + (token * gradient_layout.row) as usize;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for i in 0..comptime!(e as usize) {
            sum += Vector::<f32, N>::cast_from(out[a + i]) * Vector::cast_from(gradient[b + i]);
        }
        let at = ((image * heads + head) * queries + token) as usize;
        stats[2 * at] = lse[at];
        stats[2 * at + 1] = vector_sum::<N>(sum);
    }
}

/// Of a tile of queries and keys, the weights `P = exp(q kᵀ·scale − lse)` and the gradients of the
/// scores `P∘(dO vᵀ − delta)·scale`.
#[cube]
fn weights_and_gradients<F: Float, N: Size>(
    q: &[F],
    q_span: &Span,
    k: &[F],
    k_span: &Span,
    v: &[F],
    v_span: &Span,
    gradient: &[F],
    gradient_span: &Span,
    stats: &[f32],
    row_start: u32,
    scale: f32,
    stage: &mut Shared<[Vector<f32, N>]>,
    weights: &mut Array<Vector<f32, N>>,
    gradients: &mut Array<Vector<f32, N>>,
    #[comptime] d: u32,
    #[comptime] e: u32,
    #[comptime] per: u32,
) {
    rows_by_rows::<F, N>(q, q_span, k, k_span, stage, weights, d, per);
    rows_by_rows::<F, N>(gradient, gradient_span, v, v_span, stage, gradients, e, per);
    #[unroll]
    for i in 0..per {
        let row = q_span.first + UNIT_POS_Y * per + i;
        let inside = row < q_span.count;
        let at = (row_start + min(row, q_span.count - 1)) as usize;
        let (lse, delta) = (stats[2 * at], stats[2 * at + 1]);
        let mut p = (weights[i as usize] * Vector::new(scale) - Vector::new(lse)).exp();
        let mut ds = p * (gradients[i as usize] - Vector::new(delta)) * Vector::new(scale);
        #[unroll]
        for j in 0..per {
            if !inside || k_span.first + UNIT_POS_X * per + j >= k_span.count {
                p.insert(comptime!(j as usize), 0.0f32);
                ds.insert(comptime!(j as usize), 0.0f32);
            }
        }
        weights[i as usize] = p;
        gradients[i as usize] = ds;
    }
}

/// `dv = Pᵀ dO` and `dk = dSᵀ q` of a tile of keys.
#[cube(launch_unchecked)]
fn backward_keys<F: Float, N: Size>(
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
    let mut p = Shared::<[f32]>::new_slice(comptime!(tile_size(per)));
    let mut stage = Shared::<[f32]>::new_slice(comptime!(stage_size(if d > e { d } else { e })));
    let mut product = Shared::<[Vector<f32, N>]>::new_slice(PRODUCT_STAGE);
    let tiles = keys.div_ceil(tile);
    let place = CUBE_POS as u32;
    if place < tiles * heads * batch {
        let (first, head) = (place % tiles * tile, place / tiles % heads);
        let image = place / tiles / heads;
        let k_span = span(&k_layout, image, head, first, keys);
        let v_span = span(&v_layout, image, head, first, keys);
        let mut s = Array::<Vector<f32, N>>::new(comptime!(per as usize));
        let mut ds = Array::<Vector<f32, N>>::new(comptime!(per as usize));
        let mut dk_sum = filled(comptime!(per * d.div_ceil(SIDE)), 0.0f32);
        let mut dv_sum = filled(comptime!(per * e.div_ceil(SIDE)), 0.0f32);
        let ones = filled(per, 1.0f32);
        for step in 0..queries.div_ceil(tile) {
            let q_span = span(&q_layout, image, head, step * tile, queries);
            let o_span = span(&gradient_layout, image, head, step * tile, queries);
            weights_and_gradients::<F, N>(
                q,
                &q_span,
                k,
                &k_span,
                v,
                &v_span,
                gradient,
                &o_span,
                stats,
                (image * heads + head) * queries,
                scale,
                &mut product,
                &mut s,
                &mut ds,
                d,
                e,
                per,
            );
            share::<N>(&s, &mut p, per);
            tile_by_rows::<F>(&p, gradient, &o_span, &mut stage, &mut dv_sum, true, e, per);
            share::<N>(&ds, &mut p, per);
            tile_by_rows::<F>(&p, q, &q_span, &mut stage, &mut dk_sum, true, d, per);
        }
        write::<F>(&dk_sum, &ones, dk, &span(&dk_layout, image, head, first, keys), d, per);
        write::<F>(&dv_sum, &ones, dv, &span(&dv_layout, image, head, first, keys), e, per);
    }
}

/// `dq = dS k` of a tile of queries.
#[cube(launch_unchecked)]
fn backward_queries<F: Float, N: Size>(
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
    let mut p = Shared::<[f32]>::new_slice(comptime!(tile_size(per)));
    let mut stage = Shared::<[f32]>::new_slice(comptime!(stage_size(if d > e { d } else { e })));
    let mut product = Shared::<[Vector<f32, N>]>::new_slice(PRODUCT_STAGE);
    let tiles = queries.div_ceil(tile);
    let place = CUBE_POS as u32;
    if place < tiles * heads * batch {
        let (first, head) = (place % tiles * tile, place / tiles % heads);
        let image = place / tiles / heads;
        let q_span = span(&q_layout, image, head, first, queries);
        let o_span = span(&gradient_layout, image, head, first, queries);
        let mut s = Array::<Vector<f32, N>>::new(comptime!(per as usize));
        let mut ds = Array::<Vector<f32, N>>::new(comptime!(per as usize));
        let mut dq_sum = filled(comptime!(per * d.div_ceil(SIDE)), 0.0f32);
        let ones = filled(per, 1.0f32);
        for step in 0..keys.div_ceil(tile) {
            let k_span = span(&k_layout, image, head, step * tile, keys);
            let v_span = span(&v_layout, image, head, step * tile, keys);
            weights_and_gradients::<F, N>(
                q,
                &q_span,
                k,
                &k_span,
                v,
                &v_span,
                gradient,
                &o_span,
                stats,
                (image * heads + head) * queries,
                scale,
                &mut product,
                &mut s,
                &mut ds,
                d,
                e,
                per,
            );
            share::<N>(&ds, &mut p, per);
            tile_by_rows::<F>(&p, k, &k_span, &mut stage, &mut dq_sum, false, d, per);
        }
        write::<F>(&dq_sum, &ones, dq, &span(&dq_layout, image, head, first, queries), d, per);
    }
}
