//! The plain-Burn twin of every kernel: the oracle in tests, the fallback everywhere, and the
//! version that gradients flow through.

use burn::tensor::activation::{gelu_approximate, silu, softmax};
use burn::tensor::{Bool, DType, FloatDType, Tensor};

pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    let [d_out, d_in] = weight.dims();
    let rows = shape.iter().product::<usize>() / d_in;
    shape[D - 1] = d_out;
    let y = x.reshape([rows, d_in]).matmul(weight.transpose()); // [rows, out]
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape(shape)
}

pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gelu_approximate(x)
}

pub(crate) fn layer_norm_modulate(
    x: Tensor<3>,
    shift: Tensor<2>,
    scale: Tensor<2>,
    eps: f64,
) -> Tensor<3> {
    let dtype = x.dtype();
    let x = statistics_type(x);
    let x = x.clone() - x.mean_dim(2);
    let variance = x.clone().square().mean_dim(2);
    let y = (x / (variance + eps).sqrt()).cast(dtype);
    y * (scale + 1.0).unsqueeze_dim::<3>(1) + shift.unsqueeze_dim::<3>(1)
}

pub(crate) fn gated_residual(x: Tensor<3>, y: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    x + y * gate.unsqueeze_dim::<3>(1)
}

pub(crate) fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<4> {
    let dtype = q.dtype();
    let scores = statistics_type((q * scale).matmul(k.swap_dims(2, 3))); // [B, heads, N, M]
    let scores = match mask {
        Some(mask) => {
            let dims = scores.dims();
            scores.mask_fill(mask.expand(dims), f32::NEG_INFINITY)
        }
        None => scores,
    };
    softmax(scores, 3).cast(dtype).matmul(v) // [B, heads, N, e]
}

pub(crate) fn qkv_attention(qkv: Tensor<3>, heads: usize, scale: f64) -> Tensor<3> {
    let [b, n, width] = qkv.dims();
    let d = width / 3;
    let qkv = qkv.reshape([b, n, 3, heads, d / heads]);
    let [q, k, v] = [0, 1, 2].map(|i| -> Tensor<4> {
        qkv.clone().narrow(2, i, 1).reshape([b, n, heads, d / heads]).swap_dims(1, 2)
    });
    attention(q, k, v, scale, None).swap_dims(1, 2).reshape([b, n, d])
}

pub(crate) fn group_norm_silu(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
) -> Tensor<4> {
    let dtype = x.dtype();
    let [b, c, h, w] = x.dims();
    let x = statistics_type(x).reshape([b, groups, c / groups * h * w]);
    let x = x.clone() - x.mean_dim(2);
    let variance = x.clone().square().mean_dim(2);
    let y = (x / (variance + eps).sqrt()).reshape([b, c, h, w]).cast(dtype);
    silu(y * weight.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1]))
}

/// 16-bit activations in float32 for sums; the others as they are.
fn statistics_type<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.cast(FloatDType::F32),
        _ => x,
    }
}
