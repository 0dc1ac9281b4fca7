//! Random resized crops of pictures, as the perceptual losses see them. A crop is a product with a matrix on each side,
//! so it has a gradient.

use tintype::burn::tensor::{Device, Tensor};
use tintype::noise::{ImageKey, Stream, uniforms};

use crate::train::host::Values;
use tintype::resize::window;

/// Share of the area that a crop has, from and to.
const AREA: [f64; 2] = [0.08, 1.0];
/// Its width over its height, from and to.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// A window of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Crop {
    /// The window of a sample's picture of `side` pixels a side: 8…100 % of its area, 3:4 to 4:3.
    pub fn new(key: ImageKey, side: usize) -> Self {
        // Step 0 of this stream is that of guidance and dropout.
        let u = uniforms(key, Stream::Choice, 1, 4);
        let between = |[low, high]: [f64; 2], u: f64| low + (high - low) * u;
        let area = (side * side) as f64 * between(AREA, u[0]);
        let ratio = between(RATIO.map(f64::ln), u[1]).exp();
        let size = |length: f64| (length.round_ties_even() as usize).clamp(1, side);
        let (width, height) = (size((area * ratio).sqrt()), size((area / ratio).sqrt()));
        let place = |u: f64, size: usize| (u * (side - size + 1) as f64) as usize;
        Self { top: place(u[2], height), left: place(u[3], width), height, width }
    }
}

/// The crops of some samples, each resized to a square.
#[derive(Clone, Debug)]
pub struct Crops {
    /// Weights of the rows, `[B, H, S]`.
    rows: Values<3>,
    /// Weights of the columns, `[B, W, S]`.
    columns: Values<3>,
}

impl Crops {
    /// Of square pictures of `from` pixels a side, resized to `to`.
    ///
    /// # Panics
    ///
    /// If a crop is not within its picture.
    pub fn new(crops: &[Crop], from: usize, to: usize) -> Self {
        let matrices = |axis: fn(&Crop) -> [usize; 2]| {
            let mut values = vec![0.0; crops.len() * from * to];
            for (crop, matrix) in crops.iter().zip(values.chunks_exact_mut(from * to)) {
                for (place, taps) in window(from, axis(crop), to).into_iter().enumerate() {
                    for (pixel, weight) in taps {
                        matrix[pixel * to + place] = weight;
                    }
                }
            }
            Values::new(values, [crops.len(), from, to])
        };
        Self {
            rows: matrices(|crop| [crop.top, crop.height]),
            columns: matrices(|crop| [crop.left, crop.width]),
        }
    }

    /// The matrices on a device, to [`cut`] several batches with.
    pub fn tensors(self, device: &Device) -> [Tensor<3>; 2] {
        [self.rows.tensor(device), self.columns.tensor(device)]
    }
}

/// The crops of a batch of pictures.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * `rows`, `columns`: `[B, H, S]` and `[B, W, S]`
/// * returns `[B, C, S, S]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn cut(x: Tensor<4>, [rows, columns]: [Tensor<3>; 2]) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let s = columns.dims()[2];
    let x: Tensor<3> = x.reshape([b, c * h, w]);
    let x: Tensor<4> = x.matmul(columns).reshape([b, c, h, s]);
    let x: Tensor<3> = x.swap_dims(2, 3).reshape([b, c * s, h]);
    let x: Tensor<4> = x.matmul(rows).reshape([b, c, s, s]);
    x.swap_dims(2, 3) // [B, C, S, S]
}

#[cfg(test)]
mod tests {
    use tintype::burn::tensor::TensorData;
    use tintype::noise::normals;

    use super::*;

    const SIDE: usize = 12;

