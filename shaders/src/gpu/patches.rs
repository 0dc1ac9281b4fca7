//! Products of an image's patches with a matrix, which is what a convolution is, and with patches of one
//! pixel the gradient of a linear layer: for GPUs that are programs on the processor.
//!
//! There, every value that a unit reads, from wherever, costs as much as a dozen multiplications, and barriers
//! cost more. So a unit makes a large tile, [`PIXELS`] × [`VECTORS`] vectors of output channels, and reads vectors
//! of input channels: with vectors of four, 16 of `x` and 16 of the weight are enough for 256 products of a scalar
//! and a vector. There is no shared memory. A GPU has not the registers for such a tile.

use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::Shape;
use burn_backend::TensorMetadata;
use burn_backend::ops::FloatTensorOps;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::bridge::{Kernel, TensorSpec, buffers, is_counted, run};
use super::rows::{cubes, elem};
use crate::gradient::of_one_type;
use crate::software::is_on_software_gpu;

/// Pixels of a unit.
const PIXELS: u32 = 16;
/// Vectors of output channels of a unit.
const VECTORS: u32 = 4;
/// Units of a cube.
pub(super) const UNITS: u32 = 64;

/// Inputs: `x` `[B, H, W, C]`, weight `[kh·kw·C, out]`, bias `[out]`? and a residual `[B, H', W', out]`?,
/// which is the shape of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patches {
    /// `[kh, kw]`
    pub window: [usize; 2],
    pub stride: usize,
    /// Zeros around the image, on each side.
    pub padding: [usize; 2],
    pub bias: bool,
    pub residual: bool,
}

impl Patches {
    /// The result `[B, H', W', out]`; `None` where the shapes do not fit, and where there are more values than
    /// 32 bits count.
    pub(super) fn of(self, inputs: Vec<DispatchTensor>) -> Option<DispatchTensor> {
        let forms: Vec<_> = inputs.iter().map(|x| TensorSpec::new(x.shape(), x.dtype())).collect();
        let [_, height, width, channels] = std::array::from_fn(|i| forms[0].shape[i]);
        let [kh, kw] = self.window;
        let is_covered = kh <= height + 2 * self.padding[0] && kw <= width + 2 * self.padding[1];
        if !is_covered || forms[1].shape[0] != kh * kw * channels {
            return None;
        }
        let result = self.outputs(&forms).remove(0);
        let mut rest = forms[2..].iter().map(|form| &form.shape);
        let fits = (!self.bias || rest.next() == Some(&Shape::from([forms[1].shape[1]])))
            && (!self.residual || rest.next() == Some(&result.shape))
            && forms.iter().chain([&result]).all(|form| is_counted(form.shape.num_elements()));
        let [result] = fits.then(|| run(self, inputs))??;
        Some(result)
    }

    /// Of an image's side, that of the result.
    fn side(&self, axis: usize, side: usize) -> usize {
        (side + 2 * self.padding[axis] - self.window[axis]) / self.stride + 1
    }
}

impl Kernel for Patches {
    const NAME: &'static str = "patches";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let (x, weight) = (&inputs[0].shape, &inputs[1].shape);
        let shape = [x[0], self.side(0, x[1]), self.side(1, x[2]), weight[1]];
        vec![TensorSpec::new(shape, inputs[0].dtype)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>) {
        let inputs: Vec<_> = inputs.into_iter().map(into_contiguous).collect();
        let (x, weight, to) = (&inputs[0], &inputs[1], &outputs[0]);
        let bias = if self.bias { &inputs[2] } else { weight };
        let residual = if self.residual { &inputs[2 + usize::from(self.bias)] } else { weight };
        let [_, height, width, channels] = dims(x);
        let [batch, rows, columns, out] = dims(to);
        let (from, into) = (width_of(channels), width_of(out));
        let pixels = batch * rows * columns;
        let lanes = lanes((out / into).div_ceil(VECTORS as usize));
        let blocks = (out / into).div_ceil((lanes * VECTORS) as usize);
        let groups = pixels.div_ceil((PIXELS * (UNITS / lanes)) as usize);
        let [x_arg, weight_arg, bias_arg, residual_arg, to_arg] =
            buffers([x, weight, bias, residual, to]);
        let geometry = GeometryLaunch::new(
            height as u32,
            width as u32,
            (channels / from) as u32,
            rows as u32,
            columns as u32,
            (out / into) as u32,
            self.window[0] as u32,
            self.window[1] as u32,
            self.stride as u32,
            self.padding[0] as u32,
            self.padding[1] as u32,
        );
        // SAFETY: pixels and channels beyond the last are not written, and the last are read for them;
        // `of` has seen that the shapes fit.
        unsafe {
            patches::launch_unchecked::<R>(
                &x.client,
                cubes(blocks * groups),
                CubeDim::new_1d(UNITS),
                from,
                into,
                x_arg,
                weight_arg,
                bias_arg,
                residual_arg,
                to_arg,
                geometry,
                pixels as u32,
                lanes,
                blocks as u32,
                u32::from(self.bias),
                u32::from(self.residual),
                self.padding != [0, 0],
                elem(x.dtype),
            );
        }
    }
}

