//! AdamW's update of a parameter, one pass over memory instead of a dozen.

use burn::backend::DispatchTensor;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::rows::{Rows, UNITS, cubes, elem, vector_size};
use crate::AdamWStep;
use crate::gradient::of_one_type;

impl Kernel for AdamWStep {
    const NAME: &'static str = "adamw";

    /// Inputs: parameter, gradient, first and second moment; outputs: all but the gradient.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone(); 3]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&rows.iter().collect::<Vec<_>>());
        let count = rows[0].count * rows[0].d / n;
        let [p, g, first, second, to_p, to_first, to_second] = buffers([
            &rows[0].tensor,
            &rows[1].tensor,
            &rows[2].tensor,
            &rows[3].tensor,
            &outputs[0],
            &outputs[1],
            &outputs[2],
        ]);
        // SAFETY: units beyond the last value do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            adamw::launch_unchecked::<R>(
                &rows[0].tensor.client,
                cubes(count.div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                p,
                g,
                first,
                second,
                to_p,
                to_first,
                to_second,
                count as u32,
                self.scale as f32,
                self.betas[0] as f32,
                self.betas[1] as f32,
                self.decay as f32,
                self.rate as f32,
                self.root as f32,
                self.eps as f32,
                elem(rows[0].tensor.dtype),
            );
        }
    }
}

/// The parameter and its moments after a step.
pub(crate) fn step(step: AdamWStep, inputs: Vec<DispatchTensor>) -> Option<[DispatchTensor; 3]> {
    of_one_type(&inputs).then(|| run(step, inputs))?
}

#[cube(launch_unchecked)]
fn adamw<F: Float, N: Size>(
    p: &[Vector<F, N>],
    g: &[Vector<F, N>],
    first: &[Vector<F, N>],
    second: &[Vector<F, N>],
    to_p: &mut [Vector<F, N>],
    to_first: &mut [Vector<F, N>],
    to_second: &mut [Vector<F, N>],
    count: u32,
    scale: f32,
    beta1: f32,
    beta2: f32,
    decay: f32,
    rate: f32,
    root: f32,
    eps: f32,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let g = Vector::<f32, N>::cast_from(g[i]) * Vector::new(scale);
        let m = Vector::<f32, N>::cast_from(first[i]) * Vector::new(beta1)
            + g * Vector::new(1.0f32 - beta1);
        let v = Vector::<f32, N>::cast_from(second[i]) * Vector::new(beta2)
            + g * g * Vector::new(1.0f32 - beta2);
        let p = Vector::<f32, N>::cast_from(p[i]) * Vector::new(decay)
            - m / (v.sqrt() * Vector::new(root) + Vector::new(eps)) * Vector::new(rate);
        to_p[i] = Vector::cast_from(p);
        to_first[i] = Vector::cast_from(m);
        to_second[i] = Vector::cast_from(v);
    }
}
