//! Writing into memory that a tensor already has.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::rows::{UNITS, cubes, elem};
use crate::gradient::of_one_type;

/// Inputs: what is written, and the tensor that it is written into.
#[derive(Clone, Copy, Debug)]
struct Overwrite;

impl Kernel for Overwrite {
    const NAME: &'static str = "overwrite";

    fn outputs(&self, _: &[TensorSpec]) -> Vec<TensorSpec> {
        Vec::new()
    }

    fn launch<R: CubeRuntime>(&self, mut inputs: Vec<CubeTensor<R>>, _: Vec<CubeTensor<R>>) {
        let to = inputs.remove(1);
        let from = into_contiguous(inputs.remove(0));
        let count = to.meta.shape().num_elements();
        let [from_arg, to_arg] = buffers([&from, &to]);
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            copy::launch_unchecked::<R>(
                &to.client,
                cubes(count.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                from_arg,
                to_arg,
                count as u32,
                elem(to.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn copy<F: Float>(from: &[F], to: &mut [F], count: u32, #[define(F)] _dtype: ElemType) {
    let at = ABSOLUTE_POS as u32;
    if at < count {
        to[at as usize] = from[at as usize];
    }
}

/// Whether it was done: not for tensors that are not on one GPU, of one type and shape. `to` is
/// contiguous.
pub(crate) fn overwrite(from: DispatchTensor, to: DispatchTensor) -> bool {
    let inputs = vec![from, to];
    let fits = of_one_type(&inputs) && inputs[0].shape() == inputs[1].shape();
    fits && run::<_, 0>(Overwrite, inputs).is_some()
}
