//! What kernels over rows share: the layout of a matrix, and sums over a row.

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::bridge::MOST;

/// Units of a cube.
pub(super) const UNITS: u32 = 256;

/// A tensor seen as rows of `d` values that lie together.
#[derive(Debug)]
pub(super) struct Rows<R: CubeRuntime> {
    pub tensor: CubeTensor<R>,
    /// Rows.
    pub count: usize,
    /// Values of a row.
    pub d: usize,
    /// Values from the start of one row to the start of the next.
    pub stride: usize,
}

impl<R: CubeRuntime> Rows<R> {
    /// Copies only where the rows are not evenly spaced, or so far apart that their places do not fit 32 bits,
    /// as those of a small part of a large tensor.
    pub(super) fn of(tensor: CubeTensor<R>) -> Self {
        let shape: Vec<usize> = tensor.meta.shape().iter().copied().collect();
        let d = *shape.last().expect("a matrix has axes");
        let count = shape.iter().product::<usize>() / d.max(1);
        match even_stride(&shape, tensor.meta.strides()).filter(|&stride| reaches(count, stride)) {
            Some(stride) => Self { tensor, count, d, stride },
            None => Self { tensor: into_contiguous(tensor), count, d, stride: d },
        }
    }

    /// Whether rows can be read in vectors of `n` values.
    pub(super) fn allows(&self, n: usize) -> bool {
        let start = self.tensor.handle.offset_start.unwrap_or(0);
        let size = self.tensor.dtype.size();
        self.d.is_multiple_of(n)
            && self.stride.is_multiple_of(n)
            && start.is_multiple_of((n * size) as u64)
    }
}

/// Whether the places of so many rows fit 32 bits.
fn reaches(count: usize, stride: usize) -> bool {
    (count as u64).checked_mul(stride as u64).is_some_and(|reach| reach <= MOST)
}

/// The distance of consecutive rows, where it is the same for all of them.
fn even_stride(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let last = shape.len() - 1;
    if shape[last] > 1 && strides[last] != 1 {
        return None;
    }
    let mut axes = (0..last).rev().filter(|&i| shape[i] > 1);
    let Some(inner) = axes.next() else { return Some(shape[last]) };
    let (stride, mut count) = (strides[inner], shape[inner]);
    for i in axes {
        if strides[i] != stride * count {
            return None;
        }
        count *= shape[i];
    }
    Some(stride)
}

/// The longest vectors, of 16 bytes at most, that all rows can be read in.
pub(super) fn vector_size<R: CubeRuntime>(rows: &[&Rows<R>]) -> usize {
    let longest = 16 / rows[0].tensor.dtype.size();
    let longest = longest.min(rows[0].tensor.client.properties().hardware.max_vector_size);
    let mut sizes = [8, 4, 2].into_iter().filter(|&n| n <= longest);
    sizes.find(|&n| rows.iter().all(|rows| rows.allows(n))).unwrap_or(1)
}

/// CubeCL's name of a type of floats.
pub(super) fn elem(dtype: DType) -> ElemType {
    burn_backend::cubecl::dtype_to_storage_type(dtype)
}

/// Units of a cube in which each has a row, a group or a block of its own: few, so that all cores have some.
pub(super) const ALONE: u32 = 32;

/// A cube's units for rows of `vectors`, `x` of them side by side on a row: few enough that each has something to do,
/// many enough that neighbouring units read neighbouring memory. On a software GPU one, which waits for nobody.
pub(super) fn cube_of_rows(vectors: usize, software: bool) -> CubeDim {
    if software {
        return CubeDim::new_2d(1, ALONE);
    }
    let width = (vectors.div_ceil(2).next_power_of_two() as u32).clamp(8, UNITS);
    CubeDim::new_2d(width, UNITS / width)
}

/// Enough cubes for `count`, spread over two axes where one has not enough room.
pub(super) fn cubes(count: usize) -> CubeCount {
    const ROOM: usize = 65_535;
    let y = count.div_ceil(ROOM).max(1);
    CubeCount::Static(count.div_ceil(y) as u32, y as u32, 1)
}

/// The sum of `value` over the `width` units of a row, given to each of them, at most [`UNITS`] in a cube. Every unit
/// of the cube takes part. One unit has its sum already: there is neither shared memory then nor a barrier.
#[cube]
pub(super) fn row_sum(value: f32, #[comptime] width: u32) -> f32 {
    let mut total = value;
    if comptime!(width > 1) {
        let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
        let start = (UNIT_POS_Y * width) as usize;
        let own = start + UNIT_POS_X as usize;
        sums[own] = value;
        sync_cube();
        #[unroll]
        for halving in 1..comptime!(width.ilog2() + 1) {
            let step = comptime!(width >> halving);
            if UNIT_POS_X < step {
                sums[own] += sums[own + step as usize];
            }
            sync_cube();
        }
        total = sums[start];
        sync_cube();
    }
    total
}

/// The sum of the parts of a vector.
#[cube]
pub(super) fn vector_sum<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        sum += vector.extract(i);
    }
    sum
}
