//! Attention that never holds its scores in memory (FlashAttention-2, Dao 2023, arXiv 2307.08691).
//!
//! The forward pass goes through the keys a tile at a time with a running maximum and keeps the
//! logarithm of each query's sum; the backward pass computes the scores again from that. Sums are
//! in float32 whatever the values are.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::buffers;
use super::rows::{cubes, elem, vector_sum};
use super::tile::{
    PRODUCT_STAGE, SIDE, Span, rows_by_rows, side, stage_size, tile_by_rows, tile_size,
};
use super::view::{Layout, View};

/// Below every score; not infinite, since WGSL has no infinities.
const LOWEST: f32 = -1.0e30;

/// The longest rows of a head that units hold in registers.
pub(super) const LARGEST_HEAD: usize = 128;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dims {
    pub batch: usize,
    pub heads: usize,
    /// Queries N.
    pub queries: usize,
    /// Keys M.
    pub keys: usize,
    /// Values of a query and a key.
    pub d: usize,
    /// Values of a value.
    pub e: usize,
}

impl Dims {
    /// Tokens of all heads, as `lse` counts them: `[B, heads, N]`.
    pub(super) fn rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }
}

/// Rows a unit holds: large tiles where shared memory has room for them.
fn rows_per_unit<R: CubeRuntime>(tensor: &CubeTensor<R>, dims: Dims) -> u32 {
    let room = tensor.client.properties().hardware.max_shared_memory_size;
    let rows = stage_size(dims.d.max(dims.e) as u32);
    let needed = |per| 4 * (tile_size(per) + PRODUCT_STAGE * per as usize + rows);
    if dims.queries > side(2) as usize && needed(4) <= room { 4 } else { 2 }
}

