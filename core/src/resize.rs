//! Resizing float images as encoders, teachers and evaluators do: PyTorch's `interpolate`
//! (`align_corners = False`), Pillow's kernels, TensorFlow 1's bilinear. On the host ([`resize`]) and on a device
//! ([`resize_tensor`]), with the same weights.

use burn::tensor::{Device, Tensor, TensorData};

/// Kernel and whether it widens when shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Two taps, no antialias.
    Bilinear,
    /// Four taps with a = −0.75, no antialias.
    Bicubic,
    /// The same, with positions from the factor `(to + 0.1)/from`, as DINOv2 resamples its table.
    BicubicOffset,
    /// TensorFlow 1's: two taps, pixel 0 on pixel 0.
    Tf1Bilinear,
    /// Linear, widened when shrinking.
    BilinearAntialias,
    /// Cubic with a = −0.5, widened when shrinking.
    BicubicAntialias,
    /// The same as Pillow computes it, up to version 12: along rows first. (Pillow 13 begins with the
    /// columns where the height shrinks more, which moves the last digits.)
    PillowBicubic,
}

/// Resizes planes `[n, from.0, from.1]` to `[n, to.0, to.1]` (height, width).
///
/// # Panics
///
/// If a side of `from` is 0.
pub fn resize(planes: &[f32], from: [usize; 2], to: [usize; 2], method: Method) -> Vec<f32> {
    let rows = weights(from[0], to[0], method);
    let columns = weights(from[1], to[1], method);
    let mut out = Vec::with_capacity(planes.len() / (from[0] * from[1]) * to[0] * to[1]);
    for plane in planes.chunks_exact(from[0] * from[1]) {
        let mut narrow = Vec::with_capacity(from[0] * to[1]); // [from.0, to.1]
        for row in plane.chunks_exact(from[1]) {
            let sum = |taps: &Vec<(usize, f32)>| taps.iter().map(|&(i, w)| w * row[i]).sum::<f32>();
            narrow.extend(columns.iter().map(sum));
        }
        for taps in &rows {
            out.extend(
                (0..to[1])
                    .map(|x| taps.iter().map(|&(i, w)| w * narrow[i * to[1] + x]).sum::<f32>()),
            );
        }
    }
    out
}

/// [`resize`] on a device, with gradients: a product with the weights of each axis.
///
/// # Shapes
///
/// * `x`: `[B, C, H, W]`
/// * returns `[B, C, to.0, to.1]`
///
/// # Panics
///
/// If a side of `x` is 0.
pub fn resize_tensor(x: Tensor<4>, to: [usize; 2], method: Method) -> Tensor<4> {
    let ([_, _, height, width], device) = (x.dims(), x.device());
    let rows = matrix(height, to[0], method, &device);
    let columns = matrix(width, to[1], method, &device);
    let narrow = tintype_shaders::linear(x, columns, None); // [B, C, H, w]
    let out = tintype_shaders::linear(narrow.swap_dims(2, 3), rows, None); // [B, C, w, h]
    out.swap_dims(2, 3)
}

/// The weights of an axis as a matrix, `[to, from]`.
fn matrix(from: usize, to: usize, method: Method, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; to * from];
    for (row, taps) in values.chunks_exact_mut(from).zip(weights(from, to, method)) {
        // Beyond an edge several taps fall on its pixel.
        taps.into_iter().for_each(|(i, weight)| row[i] += weight);
    }
    Tensor::from_data(TensorData::new(values, [to, from]), device)
}

fn cubic(x: f64, a: f64) -> f64 {
    match x.abs() {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

/// For every output position its input positions and weights.
fn weights(from: usize, to: usize, method: Method) -> Vec<Vec<(usize, f32)>> {
    // PyTorch computes source positions in float32; float64 would differ in the fifth digit.
    let narrow = match method {
        Method::BicubicOffset => (1.0 / ((to as f64 + 0.1) / from as f64)) as f32,
        _ => from as f32 / to as f32,
    };
    let clamp = |i: i64| i.clamp(0, from as i64 - 1) as usize;
    let whole = [0, from];
    (0..to)
        .map(|x| match method {
            Method::Bilinear => {
                let source = (narrow * (x as f32 + 0.5) - 0.5).max(0.0);
                let (first, t) = (source.floor() as i64, source.fract());
                vec![(clamp(first), 1.0 - t), (clamp(first + 1), t)]
            }
            Method::Bicubic | Method::BicubicOffset => {
                let source = narrow * (x as f32 + 0.5) - 0.5;
                let (first, t) = (source.floor() as i64, (source - source.floor()) as f64);
                (-1..3).map(|i| (clamp(first + i), cubic(t - i as f64, -0.75) as f32)).collect()
            }
            Method::Tf1Bilinear => {
                let source = narrow * x as f32;
                let (first, t) = (source.floor() as i64, source.fract());
                vec![(clamp(first), 1.0 - t), (clamp(first + 1), t)]
            }
            Method::BilinearAntialias => {
                widened(from, whole, to, x, 1.0, single, |t| (1.0 - t.abs()).max(0.0))
            }
            Method::BicubicAntialias => {
                widened(from, whole, to, x, 2.0, single, |t| cubic(t, -0.5))
            }
            Method::PillowBicubic => widened(from, whole, to, x, 2.0, |v| v, |t| cubic(t, -0.5)),
        })
        .collect()
}

/// The weights of a window of an axis that is resized to `to` positions by a cubic with a = −0.5, widened when
/// shrinking: for every output position its input positions and weights, which may lie beside the window (JAX's
/// `scale_and_translate`).
///
/// # Panics
///
/// If the window does not lie within `from` positions.
pub fn window(from: usize, [start, length]: [usize; 2], to: usize) -> Vec<Vec<(usize, f32)>> {
    assert!(start + length <= from, "{start} + {length} of {from}");
    let taps = |x| widened(from, [start, length], to, x, 2.0, |v| v, |t| cubic(t, -0.5));
    (0..to).map(taps).collect()
}

/// A float64 result as PyTorch's float32 arithmetic would have it.
fn single(v: f64) -> f64 {
    v as f32 as f64
}

/// The taps, of an axis of `from` positions of which a window is resized, of a kernel that widens when
/// shrinking, normalised. `round` is applied to every result: PyTorch computes positions and weights in
/// float32, Pillow in float64.
fn widened(
    from: usize,
    [start, length]: [usize; 2],
    to: usize,
    x: usize,
    radius: f64,
    round: fn(f64) -> f64,
    kernel: impl Fn(f64) -> f64,
) -> Vec<(usize, f32)> {
    let scale = round(length as f64 / to as f64);
    let stretch = scale.max(1.0);
    let center = start as f64 + round((x as f64 + 0.5) * scale);
    let support = round(radius * stretch);
    let first = (round(round(center - support) + 0.5) as i64).max(0);
    let end = (round(round(center + support) + 0.5) as i64).min(from as i64);
    let narrow = round(1.0 / stretch);
    let weight = |i: i64| round(kernel(round(round(round(i as f64 - center) + 0.5) * narrow)));
    let total = (first..end).fold(0.0, |total, i| round(total + weight(i)));
    (first..end).map(|i| (i as usize, (weight(i) / total) as f32)).collect()
}
