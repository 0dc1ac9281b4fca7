//! The sum of the squares of all values of a list of tensors: sums of blocks, then sums of these. It has the same bits
//! every time, and a value goes through few additions, so that float32 is precise enough for any number of values.

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, alloc, buffers, run};
use super::is_on_software;
use super::rows::{ALONE, Rows, UNITS, cubes, row_sum, vector_size, vector_sum};

/// Vectors that a unit of a cube adds up.
const LENGTH: u32 = 16;
/// Those of a unit that has a block of its own.
const LENGTH_ALONE: u32 = 64;

/// Inputs: the tensors, none of them empty. Output: `[1]`.
#[derive(Clone, Copy, Debug)]
struct Squares {
    /// Whether the GPU is a program.
    software: bool,
}

impl Squares {
    fn cube(self) -> CubeDim {
        if self.software { CubeDim::new_2d(1, ALONE) } else { CubeDim::new_2d(UNITS, 1) }
    }

    fn length(self) -> u32 {
        if self.software { LENGTH_ALONE } else { LENGTH }
    }

    /// Blocks of a tensor.
    fn blocks<R: CubeRuntime>(self, x: &Rows<R>) -> usize {
        let vectors = x.d / vector_size(&[x]);
        vectors.div_ceil((self.cube().x * self.length()) as usize)
    }

    /// Writes the sum of each block into `to`, from `start` on.
    fn add<R: CubeRuntime>(self, x: &Rows<R>, to: &CubeTensor<R>, start: usize, squared: bool) {
        let n = vector_size(&[x]);
        let (cube, blocks) = (self.cube(), self.blocks(x));
        let [x_arg, to_arg] = buffers([&x.tensor, to]);
        // SAFETY: units beyond the last value add nothing and those beyond the last block write nothing; places fit
        // 32 bits (`bridge::MOST`).
        unsafe {
            sums::launch_unchecked::<R>(
                &to.client,
                cubes(blocks.div_ceil(cube.y as usize)),
                cube,
                n,
                x_arg,
                to_arg,
                (x.d / n) as u32,
                start as u32,
                blocks as u32,
                squared,
                self.length(),
                cube.x,
            );
        }
    }
}

impl Kernel for Squares {
    const NAME: &'static str = "sum of squares";

    fn outputs(&self, _: &[TensorSpec]) -> Vec<TensorSpec> {
        vec![TensorSpec::new([1], DType::F32)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        // The sums of all tensors lie behind each other, the last one in the output.
        let room = |count: usize| match count {
            1 => outputs[0].clone(),
            _ => alloc(&outputs[0], [count], DType::F32),
        };
        let rows: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let mut count: usize = rows.iter().map(|x| self.blocks(x)).sum();
        let mut sums = room(count);
        let mut start = 0;
        for x in &rows {
            self.add(x, &sums, start, true);
            start += self.blocks(x);
        }
        while count > 1 {
            let x = Rows::of(sums);
            count = self.blocks(&x);
            sums = room(count);
            self.add(&x, &sums, 0, false);
        }
    }
}

/// The sum of the squares of all values, `[1]`; `None` without values, and for tensors that are not float32 on one GPU.
pub(crate) fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let filled = tensors.iter().filter(|x| x.dims()[0] > 0);
    let inputs: Vec<DispatchTensor> = filled.map(|x| x.clone().into_dispatch()).collect();
    if inputs.iter().any(|x| x.dtype() != DType::F32) {
        return None;
    }
    let software = is_on_software(inputs.first()?);
    let [sum] = run(Squares { software }, inputs)?;
    Some(Tensor::from_dispatch(sum))
}

/// The sums of blocks of `width·length` vectors, or of their squares. A unit adds up every `width`-th vector of one.
#[cube(launch_unchecked)]
fn sums<N: Size>(
    x: &[Vector<f32, N>],
    to: &mut [f32],
    count: u32,
    start: u32,
    blocks: u32,
    #[comptime] squared: bool,
    #[comptime] length: u32,
    #[comptime] width: u32,
) {
    let block = CUBE_POS as u32 * CUBE_DIM_Y + UNIT_POS_Y;
    let first = block * comptime!(width * length);
    let end = min(first + comptime!(width * length), count);
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut at = first + UNIT_POS_X;
    while at < end {
        let value = x[at as usize];
        if squared {
            sum += value * value;
        } else {
            sum += value;
        }
        at += width;
    }
    let total = row_sum(vector_sum::<N>(sum), width);
    if UNIT_POS_X == 0 && block < blocks {
        to[(start + block) as usize] = total;
    }
}
