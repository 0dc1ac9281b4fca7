//! The numbers of a guard as one, so that kernels with millions of units read no more than that.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::adamw::{EXPONENT, are_finite};
use super::bridge::{Kernel, TensorSpec, buffers, run};
use crate::StepGuard;

/// Input: the guard's numbers. Output: `[1]`.
#[derive(Clone, Copy, Debug)]
struct Folded;

impl Kernel for Folded {
    const NAME: &'static str = "guard";

    fn outputs(&self, _: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![TensorSpec::new([1], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, mut inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let numbers = into_contiguous(inputs.remove(0));
        let count = numbers.meta.shape().num_elements() as u32;
        let [from, to] = buffers([&numbers, &outputs[0]]);
        // SAFETY: one unit reads `count` numbers and writes one.
        unsafe {
            fold::launch_unchecked::<R>(
                &numbers.client,
                CubeCount::new_single(),
                CubeDim::new_single(),
                from,
                to,
                count,
            );
        }
    }
}

/// A guard of one number that lets the same steps happen: the sum of squares, or infinity.
pub(crate) fn folded(guard: &StepGuard) -> StepGuard {
    let numbers = run(Folded, vec![guard.numbers.clone().into_dispatch()]);
    match numbers {
        Some([one]) => StepGuard { numbers: Tensor::from_dispatch(one), ..*guard },
        None => guard.clone(),
    }
}

#[cube(launch_unchecked)]
fn fold(numbers: &[u32], to: &mut [u32], count: u32) {
    if UNIT_POS == 0 {
        let mut first = numbers[0];
        let finite = are_finite(numbers, count);
        if !finite {
            first = EXPONENT;
        }
        to[0] = first;
    }
}
