//! Benchmarks of a transformer's operations at a network's sizes.

use tintype::burn::tensor::Tensor;
use tintype::model::meanflow::Shape;
use tintype::model::sit::SiTConfig;
use tintype::nn::rope::{HeadRope, Places, RotaryTable};
use tintype::shaders::{
    AttentionKind, Normalization, QkTransform, gated_residual, geglu, linear, linear_gelu_tanh,
    modulated_norm, qkv_attention, softmax, swiglu,
};

use super::{Bench, Measurement, Subject};
use crate::train::recipe::Trained;

/// Sizes of a block: tokens, width, heads, width of the feed-forward network.
struct Block {
    n: usize,
    d: usize,
    heads: usize,
    inner: usize,
    /// Kernel size of neighborhood attention.
    kernel: Option<usize>,
}

/// The block in which a network spends most of its time.
fn block(network: Trained<'_>) -> Block {
    let sit = |c: &SiTConfig| Block {
        n: c.tokens(),
        d: c.hidden_size,
        heads: c.num_heads,
        inner: (c.hidden_size as f64 * c.mlp_ratio) as usize,
        kernel: None,
    };
    let mean_flow = |shape: &Shape| Block {
        n: shape.prefix() + shape.grid().pow(2),
        d: shape.hidden_size,
        heads: shape.num_heads,
        inner: shape.mlp_hidden,
        kernel: None,
    };
    match network {
        Trained::Imf(c) => mean_flow(&c.shape),
        Trained::Pmf(c) => mean_flow(&c.shape),
        Trained::HiDiT(c) => sit(&c.sit),
        Trained::SiT(c) => sit(c),
        Trained::Jit(c) => Block {
            n: c.in_context_len + (c.input_size / c.patch_size).pow(2),
            d: c.hidden_size,
            heads: c.num_heads,
            inner: (c.hidden_size as f64 * c.mlp_ratio * 2.0 / 3.0) as usize,
            kernel: None,
        },
        // One of the many of its backbone.
        Trained::DitDh(c) => Block {
            n: (c.input_size / c.patch_size).pow(2),
            d: c.hidden_size[0],
            heads: c.num_heads[0],
            inner: (c.hidden_size[0] as f64 * c.mlp_ratio * 2.0 / 3.0) as usize,
            kernel: None,
        },
        Trained::LightningDiT(c) => Block {
            n: (c.input_size / c.patch_size).pow(2),
            d: c.hidden_size,
            heads: c.num_heads,
            inner: (c.hidden_size as f64 * c.mlp_ratio * 2.0 / 3.0) as usize,
            kernel: None,
        },
        Trained::HDiT(c) => Block {
            n: c.input_size[0] / c.patch_size[0] * (c.input_size[1] / c.patch_size[1]),
            d: c.widths[0],
            heads: (c.widths[0] / 64).max(1),
            inner: c.d_ff(0),
            kernel: Some(7),
        },
    }
}

/// How the network prepares queries and keys inside of attention, and the scale of their products; `None`
/// where it does not.
fn preparation(bench: &Bench, network: Trained<'_>, block: &Block) -> Option<(QkTransform, f64)> {
    let Block { n, d, heads, .. } = *block;
    let (head, side) = (d / heads, n.isqrt());
    match network {
        Trained::LightningDiT(_) | Trained::DitDh(_) => {
            let table = RotaryTable::new(Places::Grid { prefix: 0, side }, head, &bench.device);
            let [cos, sin] = [table.cos, table.sin].map(|table| table.cast(bench.precision));
            Some((QkTransform::Rotary { cos, sin }, 1.0 / (head as f64).sqrt()))
        }
        Trained::HDiT(_) => {
            let scale = Tensor::<1>::full([heads], 10.0, &bench.device).cast(bench.precision);
            let freqs = HeadRope::new(heads, head, &bench.device).freqs.val();
            Some((QkTransform::Cosine { scale, freqs, height: side, width: side }, 1.0))
        }
        _ => None,
    }
}

