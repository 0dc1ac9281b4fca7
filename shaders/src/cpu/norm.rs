//! Normalisations and the small steps around them, one pass over memory each.

use burn::tensor::Tensor;
use pulp::Arch;

use super::tensor::{Values, make};
use super::{for_each_piece, math};

/// Values a piece of an elementwise pass holds.
const PIECE: usize = 1 << 14;

/// `LayerNorm(x)·(1 + scale) + shift`
pub(crate) fn layer_norm_modulate<const D: usize>(
    x: &Tensor<D>,
    shift: &Tensor<2>,
    scale: &Tensor<2>,
    eps: f64,
) -> Option<Tensor<D>> {
    let shape = x.dims();
    let (n, d) = (shape[1..D - 1].iter().product::<usize>(), shape[D - 1]);
    let (x, shift, scale) = (Values::of(x)?, Values::of(shift)?, Values::of(scale)?);
    let (x, shift, scale) = (x.slice(), shift.slice(), scale.slice());
    Some(make(shape, |out| {
        for_each_piece(out, d, |row, out| {
            let image = row / n;
            let x = &x[row * d..(row + 1) * d];
            let shift = &shift[image * d..(image + 1) * d];
            let scale = &scale[image * d..(image + 1) * d];
            Arch::new().dispatch(|| {
                let mean = math::sum(x, |v| v) / d as f32;
                let variance = math::sum(x, |v| (v - mean) * (v - mean)) / d as f32;
                let inverse = 1.0 / (variance + eps as f32).sqrt();
                for i in 0..d {
                    out[i] = (x[i] - mean) * inverse * (1.0 + scale[i]) + shift[i];
                }
            });
        });
    }))
}

/// `x + gate·y`
pub(crate) fn gated_residual(x: &Tensor<3>, y: &Tensor<3>, gate: &Tensor<2>) -> Option<Tensor<3>> {
    let shape = x.dims();
    let [_, n, d] = shape;
    let (x, y, gate) = (Values::of(x)?, Values::of(y)?, Values::of(gate)?);
    let (x, y, gate) = (x.slice(), y.slice(), gate.slice());
    const ROWS: usize = 32;
    Some(make(shape, |out| {
        for_each_piece(out, ROWS * d, |piece, out| {
            Arch::new().dispatch(|| {
                for (i, out) in out.chunks_exact_mut(d).enumerate() {
                    let row = piece * ROWS + i;
                    let (x, y) = (&x[row * d..(row + 1) * d], &y[row * d..(row + 1) * d]);
                    let gate = &gate[row / n * d..(row / n + 1) * d];
                    for i in 0..d {
                        out[i] = x[i] + gate[i] * y[i];
                    }
                }
            });
        });
    }))
}

/// GELU with the tanh approximation
pub(crate) fn gelu_tanh<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let shape = x.dims();
    let x = Values::of(x)?;
    let x = x.slice();
    Some(make(shape, |out| {
        for_each_piece(out, PIECE, |i, out| {
            let x = &x[i * PIECE..];
            Arch::new().dispatch(|| {
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = math::gelu_tanh(x);
                }
            });
        });
    }))
}

/// `SiLU(GroupNorm(x))`, `[B, C, H, W]`
pub(crate) fn group_norm_silu(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    groups: usize,
    eps: f64,
) -> Option<Tensor<4>> {
    let shape = x.dims();
    let [_, c, h, w] = shape;
    let (area, channels) = (h * w, c / groups);
    let (x, weight, bias) = (Values::of(x)?, Values::of(weight)?, Values::of(bias)?);
    let (x, weight, bias) = (x.slice(), weight.slice(), bias.slice());
    Some(make(shape, |out| {
        for_each_piece(out, channels * area, |i, out| {
            let group = i % groups;
            let x = &x[i * channels * area..(i + 1) * channels * area];
            Arch::new().dispatch(|| {
                let count = (channels * area) as f32;
                // Sums of channels first: long sums in float32 lose digits.
                let mean_of =
                    |f: &dyn Fn(&[f32]) -> f32| x.chunks_exact(area).map(f).sum::<f32>() / count;
                let mean = mean_of(&|x| math::sum(x, |v| v));
                let variance = mean_of(&|x| math::sum(x, |v| (v - mean) * (v - mean)));
                let inverse = 1.0 / (variance + eps as f32).sqrt();
                for channel in 0..channels {
                    let gain = inverse * weight[group * channels + channel];
                    let shift = bias[group * channels + channel] - mean * gain;
                    let at = channel * area..(channel + 1) * area;
                    for (out, &x) in out[at.clone()].iter_mut().zip(&x[at]) {
                        *out = math::silu(x * gain + shift);
                    }
                }
            });
        });
    }))
}