    fn picture(device: &Device) -> Tensor<4> {
        let value = |i: usize| (i / SIDE * 7 + i % SIDE * 5) % 11;
        let values = (0..SIDE * SIDE).map(|i| value(i) as f32 / 5.0 - 1.0).collect();
        Values::new(values, [1, 1, SIDE, SIDE]).tensor(device)
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    #[test]
    fn crops_are_within_the_picture_and_of_the_stated_sizes() {
        let (mut shares, mut wide) = (Vec::new(), 0);
        for image in 0..2000 {
            let Crop { top, left, height, width } = Crop::new(ImageKey::new(2, image), 256);
            assert!(top + height <= 256 && left + width <= 256);
            let ratio = width as f64 / height as f64;
            assert!((0.73..1.36).contains(&ratio), "{width} x {height}");
            shares.push((width * height) as f64 / (256.0 * 256.0));
            wide += usize::from(width > height);
        }
        assert!(shares.iter().all(|share| (0.075..=1.0).contains(share)));
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((mean - 0.54).abs() < 0.03, "{mean}");
        assert!((900..1100).contains(&wide), "{wide}");
    }

    #[test]
    fn weights_sum_to_one() {
        let crops: Vec<Crop> =
            (0..20).map(|image| Crop::new(ImageKey::new(4, image), 40)).collect();
        for to in [7, 24, 64] {
            let Crops { rows, columns } = Crops::new(&crops, 40, to);
            for matrix in [rows, columns] {
                for (i, matrix) in matrix.values.chunks_exact(40 * to).enumerate() {
                    for place in 0..to {
                        let sum: f32 = matrix.iter().skip(place).step_by(to).sum();
                        assert!((sum - 1.0).abs() < 1e-5, "{sum} of {place} in {:?}", crops[i]);
                    }
                }
            }
        }
    }

    /// Values of `jax.image.scale_and_translate` with its antialiased cubic, which pMF's code crops with.
    #[test]
    fn crops_are_the_reference_s() {
        let device = Device::flex();
        let whole = Crop { top: 0, left: 0, height: SIDE, width: SIDE };
        let cropped = |crop: Crop, to: usize| {
            values(cut(picture(&device), Crops::new(&[crop], SIDE, to).tensors(&device)))
        };
        assert_eq!(cropped(whole, SIDE), values(picture(&device)));
        let small = [
            -0.009097, 0.004047, -0.013305, 0.015709, -0.015056, -0.008776, -0.009558, -0.004675,
            0.001587,
        ];
        let large = [
            -0.507829, -0.064972, -0.161876, -0.687209, -0.303447, 0.099077, 0.033141, -0.547179,
            0.547179, -0.033141, -0.099077, 0.303447, 0.687209, 0.161876, 0.064972, 0.507829,
        ];
        let shrunk = cropped(Crop { top: 2, left: 1, height: 9, width: 7 }, 3);
        let grown = cropped(Crop { top: 3, left: 5, height: 2, width: 3 }, 4);
        for (found, expected) in [(shrunk, small.as_slice()), (grown, large.as_slice())] {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-6, "{found} and {expected}");
            }
        }
    }

    /// The gradient of a weighted sum is what it changes by, exactly, as a crop is linear.
    #[test]
    fn gradients_are_those_of_differences() {
        let (to, device) = (5, Device::flex().autodiff());
        let crop = Crop { top: 1, left: 3, height: 8, width: 6 };
        let random =
            |seed: u64, count: usize| normals(ImageKey::new(seed, 0), Stream::Noise, 0, count);
        let weights = random(1, 2 * 3 * to * to);
        let shape = [2, 3, SIDE, SIDE];
        let start = random(2, shape.iter().product());
        let sum = |values: Vec<f32>| {
            let x: Tensor<4> = Tensor::from_data(TensorData::new(values, shape), &device);
            let x = x.require_grad();
            let weights = Values::new(weights.clone(), [2, 3, to, to]).tensor(&device);
            let crops = Crops::new(&[crop; 2], SIDE, to).tensors(&device);
            ((cut(x.clone(), crops) * weights).sum(), x)
        };
        let number = |x: Tensor<1>| x.into_data().iter::<f64>().next().expect("one");
        let (total, x) = sum(start.clone());
        let gradient = x.grad(&total.backward()).expect("it has one");
        let gradient: Vec<f64> = gradient.into_data().iter::<f64>().collect();
        let total = number(total.inner());
        for at in [40, 41, 200, 500, 863] {
            let mut moved = start.clone();
            moved[at] += 1.0;
            let difference = number(sum(moved).0.inner()) - total;
            assert!((difference - gradient[at]).abs() < 1e-4, "{at}: {difference}");
        }
        assert!(gradient.iter().filter(|g| g.abs() > 1e-3).count() > 100, "it is somewhere");
    }
}