/// Measures each operation that is wanted forward, and linear layers and attention also backward.
///
/// # Panics
///
/// If the network is none of this library's.
pub fn operations(bench: &Bench, subject: &Subject, batch: usize) -> Vec<Measurement> {
    let block = block(subject.kind());
    let Block { n, d, heads, inner, kernel } = block;
    let (rows, size) = (batch * n, bench.size());
    let x: Tensor<3> = bench.values([batch, n, d]);
    let condition: Tensor<2> = bench.values([batch, d]);
    let wide: Tensor<3> = bench.values([batch, n, inner]);
    let mut found = Vec::new();
    let mut add = |name: &str, flops: f64, values: f64, call: &mut dyn FnMut()| {
        found.extend(bench.operation(format!("{name} {batch}"), flops, values * size, call));
    };
    let f = |n: usize| n as f64;
    for (name, from, to) in [("linear qkv", d, 3 * d), ("linear out", inner, d)] {
        let (given, weight) = (bench.values([batch, n, from]), bench.values([to, from]));
        let (flops, values) = (2.0 * f(rows * from) * f(to), f(rows * (from + to) + from * to));
        let bias: Tensor<1> = bench.values([to]);
        add(name, flops, values, &mut || {
            let _: Tensor<3> = linear(given.clone(), weight.clone(), Some(bias.clone()));
        });
        let leaves = || {
            let leaf = |x: &Tensor<3>| Tensor::from_inner(x.clone()).require_grad();
            let weight = Tensor::<2>::from_inner(weight.clone()).require_grad();
            (leaf(&given), weight)
        };
        add(&format!("{name} and its gradient"), 3.0 * flops, 3.0 * values, &mut || {
            let (x, w) = leaves();
            let gradients = linear(x.clone(), w.clone(), None).sum().backward();
            drop((x.grad(&gradients), w.grad(&gradients)));
        });
    }
    let (weight, bias): (Tensor<2>, Tensor<1>) = (bench.values([inner, d]), bench.values([inner]));
    let flops = 2.0 * f(rows * d) * f(inner);
    add("linear and gelu", flops, f(rows * (d + inner) + d * inner), &mut || {
        linear_gelu_tanh(x.clone(), weight.clone(), Some(bias.clone()));
    });
    let qkv: Tensor<3> = bench.values([batch, n, 3 * d]);
    let scale = (f(heads) / f(d)).sqrt();
    let side = n.isqrt();
    let (reach, seen) = match kernel {
        Some(kernel) => {
            (AttentionKind::Neighborhood { height: side, width: side, kernel }, kernel * kernel)
        }
        None => (AttentionKind::Global, n),
    };
    let flops = 4.0 * f(rows * seen) * f(d);
    add("attention", flops, f(4 * rows * d), &mut || {
        qkv_attention(qkv.clone(), heads, scale, QkTransform::Plain, reach);
    });
    let tracked = bench.device.clone().autodiff();
    let leaf = bench.values_on([batch, n, 3 * d], &tracked).cast(bench.precision);
    add("attention and its gradient", 3.5 * flops, f(12 * rows * d), &mut || {
        let leaf = leaf.clone().detach().require_grad();
        let out = qkv_attention(leaf.clone(), heads, scale, QkTransform::Plain, reach);
        leaf.grad(&out.sum().backward());
    });
    if let Some((transform, scale)) = preparation(bench, subject.kind(), &block) {
        add("attention, prepared", flops, f(4 * rows * d), &mut || {
            qkv_attention(qkv.clone(), heads, scale, transform.clone(), reach);
        });
    }
    let scores: Tensor<4> = bench.values([batch, heads, n, seen]);
    add("softmax", 0.0, f(2 * rows * heads * seen), &mut || {
        softmax(scores.clone());
    });
    let table = RotaryTable::new(Places::Line { count: n }, d / heads, &bench.device);
    let split: Tensor<4> = bench.values([batch, heads, n, d / heads]);
    add("rope", 0.0, f(4 * rows * d), &mut || {
        table.forward(split.clone());
        table.forward(split.clone());
    });
    for (name, kind) in
        [("layer norm", Normalization::LayerNorm), ("rms norm", Normalization::RmsNorm)]
    {
        add(&format!("{name}, modulated"), 0.0, f(2 * rows * d), &mut || {
            let (scale, shift) = (Some(condition.clone()), Some(condition.clone()));
            modulated_norm(x.clone(), kind, None, scale, shift, 1e-6);
        });
    }
    add("gated residual", 0.0, f(3 * rows * d), &mut || {
        gated_residual(x.clone(), x.clone(), condition.clone());
    });
    let pairs: Tensor<3> = Tensor::cat(vec![wide.clone(), wide], 2); // [B, N, 2·inner]
    add("swiglu", 0.0, f(3 * rows * inner), &mut || {
        swiglu(pairs.clone());
    });
    add("geglu", 0.0, f(3 * rows * inner), &mut || {
        geglu(pairs.clone());
    });
    let (last, last_bias): (Tensor<2>, Tensor<1>) = (bench.values([d, inner]), bench.values([d]));
    let flops = 2.0 * f(rows * d) * f(inner);
    add("gelu mlp", 2.0 * flops, f(2 * rows * d + 2 * d * inner), &mut || {
        let h = linear_gelu_tanh(x.clone(), weight.clone(), Some(bias.clone())); // [B, N, inner]
        linear(h, last.clone(), Some(last_bias.clone()));
    });
    let first: Tensor<2> = bench.values([2 * inner, d]);
    let first_bias: Tensor<1> = bench.values([2 * inner]);
    type Gate = fn(Tensor<3>) -> Tensor<3>;
    for (name, gate) in [("swiglu mlp", swiglu::<3> as Gate), ("geglu mlp", geglu::<3>)] {
        add(name, 3.0 * flops, f(2 * rows * d + 3 * d * inner), &mut || {
            let h = linear(x.clone(), first.clone(), Some(first_bias.clone())); // [B, N, 2·inner]
            linear(gate(h), last.clone(), Some(last_bias.clone()));
        });
    }
    found
}