/// Whether products of such inputs are made here: on software GPUs.
pub(super) fn suits(inputs: &[DispatchTensor]) -> bool {
    of_one_type(inputs) && is_on_software_gpu(&inputs[0])
}

/// `[…, k]` and `[…, n]` of `k` rows, and where there is one a bias `[n]`: their product `[…, n]`.
pub(super) fn product(
    a: &DispatchTensor,
    b: &DispatchTensor,
    bias: Option<&DispatchTensor>,
) -> Option<DispatchTensor> {
    let (rows, k) = rows_of(a);
    let (depth, n) = rows_of(b);
    if depth != k {
        return None;
    }
    let point = Patches {
        window: [1, 1],
        stride: 1,
        padding: [0, 0],
        bias: bias.is_some(),
        residual: false,
    };
    let inputs = [reshaped(a, [1, 1, rows, k]), reshaped(b, [k, n])];
    let result = point.of(inputs.into_iter().chain(bias.cloned()).collect())?;
    let mut shape = a.shape();
    *shape.last_mut()? = n;
    Some(reshaped(&result, shape))
}

/// `[…, d]` of so many rows as `[d, rows]`.
pub(super) fn transposed(x: &DispatchTensor) -> DispatchTensor {
    let (rows, d) = rows_of(x);
    Dispatch::float_swap_dims(reshaped(x, [rows, d]), 0, 1)
}

/// Rows of a tensor, and the values of each.
pub(super) fn rows_of(x: &DispatchTensor) -> (usize, usize) {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    (shape.num_elements() / d.max(1), d)
}

fn reshaped(x: &DispatchTensor, shape: impl Into<Shape>) -> DispatchTensor {
    Dispatch::float_reshape(x.clone(), shape.into())
}

fn dims<R: CubeRuntime>(x: &CubeTensor<R>) -> [usize; 4] {
    std::array::from_fn(|i| x.meta.shape()[i])
}

/// Values that rows of `d` are read in at a time. Not two: each width is a kernel more to compile.
fn width_of(d: usize) -> usize {
    if d.is_multiple_of(4) { 4 } else { 1 }
}

/// Units side by side for so many tiles: of those that leave the fewest idle, the most.
pub(super) fn lanes(tiles: usize) -> u32 {
    let idle = |&lanes: &u32| tiles.next_multiple_of(lanes as usize);
    [UNITS, 32, 16, 8, 4, 2, 1].into_iter().min_by_key(idle).unwrap_or(1)
}

/// Sizes; channels are counted in vectors.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Geometry {
    height: u32,
    width: u32,
    channels: u32,
    /// Of the result.
    rows: u32,
    columns: u32,
    out: u32,
    window_height: u32,
    window_width: u32,
    stride: u32,
    padding_y: u32,
    padding_x: u32,
}

