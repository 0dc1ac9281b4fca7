//! LayerNorm and RMSNorm with gain and modulation, one pass over memory.
//!
//! `y = n(x)·weight·(1 + scale) + shift`, where `n` divides by the root mean square, of the
//! centred row for LayerNorm. `weight` belongs to features, `scale` and `shift` to groups of
//! consecutive rows (the tokens of an image).

use burn::backend::DispatchTensor;
use burn::tensor::{DType, FloatDType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, run};
use super::columns::Columns;
use super::is_on_software;
use super::rows::{Rows, cube_of_rows, cubes, elem, row_sum, vector_size, vector_sum};
use crate::gradient::{Operation, of_one_type};

/// Which norm, and which of its parameters follow `x`, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    /// LayerNorm rather than RMSNorm.
    pub centred: bool,
    pub eps: f64,
    /// `[d]`
    pub weight: bool,
    /// `[groups, d]`
    pub scale: bool,
    /// `[groups, d]`
    pub shift: bool,
}

impl Norm {
    /// Where each parameter is among the inputs.
    fn places(&self) -> [Option<usize>; 3] {
        let mut next = 0;
        [self.weight, self.scale, self.shift].map(|there| {
            next += usize::from(there);
            there.then_some(next)
        })
    }

    /// Groups of rows.
    fn groups(&self, inputs: &[TensorSpec]) -> usize {
        let [_, scale, shift] = self.places();
        scale.or(shift).map_or(1, |i| inputs[i].shape[0])
    }
}

#[derive(Clone, Debug)]
struct Forward {
    norm: Norm,
    /// Whether the GPU is a program.
    software: bool,
}

impl Kernel for Forward {
    const NAME: &'static str = "norm";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![inputs[0].clone()]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let forms = TensorSpec::of(&inputs);
        let groups = self.norm.groups(&forms);
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&rows.iter().collect::<Vec<_>>());
        let (x, d, dtype) = (&rows[0], rows[0].d, rows[0].tensor.dtype);
        let (count, stride, client) = (x.count, x.stride, x.tensor.client.clone());
        let strides = self.norm.places().map(|i| i.map_or(0, |i| rows[i].stride / n) as u32);
        // Absent parameters are never read; `x` stands in their place.
        let tensor = |i: Option<usize>| &rows[i.unwrap_or(0)].tensor;
        let [weight, scale, shift] = self.norm.places().map(tensor);
        let [x, weight, scale, shift, y] =
            buffers([tensor(None), weight, scale, shift, &outputs[0]]);
        let cube = cube_of_rows(d / n, self.software);
        // SAFETY: every index is within the rows that the counts describe, and fits 32 bits (`bridge::MOST`).
        unsafe {
            forward::launch_unchecked::<R>(
                &client,
                cubes(count.div_ceil(cube.y as usize)),
                cube,
                n,
                x,
                weight,
                scale,
                shift,
                y,
                count as u32,
                (d / n) as u32,
                (stride / n) as u32,
                strides[1],
                strides[2],
                (count / groups) as u32,
                self.norm.eps as f32,
                self.norm.centred,
                self.norm.weight,
                self.norm.scale,
                self.norm.shift,
                cube.x,
                elem(dtype),
            );
        }
    }
}

/// Mean (0 where the norm is not centred) and inverse deviation of a row.
#[cube]
fn statistics<F: Float, N: Size>(
    x: &[Vector<F, N>],
    start: usize,
    d: usize,
    eps: f32,
    #[comptime] centred: bool,
    #[comptime] width: u32,
) -> (f32, f32) {
    let values = f32::cast_from((d * N::value()) as u32);
    let mut mean = 0.0f32;
    if centred {
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut i = UNIT_POS_X as usize;
        while i < d {
            sum += Vector::cast_from(x[start + i]);
            i += width as usize;
        }
        mean = row_sum(vector_sum::<N>(sum), width) / values;
    }
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut i = UNIT_POS_X as usize;
    while i < d {
        let centred = Vector::<f32, N>::cast_from(x[start + i]) - Vector::new(mean);
        squares += centred * centred;
        i += width as usize;
    }
    let variance = row_sum(vector_sum::<N>(squares), width) / values;
    (mean, 1.0f32 / (variance + eps).sqrt())
}

