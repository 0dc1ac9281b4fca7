//! GroupNorm with SiLU behind it (VA-VAE), two passes over memory.
//!
//! Channels lie innermost, as convolutions on GPUs have them: neighbouring units take neighbouring
//! channels. A unit goes through a run of pixels for its channels, another kernel puts what the
//! units found together for each group, and a last one writes the result.

mod backward;
mod forward;
mod moments;

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use self::backward::Backward;
use self::forward::Forward;
use super::bridge::run;
use super::is_on_software;
use super::rows::{Rows, vector_size};
use crate::gradient::{Operation, of_one_type};

/// Inputs `x` `[B, C, H, W]`, weight `[C]`, bias `[C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNormSilu {
    pub groups: usize,
    pub eps: f64,
}

/// Pixels that a unit goes through.
const RUN: u32 = 64;

/// The sizes of `[B, H, W, C]`.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    /// Pixels of an image.
    area: usize,
    channels: usize,
    /// Groups of an image.
    groups: usize,
}

impl Sizes {
    fn of(shape: &[usize], groups: usize) -> Self {
        Self { batch: shape[0], area: shape[1] * shape[2], channels: shape[3], groups }
    }

    /// Runs of an image.
    fn runs(&self) -> usize {
        self.area.div_ceil(RUN as usize)
    }

    fn values(&self) -> usize {
        self.batch * self.area * self.channels
    }
}

/// Channels that are read at a time.
fn width<R: CubeRuntime>(tensors: &[CubeTensor<R>]) -> usize {
    let rows: Vec<_> = tensors.iter().cloned().map(Rows::of).collect();
    vector_size(&rows.iter().collect::<Vec<_>>())
}

/// A unit's run of pixels: where its vectors begin, and how many pixels it has.
#[derive(CubeType)]
struct Run {
    start: usize,
    length: u32,
    /// The first of its channels, in vectors.
    column: u32,
    image: u32,
}

/// Of unit `unit`: images of `area` pixels of `width` vectors.
#[cube]
fn run_of(unit: u32, area: u32, width: u32) -> Run {
    let runs = area.div_ceil(RUN);
    let (column, run, image) = (unit % width, unit / width % runs, unit / width / runs);
    Run {
        start: (image * area + run * RUN) as usize * width as usize + column as usize,
        length: min(area - run * RUN, RUN),
        column,
        image,
    }
}

/// Of each channel the two numbers that are known of its group, `[B·groups, 2]`.
#[cube]
fn of_groups<N: Size>(
    known: &[f32],
    image: u32,
    column: u32,
    groups: u32,
    channels: u32,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let mut first = Vector::<f32, N>::new(0.0f32);
    let mut second = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..N::value() {
        let channel = column * N::value() as u32 + i as u32;
        let group = (2 * (image * groups + channel * groups / channels)) as usize;
        first.insert(i, known[group]);
        second.insert(i, known[group + 1]);
    }
    (first, second)
}

/// Writes two numbers of each channel of a vector, as `[channels, 2]`.
#[cube]
fn store_pairs<N: Size>(
    pairs: &mut [f32],
    vector: u32,
    first: Vector<f32, N>,
    second: Vector<f32, N>,
) {
    let to = vector as usize * N::value() * 2;
    #[unroll]
    for i in 0..N::value() {
        pairs[to + 2 * i] = first.extract(i);
        pairs[to + 2 * i + 1] = second.extract(i);
    }
}

/// `[B, C, H, W]` with its channels last, and back.
fn channels_last(tensor: &DispatchTensor) -> DispatchTensor {
    Tensor::<4>::from_dispatch(tensor.clone()).permute([0, 2, 3, 1]).into_dispatch()
}

fn channels_first(tensor: DispatchTensor) -> DispatchTensor {
    Tensor::<4>::from_dispatch(tensor).permute([0, 3, 1, 2]).into_dispatch()
}

impl Operation for GroupNormSilu {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        if !of_one_type(inputs) {
            return None;
        }
        let given = vec![channels_last(&inputs[0]), inputs[1].clone(), inputs[2].clone()];
        let kernel = Forward { norm: *self, software: is_on_software(&inputs[0]) };
        let [y] = run(kernel, given)?;
        Some((channels_first(y), Vec::new()))
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let [x, gradient] = [&inputs[0], &gradient].map(channels_last);
        let given = vec![x, inputs[1].clone(), inputs[2].clone(), gradient];
        let kernel = Backward { norm: *self, software: is_on_software(&inputs[0]) };
        let [dx, sums] = run(kernel, given)?;
        let channels = inputs[1].shape()[0];
        let sums = Tensor::<2>::from_dispatch(sums).reshape([-1, channels as i32 * 2]);
        let sums: Tensor<2> = sums.sum_dim(0).reshape([channels, 2]); // over the images
        let column = |i: usize| {
            let column: Tensor<1> = sums.clone().narrow(1, i, 1).reshape([channels]);
            column.cast(inputs[1].dtype()).into_dispatch()
        };
        let [dbias, dweight] = [0, 1].map(column);
        let parameters = [wanted[1].then_some(dweight), wanted[2].then_some(dbias)];
        Some([Some(channels_first(dx))].into_iter().chain(parameters).collect())
    }
}