#[cube(launch_unchecked)]
fn patches<F: Float, I: Size, O: Size>(
    x: &[Vector<F, I>],
    weight: &[Vector<F, O>],
    bias: &[Vector<F, O>],
    residual: &[Vector<F, O>],
    to: &mut [Vector<F, O>],
    size: Geometry,
    pixels: u32,
    lanes: u32,
    blocks: u32,
    with_bias: u32,
    with_residual: u32,
    #[comptime] padded: bool,
    #[define(F)] _dtype: ElemType,
) {
    let place = CUBE_POS as u32;
    let channel = (place % blocks * lanes + UNIT_POS % lanes) * VECTORS;
    let first = (place / blocks * (UNITS / lanes) + UNIT_POS / lanes) * PIXELS;
    if channel < size.out && first < pixels {
        let mut sums = Array::<Vector<f32, O>>::new(comptime!((PIXELS * VECTORS) as usize));
        // The first row and column of each pixel's window, and its image.
        let mut tops = Array::<u32>::new(comptime!(PIXELS as usize));
        let mut lefts = Array::<u32>::new(comptime!(PIXELS as usize));
        let mut images = Array::<u32>::new(comptime!(PIXELS as usize));
        let mut channels = Array::<u32>::new(comptime!(VECTORS as usize));
        #[unroll]
        for j in 0..VECTORS {
            channels[j as usize] = min(channel + j, size.out - 1);
        }
        #[unroll]
        for i in 0..PIXELS {
            let pixel = min(first + i, pixels - 1);
            let (row, column) = (pixel / size.columns, pixel % size.columns);
            #[unroll]
            for j in 0..VECTORS {
                sums[(i * VECTORS + j) as usize] = Vector::new(0.0f32);
            }
            tops[i as usize] = row % size.rows * size.stride;
            lefts[i as usize] = column * size.stride;
            images[i as usize] = row / size.rows * size.height;
        }
        let mut tap = 0u32;
        for dy in 0..size.window_height {
            for dx in 0..size.window_width {
                let mut places = Array::<u32>::new(comptime!(PIXELS as usize));
                let mut inside = Array::<bool>::new(comptime!(PIXELS as usize));
                #[unroll]
                for i in 0..PIXELS {
                    // What lies above or to the left wraps around to a large number.
                    let row = tops[i as usize] + dy - size.padding_y;
                    let column = lefts[i as usize] + dx - size.padding_x;
                    let is_inside = row < size.height && column < size.width;
                    let place = ((images[i as usize] + row) * size.width + column) * size.channels;
                    inside[i as usize] = is_inside;
                    places[i as usize] =
                        if comptime!(padded) { select(is_inside, place, 0u32) } else { place };
                }
                let mut at = tap * size.channels * I::value() as u32 * size.out;
                for c in 0..size.channels {
                    let mut values = Array::<Vector<f32, I>>::new(comptime!(PIXELS as usize));
                    #[unroll]
                    for i in 0..PIXELS {
                        let value =
                            Vector::<f32, I>::cast_from(x[(places[i as usize] + c) as usize]);
                        values[i as usize] = if comptime!(padded) {
                            select(inside[i as usize], value, Vector::new(0.0f32))
                        } else {
                            value
                        };
                    }
                    #[unroll]
                    for k in 0..I::value() {
                        #[unroll]
                        for j in 0..VECTORS {
                            let w = weight[(at + channels[j as usize]) as usize];
                            let w = Vector::<f32, O>::cast_from(w);
                            #[unroll]
                            for i in 0..PIXELS {
                                let place = (i * VECTORS + j) as usize;
                                let value = Vector::new(values[i as usize].extract(k));
                                sums[place] = fma(value, w, sums[place]);
                            }
                        }
                        at += size.out;
                    }
                }
                tap += 1;
            }
        }
        #[unroll]
        for j in 0..VECTORS {
            let own = channel + j;
            if own < size.out {
                let mut offset = Vector::<f32, O>::new(0.0f32);
                if with_bias == 1u32 {
                    offset = Vector::cast_from(bias[own as usize]);
                }
                #[unroll]
                for i in 0..PIXELS {
                    if first + i < pixels {
                        let at = ((first + i) * size.out + own) as usize;
                        let mut sum = sums[(i * VECTORS + j) as usize] + offset;
                        if with_residual == 1u32 {
                            sum += Vector::cast_from(residual[at]);
                        }
                        to[at] = Vector::cast_from(sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, DeviceKind, FloatDType, Tensor};

    use crate::gpu::convolution::Convolution;
    use crate::gpu::linear::Linear;
    use crate::gradient::Operation;
    use crate::note_software_gpu;

    use super::*;

    /// The tests of results would pass without the kernel, too.
    #[test]
    fn software_gpus_take_it() {
        let device = Device::wgpu(DeviceKind::Cpu);
        let ones = |shape: &[usize], dtype: FloatDType| {
            let x: Tensor<1> = Tensor::ones([shape.iter().product::<usize>()], &device);
            reshaped(&x.cast(dtype).into_dispatch(), shape.to_vec())
        };
        let convolution = Convolution { stride: 1, padding: [1, 1], bias: false, residual: false };
        let linear = Linear { gelu: false };
        let image = [ones(&[1, 4, 5, 5], FloatDType::F32), ones(&[4, 4, 3, 3], FloatDType::F32)];
        assert!(convolution.forward(&image).is_none(), "nobody said that it is a software GPU");
        note_software_gpu(&device);
        for dtype in [FloatDType::F32, FloatDType::F16] {
            let image = [ones(&[1, 4, 5, 5], dtype), ones(&[4, 4, 3, 3], dtype)];
            let (result, _) = convolution.forward(&image).expect("a convolution");
            assert_eq!(result.dtype(), DType::from(dtype));
            let rows = |n: usize| [ones(&[1, n, 8], dtype), ones(&[4, 8], dtype)];
            let bent = Linear { gelu: true };
            for n in [1, 3, 16] {
                assert!(linear.forward(&rows(n)).is_some());
                assert!(bent.forward(&rows(n)).is_some());
            }
        }
        // Shapes that do not fit are Burn's to complain about.
        let image = [ones(&[1, 4, 5, 5], FloatDType::F32), ones(&[4, 2, 3, 3], FloatDType::F32)];
        assert!(convolution.forward(&image).is_none());
        let image = [ones(&[1, 4, 5, 5], FloatDType::F32), ones(&[4, 4, 9, 9], FloatDType::F32)];
        assert!(convolution.forward(&image).is_none());
        let rows = [ones(&[1, 3, 8], FloatDType::F32), ones(&[4, 7], FloatDType::F32)];
        assert!(linear.forward(&rows).is_none());
    }
}
