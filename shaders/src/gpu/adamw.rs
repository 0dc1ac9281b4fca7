//! AdamW's update of a parameter in one pass over memory and in place: clipping, the check that all is finite, the step
//! and an EMA.

use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::averages;
use super::bridge::{self, Kernel, TensorSpec, buffers, run_all};
use super::rows::{Rows, UNITS, cubes, elem, vector_size};
use crate::gradient::of_one_type;
use crate::{AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard};

/// The exponent of a float32, all ones where it is infinite or NaN.
pub(super) const EXPONENT: u32 = 0x7F80_0000;

/// Inputs: parameter, first and second moment and an EMA, if it has one, which are written; gradient, guard.
#[derive(Clone, Copy, Debug)]
struct Update {
    step: AdamWStep,
    /// What gradients are scaled down to; `None` for no clipping.
    max_norm: Option<f32>,
    /// By how much the EMA moves.
    share: Option<f64>,
}

impl Kernel for Update {
    const NAME: &'static str = "adamw";

    fn overwrites(&self) -> usize {
        3 + usize::from(self.share.is_some())
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        inputs[..self.overwrites()].to_vec()
    }

    fn launch<R: CubeRuntime>(&self, mut inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let guard = into_contiguous(inputs.remove(1));
        let gradient = Rows::of(inputs.remove(0));
        let written: Vec<Rows<R>> = outputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&written.iter().chain([&gradient]).collect::<Vec<_>>());
        let count = gradient.d / n;
        let parameter = &written[0].tensor;
        // An absent EMA is never touched; the parameter stands in its place.
        let average = written.get(3).map_or(parameter, |rows| &rows.tensor);
        let [p, g, first, second, average, numbers] = buffers([
            parameter,
            &gradient.tensor,
            &written[1].tensor,
            &written[2].tensor,
            average,
            &guard,
        ]);
        let [beta1, beta2] = self.step.betas;
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            adamw::launch_unchecked::<R>(
                &parameter.client,
                cubes(count.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                p,
                g,
                first,
                second,
                average,
                numbers,
                count as u32,
                guard.meta.shape().num_elements() as u32,
                self.max_norm.unwrap_or(0.0),
                beta1 as f32,
                beta2 as f32,
                (1.0 - beta1) as f32,
                (1.0 - beta2) as f32,
                self.step.decay as f32,
                self.step.rate as f32,
                self.step.root as f32,
                self.step.eps as f32,
                self.share.unwrap_or(0.0) as f32,
                self.max_norm.is_some(),
                self.share.is_some(),
                elem(parameter.dtype),
            );
        }
    }
}

/// Whether tensors are such that a kernel updates them in place: of one type of floats on the GPU of a guard's numbers.
pub(crate) fn takes<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor<1>>,
    guard: &StepGuard,
) -> bool {
    let tensors: Vec<_> = tensors.into_iter().map(|x| x.clone().into_dispatch()).collect();
    let numbers = guard.numbers.clone().into_dispatch();
    let filled = tensors.iter().chain([&numbers]).all(|x| x.shape().num_elements() > 0);
    filled
        && of_one_type(&tensors)
        && numbers.dtype() == DType::F32
        && bridge::takes(tensors.into_iter().chain([numbers]).collect())
}

/// A parameter, its moments and its EMAs after a step, in the memory of those before where it is not shared.
///
/// # Panics
///
/// If [`takes`] says no.
pub(crate) fn step(update: AdamWUpdate, guard: &StepGuard) -> AdamWUpdated {
    let AdamWUpdate { parameter, gradient, moments: [first, second], averages, step } = update;
    let mut averages = averages.into_iter();
    let (average, share) = averages.next().unzip();
    // Beyond float32 there is nothing to clip.
    let max_norm = guard.max_norm.map(|max| max as f32).filter(|max| max.is_finite());
    let written = [parameter, first, second].into_iter().chain(average);
    let inputs = written.chain([gradient, guard.numbers.clone()]).map(Tensor::into_dispatch);
    let after = run_all(Update { step, max_norm, share }, inputs.collect());
    let after = after.expect("`takes` said yes").into_iter().map(Tensor::from_dispatch);
    let after: Vec<Tensor<1>> = after.collect();
    let mut after = after.into_iter();
    let mut next = || after.next().expect("there is one of each that is written");
    let (parameter, moments) = (next(), [next(), next()]);
    let mut moved: Vec<Tensor<1>> = after.collect();
    for (average, share) in averages {
        moved.push(averages::lerp(average, parameter.clone(), share, guard));
    }
    AdamWUpdated { parameter, moments, averages: moved }
}

/// Whether all numbers are finite, of which the bits are given: compilers of shaders may take it for granted that no
/// float is infinite or NaN.
#[cube]
pub(super) fn are_finite(numbers: &[u32], count: u32) -> bool {
    let mut largest = 0u32;
    for i in 0..count {
        largest = max(largest, numbers[i as usize] & EXPONENT);
    }
    largest < EXPONENT
}

/// The factor of the gradients, of which the sum of squares comes first.
#[cube]
fn factor(numbers: &[u32], max_norm: f32, #[comptime] clips: bool) -> f32 {
    let mut scale = 1.0f32;
    if clips {
        let bits = numbers[0];
        let squares = f32::reinterpret(bits);
        scale = min(max_norm / (squares.sqrt() + 1e-6f32), 1.0f32);
    }
    scale
}

#[cube(launch_unchecked)]
fn adamw<F: Float, N: Size>(
    p: &mut [Vector<F, N>],
    g: &[Vector<F, N>],
    first: &mut [Vector<F, N>],
    second: &mut [Vector<F, N>],
    average: &mut [Vector<F, N>],
    numbers: &[u32],
    count: u32,
    count_of_numbers: u32,
    max_norm: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    decay: f32,
    rate: f32,
    root: f32,
    eps: f32,
    share: f32,
    #[comptime] clips: bool,
    #[comptime] has_average: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let finite = are_finite(numbers, count_of_numbers);
        if finite {
            let scale = factor(numbers, max_norm, clips);
            let g = Vector::<f32, N>::cast_from(g[i]) * Vector::new(scale);
            let m =
                Vector::<f32, N>::cast_from(first[i]) * Vector::new(beta1) + g * Vector::new(rest1);
            let v = Vector::<f32, N>::cast_from(second[i]) * Vector::new(beta2)
                + g * g * Vector::new(rest2);
            let after = Vector::<f32, N>::cast_from(p[i]) * Vector::new(decay)
                - m / (v.sqrt() * Vector::new(root) + Vector::new(eps)) * Vector::new(rate);
            if has_average {
                let before = Vector::<f32, N>::cast_from(average[i]);
                average[i] = Vector::cast_from(before + (after - before) * Vector::new(share));
            }
            p[i] = Vector::cast_from(after);
            first[i] = Vector::cast_from(m);
            second[i] = Vector::cast_from(v);
        }
    }
}
