//! The forward pass on a GPU that is a program on the processor: no barriers, no shared memory.
//!
//! A unit has a few queries to itself and holds them and their results. Every key and every value is read once for all
//! of them: with six queries of 64 values, 32 vectors are read for 768 multiplications and 384 that rescale.

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::bridge::buffers;
use super::super::rows::{ALONE, cubes, elem, vector_sum};
use super::super::view::{Layout, View};
use super::{Dims, LOWEST};

/// Vectors that the queries of a unit have together, and their results. SwiftShader's optimizer makes registers of an
/// array of at most 100 members.
const HELD: usize = 96;
/// The most queries of a unit: with short heads there should still be work for every core.
const QUERIES: usize = 8;

/// As [`super::forward`], without barriers.
pub(in crate::gpu) fn forward<R: CubeRuntime>(
    dims: Dims,
    scale: f64,
    [q, k, v]: [View<'_, R>; 3],
    out: View<'_, R>,
    lse: &CubeTensor<R>,
) {
    let (d, e) = (dims.d, dims.e);
    let four = [d, e].iter().all(|values| values.is_multiple_of(4))
        && [q, k, v, out].iter().all(|view| view.allows(4));
    let n = if four { 4 } else { 1 };
    let per = (HELD / (d.max(e) / n).max(1)).clamp(1, QUERIES);
    let units = dims.queries.div_ceil(per) * dims.batch * dims.heads;
    let [q_arg, k_arg, v_arg, out_arg, lse_arg] =
        buffers([q.tensor, k.tensor, v.tensor, out.tensor, lse]);
    // SAFETY: queries beyond the last are not written, and the last is read for them; units beyond the last do
    // nothing; places fit 32 bits (`bridge::MOST`).
    unsafe {
        forward_alone::launch_unchecked::<R>(
            &q.tensor.client,
            cubes(units.div_ceil(ALONE as usize)),
            CubeDim::new_1d(ALONE),
            n,
            q_arg,
            k_arg,
            v_arg,
            out_arg,
            lse_arg,
            q.place_in_vectors(n),
            k.place_in_vectors(n),
            v.place_in_vectors(n),
            out.place_in_vectors(n),
            units as u32,
            dims.queries as u32,
            dims.keys as u32,
            dims.heads as u32,
            scale as f32,
            (d / n) as u32,
            (e / n) as u32,
            per as u32,
            elem(q.tensor.dtype),
        );
    }
}

#[cube(launch_unchecked)]
fn forward_alone<F: Float, N: Size>(
    q: &[Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    lse: &mut [f32],
    q_layout: Layout,
    k_layout: Layout,
    v_layout: Layout,
    out_layout: Layout,
    units: u32,
    queries: u32,
    keys: u32,
    heads: u32,
    scale: f32,
    #[comptime] d: u32,
    #[comptime] e: u32,
    #[comptime] per: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = ABSOLUTE_POS as u32;
    if unit < units {
        let blocks = queries.div_ceil(per);
        let (first, row) = (unit % blocks * per, unit / blocks);
        let (head, image) = (row % heads, row / heads);
        let q_start = q_layout.start(image, head);
        let k_start = k_layout.start(image, head);
        let v_start = v_layout.start(image, head);
        let out_start = out_layout.start(image, head);
        let mut own = Array::<Vector<f32, N>>::new(comptime!((per * d) as usize));
        let mut results = Array::<Vector<f32, N>>::new(comptime!((per * e) as usize));
        // The largest score of each query so far, and the sum of its weights.
        let mut highest = Array::<f32>::new(comptime!(per as usize));
        let mut totals = Array::<f32>::new(comptime!(per as usize));
        #[unroll]
        for i in 0..per {
            let query = min(first + i, queries - 1);
            let at = q_start + (query * q_layout.row) as usize;
            #[unroll]
            for c in 0..d {
                let value = Vector::<f32, N>::cast_from(q[at + comptime!(c as usize)]);
                own[(i * d + c) as usize] = value * Vector::new(scale);
            }
            #[unroll]
            for c in 0..e {
                results[(i * e + c) as usize] = Vector::new(0.0f32);
            }
            highest[i as usize] = f32::new(LOWEST);
            totals[i as usize] = 0.0f32;
        }
        for key in 0..keys {
            let k_at = k_start + (key * k_layout.row) as usize;
            let mut products = Array::<Vector<f32, N>>::new(comptime!(per as usize));
            #[unroll]
            for i in 0..per {
                products[i as usize] = Vector::new(0.0f32);
            }
            #[unroll]
            for c in 0..d {
                let value = Vector::<f32, N>::cast_from(k[k_at + comptime!(c as usize)]);
                #[unroll]
                for i in 0..per {
                    let query = own[(i * d + c) as usize];
                    products[i as usize] = fma(query, value, products[i as usize]);
                }
            }
            // The weight of the key, and what the results so far are worth beside it. There is no branch for keys that
            // leave the maximum as it is: where lanes are emulated, all that it changes is selected lane by lane.
            let mut weights = Array::<f32>::new(comptime!(per as usize));
            let mut factors = Array::<f32>::new(comptime!(per as usize));
            #[unroll]
            for i in 0..per {
                let score = vector_sum::<N>(products[i as usize]);
                let raised = max(highest[i as usize], score);
                let weight = (score - raised).exp();
                let factor = (highest[i as usize] - raised).exp();
                highest[i as usize] = raised;
                totals[i as usize] = totals[i as usize] * factor + weight;
                weights[i as usize] = weight;
                factors[i as usize] = factor;
            }
            let v_at = v_start + (key * v_layout.row) as usize;
            #[unroll]
            for c in 0..e {
                let value = Vector::<f32, N>::cast_from(v[v_at + comptime!(c as usize)]);
                #[unroll]
                for i in 0..per {
                    let place = (i * e + c) as usize;
                    let weight = Vector::new(weights[i as usize]);
                    let before = results[place] * Vector::new(factors[i as usize]);
                    results[place] = fma(weight, value, before);
                }
            }
        }
        #[unroll]
        for i in 0..per {
            let query = first + i;
            if query < queries {
                let at = out_start + (query * out_layout.row) as usize;
                let total = totals[i as usize];
                let factor = Vector::<f32, N>::new(1.0f32 / total);
                #[unroll]
                for c in 0..e {
                    let value = results[(i * e + c) as usize] * factor;
                    out[at + comptime!(c as usize)] = Vector::cast_from(value);
                }
                lse[(row * queries + query) as usize] = highest[i as usize] + total.ln();
            }
        }
    }
}