/// `out = softmax(q kᵀ·scale) v`; `lse` `[B, heads, N]`, float32, gets `ln Σ exp(q kᵀ·scale)`.
pub(super) fn forward<R: CubeRuntime>(
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
    // SAFETY: tiles are read and written within the counts.
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

/// The gradients of `q`, `k` and `v` from that of `out`.
pub(super) fn backward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    [out, gradient]: [View<'_, R>; 2],
    lse: &CubeTensor<R>,
    [dq, dk, dv]: [View<'_, R>; 3],
) {
    let client = q.tensor.client.clone();
    let stats = statistics(dims, out, gradient, lse);
    let per = rows_per_unit(q.tensor, dims);
    let cube = CubeDim::new_2d(SIDE, SIDE);
    let heads = dims.batch * dims.heads;
    // SAFETY: tiles are read and written within the counts.
    unsafe {
        let [q_arg, k_arg, v_arg, gradient_arg, stats_arg, dk_arg, dv_arg] =
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, &stats, dk.tensor, dv.tensor]);
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
            buffers([q.tensor, k.tensor, v.tensor, gradient.tensor, &stats, dq.tensor]);
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
pub(super) fn statistics<R: CubeRuntime>(
    dims: Dims,
    out: View<'_, R>,
    gradient: View<'_, R>,
    lse: &CubeTensor<R>,
) -> CubeTensor<R> {
    let (client, device) = (lse.client.clone(), lse.device.clone());
    let handle = client.empty(2 * dims.rows() * size_of::<f32>());
    let shape = [dims.batch, dims.heads, dims.queries, 2].into();
    let stats = CubeTensor::new_contiguous(client.clone(), device, shape, handle, DType::F32);
    const UNITS: u32 = 64;
    let [out_arg, gradient_arg, lse, stats_arg] =
        buffers([out.tensor, gradient.tensor, lse, &stats]);
    // SAFETY: units beyond the last row do nothing.
    unsafe {
        statistics_kernel::launch_unchecked::<R>(
            &client,
            cubes(dims.rows().div_ceil(UNITS as usize)),
            CubeDim::new_1d(UNITS),
            out_arg,
            gradient_arg,
            lse,
            stats_arg,
            out.place(),
            gradient.place(),
            dims.rows() as u32,
            dims.heads as u32,
            dims.queries as u32,
            dims.e as u32,
            elem(out.tensor.dtype),
        );
    }
    stats
}

#[cube(launch_unchecked)]
fn statistics_kernel<F: Float>(
    out: &[F],
    gradient: &[F],
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
        let mut sum = 0.0f32;
        for i in 0..comptime!(e as usize) {
            sum += f32::cast_from(out[a + i]) * f32::cast_from(gradient[b + i]);
        }
        let at = ((image * heads + head) * queries + token) as usize;
        stats[2 * at] = lse[at];
        stats[2 * at + 1] = sum;
    }
}

/// The rows of a head.
#[cube]
fn span(layout: &Layout, image: u32, head: u32, first: u32, count: u32) -> Span {
    Span { start: layout.start(image, head), stride: layout.row, first, count }
}

/// Writes the unit's part of a tile of rows, each times its factor.
#[cube]
fn write<F: Float>(
    values: &Array<f32>,
    factors: &Array<f32>,
    to: &mut [F],
    span: &Span,
    #[comptime] d: u32,
    #[comptime] per: u32,
) {
    let columns = comptime!(d.div_ceil(SIDE));
    #[unroll]
    for i in 0..per {
        let row = span.first + UNIT_POS_Y * per + i;
        if row < span.count {
            #[unroll]
            for j in 0..columns {
                let column = UNIT_POS_X + j * SIDE;
                if column < d {
                    let value = values[(i * columns + j) as usize] * factors[i as usize];
                    to[span.start + (row * span.stride + column) as usize] = F::cast_from(value);
                }
            }
        }
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
        let mut o = Array::<f32>::new(comptime!((per * columns) as usize));
        // Each query's maximum so far, and this unit's part of its sum.
        let mut maximum = Array::<f32>::new(comptime!(per as usize));
        let mut sum = Array::<f32>::new(comptime!(per as usize));
        #[unroll]
        for i in 0..per {
            maximum[i as usize] = f32::new(LOWEST);
            sum[i as usize] = 0.0f32;
            #[unroll]
            for j in 0..columns {
                o[(i * columns + j) as usize] = 0.0f32;
            }
        }
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

/// Puts a unit's part of a tile where all units find it.
#[cube]
fn share<N: Size>(values: &Array<Vector<f32, N>>, p: &mut Shared<[f32]>, #[comptime] per: u32) {
    #[unroll]
    for i in 0..per {
        let start = (UNIT_POS_Y * per + i) * comptime!(side(per) + 1) + UNIT_POS_X * per;
        #[unroll]
        for j in 0..per {
            p[(start + j) as usize] = values[i as usize].extract(comptime!(j as usize));
        }
    }
    sync_cube();
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
        let mut dk_sum = Array::<f32>::new(comptime!((per * d.div_ceil(SIDE)) as usize));
        let mut dv_sum = Array::<f32>::new(comptime!((per * e.div_ceil(SIDE)) as usize));
        let mut ones = Array::<f32>::new(comptime!(per as usize));
        #[unroll]
        for i in 0..per {
            ones[i as usize] = 1.0f32;
        }
        #[unroll]
        for i in 0..comptime!(per * d.div_ceil(SIDE)) {
            dk_sum[i as usize] = 0.0f32;
        }
        #[unroll]
        for i in 0..comptime!(per * e.div_ceil(SIDE)) {
            dv_sum[i as usize] = 0.0f32;
        }
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
        let mut dq_sum = Array::<f32>::new(comptime!((per * d.div_ceil(SIDE)) as usize));
        let mut ones = Array::<f32>::new(comptime!(per as usize));
        #[unroll]
        for i in 0..per {
            ones[i as usize] = 1.0f32;
        }
        #[unroll]
        for i in 0..comptime!(per * d.div_ceil(SIDE)) {
            dq_sum[i as usize] = 0.0f32;
        }
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
