//! Fused CPU kernels against their reference implementations, odd sizes and batch size 1 included.

use burn::tensor::{Device, Tensor, TensorData, Tolerance};

use crate::{AttentionKind, Normalization, QkTransform, cpu, plain};

/// Reproducible values in about −1…1.
fn values<const D: usize>(shape: [usize; D], seed: u32) -> Tensor<D> {
    let count = shape.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..count).map(next).collect();
    Tensor::from_data(TensorData::new(data, shape), &Device::flex())
}

fn same<const D: usize>(fused: Option<Tensor<D>>, plain: Tensor<D>) {
    let fused = fused.expect("the fused kernel applies to float32 on the CPU").into_data();
    fused.assert_approx_eq::<f32>(&plain.into_data(), Tolerance::rel_abs(2e-5, 1e-5));
}

#[test]
fn linear() {
    for [rows, k, n] in [[1, 7, 5], [3, 256, 1536], [15, 33, 64], [16, 31, 9], [257, 64, 100]] {
        let (w, b) = (values([n, k], 2), values([n], 3));
        let x: Tensor<2> = values([rows, k], 1);
        let fused = cpu::linear(&x, &w, Some(&b), cpu::Epilogue::None);
        same(fused, plain::linear(x.clone(), w.clone(), Some(b.clone())));
        let x: Tensor<3> = x.reshape([1, rows, k]);
        let fused = cpu::linear(&x, &w, Some(&b), cpu::Epilogue::None);
        same(fused, plain::linear(x.clone(), w.clone(), Some(b.clone())));
        let fused = cpu::linear(&x, &w, None, cpu::Epilogue::GeluTanh);
        same(fused, plain::gelu_tanh(plain::linear(x, w, None)));
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (w, b) = (values([96, 48], 2), values([96], 3));
    for rows in [1usize, 3, 20, 300] {
        let x: Tensor<2> = values([rows, 48], 1);
        let tokens = |x: Tensor<2>| x.reshape([1, -1, 48]) as Tensor<3>;
        let of = |x: Tensor<2>| cpu::linear(&x, &w, Some(&b), cpu::Epilogue::None).unwrap();
        let of_tokens = |x| cpu::linear(&tokens(x), &w, Some(&b), cpu::Epilogue::None).unwrap();
        let twice = Tensor::cat(vec![x.clone(), x.clone()], 0);
        let again = of(twice.clone()).narrow(0, rows, rows);
        of(x.clone()).into_data().assert_eq(&again.into_data(), true);
        if rows > 1 {
            let again = of_tokens(twice).narrow(1, rows, rows);
            of_tokens(x).into_data().assert_eq(&again.into_data(), true);
        }
    }
}

#[test]
fn attention() {
    for [b, n, heads, d] in [[1, 1, 1, 8], [2, 36, 3, 16], [1, 64, 2, 72], [2, 130, 4, 5]] {
        let qkv = values([b, n, 3 * heads * d], 4);
        let scale = 1.0 / (d as f64).sqrt();
        let fused = cpu::qkv_attention(&qkv, heads, scale);
        same(
            fused,
            plain::qkv_attention(qkv, heads, scale, QkTransform::Plain, AttentionKind::Global),
        );
    }
    let (q, k) = (values([2, 3, 128, 24], 5), values([2, 3, 50, 24], 6));
    let v = values([2, 3, 50, 10], 7);
    let fused = cpu::attention(&q, &k, &v, 0.3);
    same(fused, plain::attention(q, k, v, 0.3, None));
}

#[test]
fn prepared_and_neighborhood_attention() {
    for ([b, height, width, heads, d], kernel) in
        [([1, 1, 1, 2, 8], 1), ([2, 5, 7, 3, 16], 3), ([1, 9, 8, 2, 64], 7)]
    {
        let n = height * width;
        let qkv: Tensor<3> = values([b, n, 3 * heads * d], 1);
        let preparations = [
            QkTransform::Plain,
            QkTransform::Rotary { cos: values([n, d], 2), sin: values([n, d], 3) },
            QkTransform::Cosine {
                scale: values([heads], 4) + 2.0,
                freqs: values([heads, d / 8], 5) * 9.0,
                height,
                width,
            },
        ];
        for preparation in preparations {
            for reach in
                [AttentionKind::Global, AttentionKind::Neighborhood { height, width, kernel }]
            {
                let fused =
                    crate::qkv_attention(qkv.clone(), heads, 0.3, preparation.clone(), reach);
                let reference =
                    plain::qkv_attention(qkv.clone(), heads, 0.3, preparation.clone(), reach);
                same(Some(fused), reference);
            }
        }
        let prepared = cpu::prepare(&qkv, heads, &QkTransform::Plain);
        let image = [height, width, kernel];
        assert!(prepared.and_then(|qkv| cpu::qkv_neighborhood(&qkv, heads, 0.3, image)).is_some());
    }
}

#[test]
fn gated_linear_units() {
    for [n, d] in [[1, 1], [17, 50], [40, 256]] {
        let x: Tensor<2> = values([n, 2 * d], 1) * 4.0;
        same(cpu::swiglu(&x), plain::swiglu(x.clone()));
        same(cpu::geglu(&x), plain::geglu(x));
    }
}

#[test]
fn norms_and_residuals() {
    for [b, n, d] in [[1, 1, 4], [3, 17, 100], [2, 256, 256]] {
        let (x, y) = (values([b, n, d], 8), values([b, n, d], 9));
        let (shift, scale) = (values([b, d], 10), values([b, d], 11));
        let fused = cpu::layer_norm_modulate(&x, &shift, &scale, 1e-6);
        let kind = Normalization::LayerNorm;
        let (of, add) = (Some(scale.clone()), Some(shift));
        same(fused, plain::modulated_norm(x.clone(), kind, None, of, add, 1e-6));
        same(cpu::gated_residual(&x, &y, &scale), plain::gated_residual(x.clone(), y, scale));
        same(cpu::gelu_tanh(&x), plain::gelu_tanh(x));
    }
    for [b, c, h, w, groups] in [[1, 4, 1, 1, 2], [2, 32, 5, 7, 8], [1, 64, 33, 31, 32]] {
        let x = values([b, c, h, w], 12);
        let (weight, bias) = (values([c], 13), values([c], 14));
        let fused = cpu::group_norm_silu(&x, &weight, &bias, groups, 1e-6);
        same(fused, plain::group_norm_silu(x, weight, bias, groups, 1e-6));
    }
}

#[cfg(feature = "autodiff")]
#[test]
fn gradients_take_the_plain_way() {
    let x = values([2, 20, 8], 1);
    let x = Tensor::<3>::from_data(x.into_data(), &Device::flex().autodiff()).require_grad();
    let w = Tensor::<2>::from_data(values([6, 8], 2).into_data(), &x.device());
    assert!(cpu::linear(&x, &w, None, cpu::Epilogue::None).is_none());
    let loss = crate::linear(x.clone(), w.clone(), None).sum();
    let grad = x.grad(&loss.backward()).expect("a gradient flows");
    let expected = w.inner().sum_dim(0).reshape([1, 1, 8]).expand([2, 20, 8]);
    grad.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
}
