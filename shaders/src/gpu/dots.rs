//! Linear layers for GPUs that are programs on the processor, with the weight as it lies.
//!
//! As in [`patches`](super::patches), reading is what costs, and nothing is shared. Both factors lie along the sum:
//! a unit reads a vector of each of its rows and of each of its results' weights, and multiplies every row with every
//! weight. With vectors of four, 16 of `x` and 16 of the weight are enough for 1,024 multiplications, and each of 256
//! sums is touched once for four of them. Sums are held in vectors, too, since SwiftShader's optimizer makes registers
//! of an array of at most 100 members.

use burn::backend::DispatchTensor;
use burn::tensor::Shape;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, is_counted, run};
use super::patches::{UNITS, lanes, rows_of};
use super::rows::{Rows, cubes, elem};

/// The most rows of a unit. Fewer where there are not so many, as for modulations: powers of two, each of which is a
/// kernel of its own.
const TALL: usize = 16;
/// Results of a unit in each row.
const WIDE: u32 = 16;
/// Of which so many are a vector.
const GROUP: u32 = 4;

/// Inputs: `x` `[…, in]`, weight `[out, in]` and, where there is one, a bias `[out]`.
#[derive(Clone, Copy, Debug)]
struct Product;

/// `x Wᵀ + b`; `None` where the shapes do not fit, and where there are more values than 32 bits count.
pub(super) fn product(
    x: &DispatchTensor,
    weight: &DispatchTensor,
    bias: Option<&DispatchTensor>,
) -> Option<DispatchTensor> {
    let ((rows, k), (n, depth)) = (rows_of(x), rows_of(weight));
    let fits = k == depth
        && bias.is_none_or(|bias| bias.shape() == Shape::from([n]))
        && [rows * n, rows * k, n * k].into_iter().all(is_counted);
    let inputs = [x, weight].into_iter().chain(bias).cloned().collect();
    let [result] = fits.then(|| run(Product, inputs))??;
    Some(result)
}

impl Kernel for Product {
    const NAME: &'static str = "linear layer";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let mut form = inputs[0].clone();
        let last = form.shape.num_dims() - 1;
        form.shape[last] = inputs[1].shape[0];
        vec![form]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let (x, weight, bias) = (&inputs[0], &inputs[1], inputs.get(2));
        let (rows, columns) = (x.count, weight.count);
        // Not two: each width is a kernel more to compile.
        let width = if x.allows(4) && weight.allows(4) { 4 } else { 1 };
        let tall = rows.next_power_of_two().min(TALL) as u32;
        let lanes = lanes(columns.div_ceil(WIDE as usize));
        let blocks = columns.div_ceil((lanes * WIDE) as usize);
        let groups = rows.div_ceil((tall * (UNITS / lanes)) as usize);
        // An absent bias is never read; the weight stands in its place.
        let [x_arg, weight_arg, bias_arg, to_arg] =
            buffers([&x.tensor, &weight.tensor, &bias.unwrap_or(weight).tensor, &outputs[0]]);
        // SAFETY: beyond the last row and the last column, the last is read and written again; places fit 32 bits
        // (`bridge::MOST`).
        unsafe {
            dots::launch_unchecked::<R>(
                &x.tensor.client,
                cubes(blocks * groups),
                CubeDim::new_1d(UNITS),
                width,
                GROUP as usize,
                x_arg,
                weight_arg,
                bias_arg,
                to_arg,
                rows as u32,
                (x.d / width) as u32,
                columns as u32,
                (x.stride / width) as u32,
                (weight.stride / width) as u32,
                lanes,
                blocks as u32,
                tall,
                bias.is_some(),
                elem(x.tensor.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn dots<F: Float, N: Size, G: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[F],
    to: &mut [F],
    rows: u32,
    length: u32,
    columns: u32,
    x_stride: u32,
    weight_stride: u32,
    lanes: u32,
    blocks: u32,
    #[comptime] tall: u32,
    #[comptime] has_bias: bool,
    #[define(F)] _dtype: ElemType,
) {
    let place = CUBE_POS as u32;
    let left = (place % blocks * lanes + UNIT_POS % lanes) * WIDE;
    let top = (place / blocks * (UNITS / lanes) + UNIT_POS / lanes) * tall;
    if left < columns && top < rows {
        let groups = comptime!(WIDE / GROUP);
        let mut sums = Array::<Vector<f32, G>>::new(comptime!((tall * groups) as usize));
        // Where each row and each column's weight begins.
        let mut x_at = Array::<u32>::new(comptime!(tall as usize));
        let mut weight_at = Array::<u32>::new(comptime!(WIDE as usize));
        #[unroll]
        for i in 0..tall {
            x_at[i as usize] = min(top + i, rows - 1) * x_stride;
        }
        #[unroll]
        for j in 0..groups {
            let mut offsets = Vector::<f32, G>::new(0.0f32);
            #[unroll]
            for o in 0..GROUP {
                let column = min(left + j * GROUP + o, columns - 1);
                weight_at[(j * GROUP + o) as usize] = column * weight_stride;
                if has_bias {
                    offsets.insert(comptime!(o as usize), f32::cast_from(bias[column as usize]));
                }
            }
            #[unroll]
            for i in 0..tall {
                sums[(i * groups + j) as usize] = offsets;
            }
        }
        for c in 0..length {
            let mut values = Array::<Vector<f32, N>>::new(comptime!(tall as usize));
            #[unroll]
            for i in 0..tall {
                let value = x[(x_at[i as usize] + c) as usize];
                values[i as usize] = Vector::<f32, N>::cast_from(value);
            }
            #[unroll]
            for j in 0..groups {
                let mut weights = Array::<Vector<f32, N>>::new(comptime!(GROUP as usize));
                #[unroll]
                for o in 0..GROUP {
                    let own = weight[(weight_at[(j * GROUP + o) as usize] + c) as usize];
                    weights[o as usize] = Vector::<f32, N>::cast_from(own);
                }
                #[unroll]
                for i in 0..tall {
                    let value = values[i as usize];
                    let mut products = Vector::<f32, G>::new(0.0f32);
                    #[unroll]
                    for o in 0..GROUP {
                        products.insert(comptime!(o as usize), value.dot(weights[o as usize]));
                    }
                    sums[(i * groups + j) as usize] += products;
                }
            }
        }
        #[unroll]
        for i in 0..tall {
            // What lies beyond the last row or column is the last's once more.
            let start = min(top + i, rows - 1) * columns;
            #[unroll]
            for j in 0..groups {
                let own = sums[(i * groups + j) as usize];
                #[unroll]
                for o in 0..GROUP {
                    let at = start + min(left + j * GROUP + o, columns - 1);
                    to[at as usize] = F::cast_from(own.extract(comptime!(o as usize)));
                }
            }
        }
    }
}