#[cube(launch_unchecked)]
fn forward<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    scale: &[Vector<F, N>],
    shift: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    count: u32,
    d: u32,
    stride: u32,
    scale_stride: u32,
    shift_stride: u32,
    group: u32,
    eps: f32,
    #[comptime] centred: bool,
    #[comptime] has_weight: bool,
    #[comptime] has_scale: bool,
    #[comptime] has_shift: bool,
    #[comptime] width: u32,
    #[define(F)] _dtype: ElemType,
) {
    // Units beyond the last row repeat it, for the sums' sake, and write nothing.
    let place = CUBE_POS as u32 * CUBE_DIM_Y + UNIT_POS_Y;
    let row = min(place, count - 1) as usize;
    let d = d as usize;
    let start = row * stride as usize;
    let (mean, inverse) = statistics::<F, N>(x, start, d, eps, centred, width);
    if place < count {
        let image = row / group as usize;
        let mut i = UNIT_POS_X as usize;
        while i < d {
            let mut v = Vector::<f32, N>::cast_from(x[start + i]) - Vector::new(mean);
            v *= Vector::new(inverse);
            if has_weight {
                v *= Vector::cast_from(weight[i]);
            }
            if has_scale {
                let scale = Vector::<f32, N>::cast_from(scale[image * scale_stride as usize + i]);
                v *= scale + Vector::new(1.0f32);
            }
            if has_shift {
                v += Vector::cast_from(shift[image * shift_stride as usize + i]);
            }
            y[row * d + i] = Vector::cast_from(v);
            i += width as usize;
        }
    }
}

/// The gradient of `x` from that of the result, and the statistics of rows for the parameters'.
#[derive(Clone, Debug)]
struct Backward {
    norm: Norm,
    /// Whether the GPU is a program.
    software: bool,
}

impl Kernel for Backward {
    const NAME: &'static str = "norm backward";

    /// Inputs: `x`, `weight`?, `scale`?, gradient. Outputs: gradient of `x`, `[rows, 2]`.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let x = &inputs[0];
        let rows = x.shape.num_elements() / x.shape[x.shape.num_dims() - 1];
        vec![x.clone(), TensorSpec::new([rows, 2], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let forms = TensorSpec::of(&inputs);
        let [weight, scale, _] = self.norm.places();
        let groups = scale.map_or(1, |i| forms[i].shape[0]);
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let n = vector_size(&rows.iter().collect::<Vec<_>>());
        let (x, d, dtype) = (&rows[0], rows[0].d, rows[0].tensor.dtype);
        let (count, stride, client) = (x.count, x.stride, x.tensor.client.clone());
        let last = rows.len() - 1;
        let tensor = |i: Option<usize>| &rows[i.unwrap_or(0)].tensor;
        let scale_stride = scale.map_or(0, |i| rows[i].stride / n) as u32;
        let [x, weight, scale, gradient, dx, stats] = buffers([
            tensor(None),
            tensor(weight),
            tensor(scale),
            tensor(Some(last)),
            &outputs[0],
            &outputs[1],
        ]);
        let cube = cube_of_rows(d / n, self.software);
        // SAFETY: every index is within the rows that the counts describe, and fits 32 bits (`bridge::MOST`).
        unsafe {
            backward::launch_unchecked::<R>(
                &client,
                cubes(count.div_ceil(cube.y as usize)),
                cube,
                n,
                x,
                weight,
                scale,
                gradient,
                dx,
                stats,
                count as u32,
                (d / n) as u32,
                (stride / n) as u32,
                scale_stride,
                (rows[last].stride / n) as u32,
                (count / groups) as u32,
                self.norm.eps as f32,
                self.norm.centred,
                self.norm.weight,
                self.norm.scale,
                cube.x,
                elem(dtype),
            );
        }
    }
}

/// With `h = gradient·weight·(1 + scale)`, `n` the normalised row and `s` the inverse deviation:
/// `dx = s·(h − mean(h) − n·mean(h·n))`, the middle term for centred norms only.
#[cube(launch_unchecked)]
fn backward<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    scale: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    stats: &mut [f32],
    count: u32,
    d: u32,
    stride: u32,
    scale_stride: u32,
    gradient_stride: u32,
    group: u32,
    eps: f32,
    #[comptime] centred: bool,
    #[comptime] has_weight: bool,
    #[comptime] has_scale: bool,
    #[comptime] width: u32,
    #[define(F)] _dtype: ElemType,
) {
    let place = CUBE_POS as u32 * CUBE_DIM_Y + UNIT_POS_Y;
    let row = min(place, count - 1) as usize;
    let d = d as usize;
    let start = row * stride as usize;
    let gradient_start = row * gradient_stride as usize;
    let scale_start = row / group as usize * scale_stride as usize;
    let (mean, inverse) = statistics::<F, N>(x, start, d, eps, centred, width);
    let mut sum_h = Vector::<f32, N>::new(0.0f32);
    let mut sum_hn = Vector::<f32, N>::new(0.0f32);
    let mut i = UNIT_POS_X as usize;
    while i < d {
        let mut h = Vector::<f32, N>::cast_from(gradient[gradient_start + i]);
        if has_weight {
            h *= Vector::cast_from(weight[i]);
        }
        if has_scale {
            h *= Vector::<f32, N>::cast_from(scale[scale_start + i]) + Vector::new(1.0f32);
        }
        let n =
            (Vector::<f32, N>::cast_from(x[start + i]) - Vector::new(mean)) * Vector::new(inverse);
        sum_h += h;
        sum_hn += h * n;
        i += width as usize;
    }
    let values = f32::cast_from((d * N::value()) as u32);
    let mut mean_h = 0.0f32;
    if centred {
        mean_h = row_sum(vector_sum::<N>(sum_h), width) / values;
    }
    let mean_hn = row_sum(vector_sum::<N>(sum_hn), width) / values;
    if place < count {
        let mut i = UNIT_POS_X as usize;
        while i < d {
            let mut h = Vector::<f32, N>::cast_from(gradient[gradient_start + i]);
            if has_weight {
                h *= Vector::cast_from(weight[i]);
            }
            if has_scale {
                h *= Vector::<f32, N>::cast_from(scale[scale_start + i]) + Vector::new(1.0f32);
            }
            let n = (Vector::<f32, N>::cast_from(x[start + i]) - Vector::new(mean))
                * Vector::new(inverse);
            let v = (h - Vector::new(mean_h) - n * Vector::new(mean_hn)) * Vector::new(inverse);
            dx[row * d + i] = Vector::cast_from(v);
            i += width as usize;
        }
        if UNIT_POS_X == 0 {
            stats[2 * row] = mean;
            stats[2 * row + 1] = inverse;
        }
    }
}

