//! An EMA's way to its value, in place.

use burn::tensor::Tensor;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::adamw::are_finite;
use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::rows::{Rows, UNITS, cubes, elem, vector_size};
use crate::StepGuard;

/// Inputs: the average, which is written, the value, the guard's numbers.
#[derive(Clone, Copy, Debug)]
struct Lerp {
    share: f64,
}

impl Kernel for Lerp {
    const NAME: &'static str = "lerp";

    fn overwrites(&self) -> usize {
        1
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(
        &self,
        mut inputs: Vec<CubeTensor<R>>,
        mut outputs: Vec<CubeTensor<R>>,
    ) {
        let guard = into_contiguous(inputs.remove(1));
        let [average, value] = [outputs.remove(0), inputs.remove(0)].map(Rows::of);
        let n = vector_size(&[&average, &value]);
        let count = value.d / n;
        let [average_arg, value_arg, numbers] = buffers([&average.tensor, &value.tensor, &guard]);
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            lerp_in_place::launch_unchecked::<R>(
                &average.tensor.client,
                cubes(count.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                average_arg,
                value_arg,
                numbers,
                count as u32,
                guard.meta.shape().num_elements() as u32,
                self.share as f32,
                elem(average.tensor.dtype),
            );
        }
    }
}

/// `average + share·(value − average)`, in the memory of the average where it is not shared.
///
/// # Panics
///
/// If [`takes`](super::adamw::takes) says no.
pub(crate) fn lerp(
    average: Tensor<1>,
    value: Tensor<1>,
    share: f64,
    guard: &StepGuard,
) -> Tensor<1> {
    let inputs = [average, value, guard.numbers.clone()].map(Tensor::into_dispatch);
    let [average] = run(Lerp { share }, inputs.into()).expect("`takes` said yes");
    Tensor::from_dispatch(average)
}

#[cube(launch_unchecked)]
fn lerp_in_place<F: Float, N: Size>(
    average: &mut [Vector<F, N>],
    value: &[Vector<F, N>],
    numbers: &[u32],
    count: u32,
    count_of_numbers: u32,
    share: f32,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let finite = are_finite(numbers, count_of_numbers);
        if finite {
            let before = Vector::<f32, N>::cast_from(average[i]);
            let value = Vector::<f32, N>::cast_from(value[i]);
            average[i] = Vector::cast_from(before + (value - before) * Vector::new(share));
        }
    }
}
