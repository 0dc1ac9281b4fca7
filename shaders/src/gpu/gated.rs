//! `x + gate·y`, where the gate belongs to a group of consecutive rows (the tokens of an image).

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::columns::Columns;
use super::rows::{Rows, UNITS, cubes, elem, vector_size};
use crate::gradient::{Operation, of_one_type};

/// Inputs `x`, `y` (`[…, d]`) and `gate` (`[groups, d]`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedResidual;

/// Inputs `x`?, `y`, `gate`.
#[derive(Clone, Copy, Debug)]
struct Gate {
    residual: bool,
}

impl Kernel for Gate {
    const NAME: &'static str = "gate";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&rows.iter().collect::<Vec<_>>());
        let [x, y, gate] = [0, rows.len() - 2, rows.len() - 1].map(|i| &rows[i]);
        let (count, d) = (x.count, x.d / n);
        let stride = |rows: &Rows<R>| (rows.stride / n) as u32;
        let [x_arg, y_arg, gate_arg, out] =
            buffers([&x.tensor, &y.tensor, &gate.tensor, &outputs[0]]);
        // SAFETY: units beyond the last row do nothing; places fit 32 bits (`bridge::MOST`).
        unsafe {
            gate_kernel::launch_unchecked::<R>(
                &x.tensor.client,
                cubes((count * d).div_ceil(UNITS as usize)),
                CubeDim::new_1d(UNITS),
                n,
                x_arg,
                y_arg,
                gate_arg,
                out,
                count as u32,
                d as u32,
                (count / gate.count) as u32,
                stride(x),
                stride(y),
                stride(gate),
                self.residual,
                elem(x.tensor.dtype),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn gate_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    gate: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    count: u32,
    d: u32,
    group: u32,
    x_stride: u32,
    y_stride: u32,
    gate_stride: u32,
    #[comptime] residual: bool,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < count * d {
        let (row, column) = (at / d, at % d);
        let gate = Vector::<f32, N>::cast_from(gate[(row / group * gate_stride + column) as usize]);
        let mut v = gate * Vector::cast_from(y[(row * y_stride + column) as usize]);
        if residual {
            v += Vector::cast_from(x[(row * x_stride + column) as usize]);
        }
        out[at as usize] = Vector::cast_from(v);
    }
}

impl Operation for GatedResidual {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let [out] =
            of_one_type(inputs).then(|| run(Gate { residual: true }, inputs.to_vec()))??;
        Some((out, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let [y, gate] = [inputs[1].clone(), inputs[2].clone()];
        let dy = || {
            let dy: Option<[_; 1]> =
                run(Gate { residual: false }, vec![gradient.clone(), gate.clone()]);
            dy.map(|[dy]| dy)
        };
        let dgate = || {
            let columns = Columns { groups: gate.shape()[0], sum: false, normalised: false };
            let sums: Tensor<2> = columns.run(vec![gradient.clone(), y.clone()])?.squeeze_dim(0);
            Some(sums.cast(gate.dtype()).into_dispatch())
        };
        let dy = wanted[1].then(dy).flatten();
        let dgate = wanted[2].then(dgate).flatten();
        Some(vec![Some(gradient), dy, dgate])
    }
}