impl Operation for Norm {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        let kernel = Forward { norm: *self, software: is_on_software(&inputs[0]) };
        let [y] = of_one_type(inputs).then(|| run(kernel, inputs.to_vec()))??;
        Some((y, Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let [weight, scale, shift] = self.places();
        let mut given: Vec<_> =
            [Some(0), weight, scale].into_iter().flatten().map(|i| inputs[i].clone()).collect();
        given.push(gradient.clone());
        let kernel = Backward { norm: *self, software: is_on_software(&inputs[0]) };
        let [dx, stats] = run(kernel, given)?;
        let mut gradients = vec![Some(dx)];
        gradients.resize_with(inputs.len(), || None);
        if !wanted[1..].iter().any(|&wanted| wanted) {
            return Some(gradients);
        }
        // Σ gradient and Σ gradient·n over the rows of each group, `[groups, d]`.
        let groups = groups_of(inputs, scale.or(shift));
        let columns = Columns { groups, sum: true, normalised: true };
        let sums = columns.run(vec![gradient, inputs[0].clone(), stats])?;
        let [sum, product] = [0, 1].map(|i| sums.clone().narrow(0, i, 1).squeeze_dim::<2>(0));
        let f32 = |i: usize| inputs[i].clone();
        if let Some(i) = weight {
            let all = match scale {
                Some(scale) => {
                    product.clone() * (Tensor::<2>::from_dispatch(f32(scale)).cast(F32) + 1.0)
                }
                None => product.clone(),
            };
            gradients[i] = Some(like(all.sum_dim(0).squeeze_dim::<1>(0), &inputs[i]));
        }
        if let Some(i) = scale {
            let all = match weight {
                Some(weight) => {
                    product * Tensor::<1>::from_dispatch(f32(weight)).cast(F32).unsqueeze()
                }
                None => product,
            };
            gradients[i] = Some(like(all, &inputs[i]));
        }
        if let Some(i) = shift {
            gradients[i] = Some(like(sum, &inputs[i]));
        }
        Some(gradients)
    }
}

const F32: FloatDType = FloatDType::F32;

/// Rows of a parameter of groups.
fn groups_of(inputs: &[DispatchTensor], parameter: Option<usize>) -> usize {
    parameter.map_or(1, |i| inputs[i].shape()[0])
}

/// A gradient in its parameter's type.
fn like<const D: usize>(gradient: Tensor<D>, parameter: &DispatchTensor) -> DispatchTensor {
    gradient.cast(parameter.dtype()).into_dispatch()
}
