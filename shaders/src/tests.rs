//! Kernels for the CPU against their reference implementations, odd sizes and batch size 1 included.

#[allow(dead_code)] // some are of kernels for GPUs alone
#[path = "../tests/cases/mod.rs"]
mod cases;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use burn::backend::DispatchTensor;
use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, TensorData, Tolerance};
use cases::{Body, Flat};

use crate::cpu::attention::Attention;
use crate::cpu::convolution::Convolution;
use crate::cpu::group_norm::GroupNormSilu;
use crate::cpu::linear::Linear;
use crate::cpu::pool::{Kind, Pool};
use crate::cpu::qkv::QkvAttention;
use crate::cpu::upsample::UpsampleConvolution;
use crate::gradient::{Operation, apply};
use crate::preparation::Preparation;
use crate::{AdamWStep, AdamWUpdate, AttentionKind, QkTransform, StepGuard, cpu, plain};

/// Held by tests of functions that choose a kernel, and alone by the test that switches kernels off.
static SWITCH: RwLock<()> = RwLock::new(());

fn kernels() -> RwLockReadGuard<'static, ()> {
    SWITCH.read().unwrap_or_else(PoisonError::into_inner)
}

fn values<const D: usize>(shape: [usize; D], seed: u32) -> Tensor<D> {
    Tensor::from_data(cases::values(shape, seed), &Device::flex())
}

/// An operation's result on tensors that are not tracked.
fn run<const D: usize>(
    operation: impl Operation + 'static,
    inputs: Vec<DispatchTensor>,
) -> Tensor<D> {
    let result = apply(Arc::new(operation), inputs);
    Tensor::from_dispatch(result.expect("the kernel applies to float32 on the CPU"))
}

fn same<const D: usize>(fused: Tensor<D>, plain: Tensor<D>) {
    let tolerance = Tolerance::rel_abs(2e-5, 1e-5);
    fused.into_data().assert_approx_eq::<f32>(&plain.into_data(), tolerance);
}

#[test]
fn linear() {
    for [rows, k, n] in [[1, 7, 5], [3, 256, 1536], [15, 33, 64], [16, 31, 9], [257, 64, 100]] {
        let (w, b): (Tensor<2>, Tensor<1>) = (values([n, k], 2), values([n], 3));
        let x: Tensor<2> = values([rows, k], 1);
        let reference = plain::linear(x.clone(), w.clone(), Some(b.clone()));
        same(run(Linear { gelu: false }, given!(x, w, b)), reference);
        let x: Tensor<3> = x.reshape([1, rows, k]);
        let reference = plain::linear(x.clone(), w.clone(), Some(b.clone()));
        same(run(Linear { gelu: false }, given!(x, w, b)), reference);
        let reference = plain::gelu_tanh(plain::linear(x.clone(), w.clone(), None));
        same(run(Linear { gelu: true }, given!(x, w)), reference);
    }
}

/// One panel and several, the products that gemm sums in ways of their own, and rows in pieces.
#[test]
fn weights_of_16_bits_give_the_bits_of_widened_ones() {
    let sizes = [[1, 7, 5], [1, 1030, 700], [3, 33, 70], [3, 600, 1000], [60, 1030, 650]];
    let pieces = [[100, 640, 600], [129, 31, 257], [256, 1030, 500]];
    for [rows, k, n] in sizes.into_iter().chain(pieces) {
        let x: Tensor<2> = values([rows, k], 1);
        let tokens: Tensor<3> = x.clone().reshape([1, rows, k]);
        for dtype in [FloatDType::F16, FloatDType::BF16] {
            let w = values([n, k], 2).cast(dtype);
            let wide: Tensor<2> = w.clone().cast(FloatDType::F32);
            assert_eq!(w.dtype(), DType::from(dtype));
            for (bias, gelu) in [(None, false), (Some(values([n], 3)), true)] {
                let layer = Linear { gelu };
                let found: Tensor<2> = run(layer, given!(x, w ; bias));
                let expected: Tensor<2> = run(layer, given!(x, wide ; bias));
                found.into_data().assert_eq(&expected.into_data(), true);
                let found: Tensor<3> = run(layer, given!(tokens, w ; bias));
                let expected: Tensor<3> = run(layer, given!(tokens, wide ; bias));
                found.into_data().assert_eq(&expected.into_data(), true);
            }
            let plain = plain::linear(x.clone(), w, None);
            plain.into_data().assert_eq(&plain::linear(x.clone(), wide, None).into_data(), true);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let (w, b): (Tensor<2>, Tensor<1>) = (values([96, 48], 2), values([96], 3));
    let layer = Linear { gelu: false };
    for rows in [1usize, 3, 20, 300] {
        let x: Tensor<2> = values([rows, 48], 1);
        let tokens = |x: Tensor<2>| -> Tensor<3> { x.reshape([1, -1, 48]) };
        let of = |x: Tensor<2>| -> Tensor<2> { run(layer, given!(x, w, b)) };
        let of_tokens = |x: Tensor<2>| -> Tensor<3> { run(layer, given!(tokens(x), w, b)) };
        let twice = Tensor::cat(vec![x.clone(), x.clone()], 0);
        let again = of(twice.clone()).narrow(0, rows, rows);
        of(x.clone()).into_data().assert_eq(&again.into_data(), true);
        if rows > 1 {
            let again = of_tokens(twice).narrow(1, rows, rows);
            of_tokens(x).into_data().assert_eq(&again.into_data(), true);
        }
    }
}

/// One token, small products, deep ones, and a single feature.
#[test]
fn the_tokens_of_an_image_do_not_depend_on_its_neighbours() {
    for [tokens, k, n] in [[1, 600, 40], [2, 30, 9], [64, 1152, 32], [300, 20, 1]] {
        let w: Tensor<2> = values([n, k], 2);
        let of = |x: Tensor<3>| -> Tensor<3> { run(Linear { gelu: false }, given!(x, w)) };
        let x: Tensor<3> = values([1, tokens, k], 1);
        let expected = plain::linear(x.clone(), w.clone(), None).into_data();
        close(&of(x.clone()).into_data(), &expected, 1e-5);
        let batch = Tensor::cat(vec![x.clone() * 2.0, x.clone()], 0);
        of(x).into_data().assert_eq(&of(batch).narrow(0, 1, 1).into_data(), true);
    }
}

/// The results of `f` on so many threads.
pub(crate) fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("threads start").install(f)
}

#[test]
fn layers_give_the_same_bits_on_any_number_of_threads() {
    for [rows, k, n] in [[300, 700, 500], [130, 1030, 3], [600, 40, 1]] {
        let of = || {
            let (x, w): (Tensor<3>, Tensor<2>) = (values([1, rows, k], 1), values([n, k], 2));
            let y: Tensor<3> = run(Linear { gelu: false }, given!(x, w));
            y.into_data()
        };
        let found = on(1, of);
        for threads in [3, 8] {
            found.assert_eq(&on(threads, of), true);
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_neighbours() {
    let (weight, bias): (Tensor<4>, Tensor<1>) = (values([10, 6, 3, 3], 2), values([10], 3));
    let layer =
        Convolution { stride: 1, padding: [1, 1], bias: true, residual: false, relu: false };
    let of = |x: Tensor<4>| -> Tensor<4> { run(layer, given!(x, weight, bias)) };
    let x: Tensor<4> = values([1, 6, 40, 33], 1);
    let batch = Tensor::cat(vec![x.clone() * 2.0, x.clone()], 0);
    of(x).into_data().assert_eq(&of(batch).narrow(0, 1, 1).into_data(), true);
}

#[test]
fn an_image_is_upsampled_whatever_its_neighbours_are() {
    let (weight, bias): (Tensor<4>, Tensor<1>) = (values([10, 6, 3, 3], 2), values([10], 3));
    let of = |x: Tensor<4>| -> Tensor<4> { run(UpsampleConvolution, given!(x, weight, bias)) };
    let x: Tensor<4> = values([1, 6, 40, 33], 1);
    let batch = Tensor::cat(vec![x.clone() * 2.0, x.clone()], 0);
    of(x).into_data().assert_eq(&of(batch).narrow(0, 1, 1).into_data(), true);
}

#[test]
fn convolutions_with_a_relu() {
    cases::rectified_convolutions(&mut results);
}

#[test]
fn pools() {
    for [b, c, h, w] in [[1, 1, 3, 3], [2, 5, 7, 10], [1, 70, 33, 18], [3, 2, 4, 150]] {
        let x: Tensor<4> = values([b, c, h, w], 1) - 2.0; // below what padding might be taken for
        for [window, stride, padding] in [[3, 2, 0], [3, 1, 1], [2, 2, 0], [5, 3, 2]] {
            let pool = Pool { kind: Kind::Max, window, stride, padding };
            let found: Tensor<4> = run(pool, given!(x));
            let expected = plain::max_pool(x.clone(), window, stride, padding);
            found.into_data().assert_eq(&expected.into_data(), true);
        }
        for window in [1, 3, 5] {
            let pool = Pool { kind: Kind::Mean, window, stride: 1, padding: window / 2 };
            same(run(pool, given!(x)), plain::mean_pool(x.clone(), window));
        }
    }
}

#[test]
fn attention() {
    for [b, n, heads, d] in [[1, 1, 1, 8], [2, 36, 3, 16], [1, 64, 2, 72], [2, 130, 4, 5]] {
        let qkv: Tensor<3> = values([b, n, 3 * heads * d], 4);
        let scale = 1.0 / (d as f64).sqrt();
        let reach = AttentionKind::Global;
        let operation = QkvAttention { heads, scale, preparation: Preparation::Plain, reach };
        let fused = run(operation, given!(qkv));
        same(fused, plain::qkv_attention(qkv, heads, scale, QkTransform::Plain, reach));
    }
    for n in [1, 64, 100, 128] {
        let (q, k): (Tensor<4>, Tensor<4>) = (values([2, 3, n, 24], 5), values([2, 3, 50, 24], 6));
        let v: Tensor<4> = values([2, 3, 50, 10], 7);
        let fused = run(Attention { scale: 0.3 }, given!(q, k, v));
        same(fused, plain::attention(q, k, v, 0.3, None));
    }
}

/// True in a third of the places, and nowhere for the first key.
fn mask(shape: [usize; 4]) -> Tensor<4, Bool> {
    let (count, keys): (usize, usize) = (shape.iter().product(), shape[3]);
    let values: Vec<bool> = (0..count).map(|i| i % keys > 0 && i % 3 == 0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

#[test]
fn masked_attention() {
    let _on = kernels();
    for [b, n, m] in [[1, 1, 1], [2, 37, 50], [1, 64, 64]] {
        let (q, k): (Tensor<4>, Tensor<4>) = (values([b, 3, n, 24], 5), values([b, 3, m, 24], 6));
        let v: Tensor<4> = values([b, 3, m, 10], 7);
        let mask = mask([b, 1, n, m]);
        let fused = crate::attention(q.clone(), k.clone(), v.clone(), 0.3, Some(mask.clone()));
        same(fused, plain::attention(q, k, v, 0.3, Some(mask.clone())));
        let scores: Tensor<4> = values([b, 1, n, m], 8).mask_fill(mask.clone(), f32::NEG_INFINITY);
        let weights: Tensor<4> = run(cpu::softmax::Softmax, given!(scores));
        let masked = weights.zeros_like().mask_where(mask, weights);
        masked.clone().into_data().assert_eq(&masked.zeros_like().into_data(), true);
    }
}

#[test]
fn rows_of_a_softmax_do_not_depend_on_their_neighbours() {
    let x: Tensor<3> = values([9, 40, 100], 1) * 20.0;
    let all: Tensor<3> = run(cpu::softmax::Softmax, given!(x));
    let row: Tensor<3> = x.narrow(0, 7, 1).narrow(1, 33, 1);
    let alone: Tensor<3> = run(cpu::softmax::Softmax, given!(row));
    all.narrow(0, 7, 1).narrow(1, 33, 1).into_data().assert_eq(&alone.into_data(), true);
}

#[test]
fn prepared_and_neighborhood_attention() {
    for ([b, height, width, heads, d], kernel) in
        [([1, 1, 1, 2, 8], 1), ([2, 5, 7, 3, 16], 3), ([1, 9, 8, 2, 64], 7)]
    {
        let n = height * width;
        let qkv: Tensor<3> = values([b, n, 3 * heads * d], 1);
        let transforms = [
            QkTransform::Plain,
            QkTransform::Rotary { cos: values([n, d], 2), sin: values([n, d], 3) },
            QkTransform::Cosine {
                scale: values([heads], 4) + 2.0,
                freqs: values([heads, d / 8], 5) * 9.0,
                height,
                width,
            },
        ];
        for transform in transforms {
            for reach in
                [AttentionKind::Global, AttentionKind::Neighborhood { height, width, kernel }]
            {
                let (preparation, inputs) = Preparation::of(&transform, &qkv);
                let fused = run(QkvAttention { heads, scale: 0.3, preparation, reach }, inputs);
                let transform = transform.clone();
                same(fused, plain::qkv_attention(qkv.clone(), heads, 0.3, transform, reach));
            }
        }
    }
}

/// Tables of rotations are in float32 in a network of any precision.
#[test]
fn queries_of_16_bits_are_rotated() {
    let _on = kernels();
    let qkv: Tensor<3> = values([2, 6, 3 * 2 * 8], 1);
    let attention = |qkv: Tensor<3>| -> Tensor<3> {
        let transform = QkTransform::Rotary { cos: values([6, 8], 2), sin: values([6, 8], 3) };
        crate::qkv_attention(qkv, 2, 0.3, transform, AttentionKind::Global)
    };
    let expected = attention(qkv.clone()).into_data();
    for dtype in [FloatDType::F16, FloatDType::BF16] {
        let found = attention(qkv.clone().cast(dtype));
        assert_eq!(found.dtype(), DType::from(dtype));
        close(&found.cast(FloatDType::F32).into_data(), &expected, 3e-2);
    }
}

#[test]
fn group_norms() {
    for [b, c, h, w, groups] in [[1, 4, 1, 1, 2], [2, 32, 5, 7, 8], [1, 64, 33, 31, 32]] {
        let x = values([b, c, h, w], 12);
        let (weight, bias) = (values([c], 13), values([c], 14));
        let fused = run(GroupNormSilu { groups, eps: 1e-6 }, given!(x, weight, bias));
        same(fused, plain::group_norm_silu(x, weight, bias, groups, 1e-6));
    }
}

#[test]
fn adamw_writes_to_what_nobody_else_holds() {
    let _on = kernels();
    let step = AdamWStep {
        betas: [0.9, 0.999],
        decay: 1.0 - 1e-4,
        rate: 1e-3 / (1.0 - 0.9f64.powi(3)),
        root: 1.0 / (1.0 - 0.999f64.powi(3)).sqrt(),
        eps: 1e-8,
    };
    for n in [1, 7, 40_000] {
        let row = |seed| -> Flat { values([n], seed) };
        let (p, g, first, second) = (row(1), row(2), row(3), row(4).abs());
        assert!(cpu::lists::takes([&p, &g, &first, &second]));
        let numbers = crate::sum_of_squares(vec![g.clone()]);
        let guard = StepGuard { numbers, max_norm: Some(0.1) };
        let update = || AdamWUpdate {
            parameter: p.clone(),
            gradient: g.clone(),
            moments: [first.clone(), second.clone()],
            averages: vec![(p.clone(), 0.1)],
            step,
        };
        let found = crate::adamw_all(vec![update()], &guard).remove(0);
        p.clone().into_data().assert_eq(&row(1).into_data(), true);
        first.clone().into_data().assert_eq(&row(3).into_data(), true);
        let expected = plain::adamw_all(vec![update()], &guard).remove(0);
        same(found.parameter, expected.parameter);
        for (found, expected) in found.moments.into_iter().zip(expected.moments) {
            same(found, expected);
        }
        same(found.averages[0].clone(), expected.averages[0].clone());
    }
}

#[test]
#[should_panic(expected = "the sizes of parameter, gradient, moments and averages")]
fn adamw_refuses_other_sizes() {
    let row = |n: usize| -> Flat { values([n], 1) };
    let step = AdamWStep { betas: [0.9, 0.999], decay: 1.0, rate: 1e-3, root: 1.0, eps: 1e-8 };
    let averages = vec![(row(4), 0.1)];
    let update = AdamWUpdate {
        parameter: row(3),
        gradient: row(3),
        moments: [row(3), row(3)],
        averages,
        step,
    };
    crate::adamw_all(vec![update], &StepGuard { numbers: row(1), max_norm: None });
}

#[test]
fn use_plain_switches_kernels_off() {
    let _alone = SWITCH.write().unwrap_or_else(PoisonError::into_inner);
    let x: Tensor<2> = values([20, 60], 1) * 3.0;
    let bits = |x: Tensor<2>| x.into_data().try_to_vec::<f32>().expect("float32");
    let expected = bits(plain::gelu_tanh(x.clone()));
    assert!(bits(crate::gelu_tanh(x.clone())) != expected, "the kernel's exponential is its own");
    crate::use_plain(true);
    let found = bits(crate::gelu_tanh(x));
    crate::use_plain(false);
    assert!(found == expected);
}

/// Holds two rows of values to each other by the norm of their difference.
fn close(found: &TensorData, expected: &TensorData, tolerance: f64) {
    let [found, expected] =
        [found, expected].map(|x| x.try_to_vec::<f32>().expect("float32 values"));
    assert_eq!(found.len(), expected.len());
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = expected.iter().map(|&v| square(v)).sum();
    // A gradient may be zero, as that of the only key; both have rounding errors then.
    let floor = 1e-6 * (found.len() as f64).sqrt();
    let (error, norm) = (error.sqrt(), norm.sqrt());
    assert!(error <= tolerance * norm + floor, "an error of {error} of {norm}");
}

/// Holds the results of an operation to those of the plain one.
fn results(inputs: &[TensorData], fused: Body<'_>, plain: Body<'_>, _: f32) {
    let _on = kernels();
    let leaf = |x: &TensorData| -> Flat { Tensor::from_data(cases::flat(x), &Device::flex()) };
    let inputs: Vec<Flat> = inputs.iter().map(leaf).collect();
    close(&fused(&inputs).into_data(), &plain(&inputs).into_data(), 1e-5);
}

#[cfg(feature = "autodiff")]
mod gradients {
    use burn::backend::DispatchTensorKind;

    use super::*;
    use crate::cpu::gelu::GeluTanh;
    use crate::cpu::glu::Glu;
    use crate::cpu::norm::{GatedResidual, Norm};
    use crate::cpu::softmax::Softmax;

    /// The gradients of a weighted sum of results.
    fn of(inputs: &[TensorData], body: Body<'_>) -> Vec<TensorData> {
        let device = Device::flex().autodiff();
        let leaf = |x| -> Flat { Tensor::from_data(cases::flat(x), &device).require_grad() };
        let leaves: Vec<Flat> = inputs.iter().map(leaf).collect();
        let y = body(&leaves);
        let weights: Flat = Tensor::from_data(cases::values(y.dims(), 99), &device);
        let gradients = (y * weights).sum().backward();
        leaves.iter().map(|x| x.grad(&gradients).expect("it has one").into_data()).collect()
    }

    /// Holds them to those of the plain operation, and to themselves.
    pub fn same(inputs: &[TensorData], fused: Body<'_>, plain: Body<'_>, _: f32) {
        let _on = kernels();
        let found = of(inputs, fused);
        for (found, expected) in found.iter().zip(of(inputs, plain)) {
            close(found, &expected, 2e-5);
        }
        for (found, again) in found.iter().zip(of(inputs, fused)) {
            found.assert_eq(&again, true);
        }
    }

    /// Holds them to differences.
    pub fn slopes(inputs: &[TensorData], fused: Body<'_>, _: Body<'_>, _: f32) {
        let _on = kernels();
        cases::slopes(&Device::flex(), inputs, fused);
    }

    #[test]
    fn convolutions_with_a_relu() {
        cases::rectified_convolutions(&mut same);
    }

    /// Pooling has no gradient of its own.
    #[test]
    fn pools_get_theirs_from_the_plain_operation() {
        let with = |f: fn(Tensor<4>, usize, usize, usize) -> Tensor<4>| {
            move |x: &[Flat]| -> Flat {
                f(x[0].clone().reshape([2, 3, 7, 9]), 2, 2, 0).reshape([-1])
            }
        };
        let inputs = [cases::values([2, 3, 7, 9], 1)];
        same(&inputs, &with(crate::max_pool), &with(plain::max_pool), 0.0);
    }

    #[test]
    fn masked_attention() {
        let shape = [2, 3, 33, 16];
        let inputs = [1, 2, 3].map(|seed| cases::values(shape, seed));
        type Attention =
            fn(Tensor<4>, Tensor<4>, Tensor<4>, f64, Option<Tensor<4, Bool>>) -> Tensor<4>;
        let with = |f: Attention| {
            move |x: &[Flat]| -> Flat {
                let [q, k, v] = [0, 1, 2].map(|i| -> Tensor<4> { x[i].clone().reshape(shape) });
                let device = q.device();
                let mask = Tensor::from_data(mask([2, 1, 33, 33]).into_data(), &device);
                f(q * 3.0, k, v, 0.3, Some(mask)).reshape([-1])
            }
        };
        same(&inputs, &with(crate::attention), &with(plain::attention), 0.0);
    }

    /// Few rows, as conditions have, and one more than few.
    #[test]
    fn layers_of_conditions() {
        type Layer = fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>;
        for [rows, n, k] in [[1, 6, 5], [3, 600, 40], [32, 300, 17], [33, 50, 64]] {
            let inputs =
                [cases::values([rows, k], 1), cases::values([n, k], 2), cases::values([n], 3)];
            let with = |f: Layer| {
                move |x: &[Flat]| -> Flat {
                    let weight = x[1].clone().reshape([n, k]) / (k as f64).sqrt();
                    f(x[0].clone().reshape([rows, k]), weight, Some(x[2].clone())).reshape([-1])
                }
            };
            let gelu: Layer = |x, weight, bias| plain::gelu_tanh(plain::linear(x, weight, bias));
            same(&inputs, &with(crate::linear), &with(plain::linear), 0.0);
            same(&inputs, &with(crate::linear_gelu_tanh), &with(gelu), 0.0);
        }
    }

    #[test]
    fn weights_of_16_bits_get_theirs_from_the_plain_operation() {
        let _on = kernels();
        let device = Device::flex().autodiff();
        let x: Tensor<3> = Tensor::from_data(cases::values([2, 3, 8], 1), &device).require_grad();
        let narrow: Tensor<2> = Tensor::from_data(cases::values([6, 8], 2), (&device, DType::F16));
        let wide = narrow.clone().cast(FloatDType::F32);
        let of = |weight: Tensor<2>| {
            let weight = weight.detach().require_grad();
            let y = crate::linear_gelu_tanh(x.clone(), weight.clone(), None);
            let gradients = y.sum().backward();
            let of_weight = weight.grad(&gradients).expect("it has one").into_data();
            let of_x = x.grad(&gradients).expect("it has one").into_data();
            (of_x, of_weight.convert::<f32>())
        };
        let layer = Arc::new(Linear { gelu: true });
        assert!(apply(layer, given!(x, narrow)).is_none());
        let ((x, weight), (expected_x, expected_weight)) = (of(narrow), of(wide));
        close(&x, &expected_x, 2e-5);
        close(&weight, &expected_weight, 1e-3); // rounded to 16 bits
    }

    #[test]
    fn what_is_frozen_gets_none() {
        let device = Device::flex().autodiff();
        let x: Tensor<3> = Tensor::from_data(cases::values([3, 5, 8], 1), &device);
        let weight: Tensor<2> = Tensor::from_data(cases::values([6, 8], 2), &device);
        let bias: Tensor<1> = Tensor::from_data(cases::values([6], 3), &device).require_grad();
        let layer = Arc::new(Linear { gelu: false });
        let y = apply(layer, given!(x, weight, bias)).expect("the kernel applies");
        let gradients = Tensor::<3>::from_dispatch(y).sum().backward();
        let found = bias.grad(&gradients).expect("it has one").into_data();
        found.assert_eq(&TensorData::new(vec![15.0f32; 6], [6]), true);
        assert!(x.grad(&gradients).is_none() && weight.grad(&gradients).is_none());
    }

    #[test]
    fn every_operation_is_tracked() {
        let device = Device::flex().autodiff();
        let leaf = |shape| -> Tensor<3> {
            Tensor::from_data(cases::values(shape, 1), &device).require_grad()
        };
        let x = leaf([2, 4, 48]);
        let row: Tensor<2> = leaf([1, 2, 48]).reshape([2, 48]);
        let weight: Tensor<2> = leaf([1, 8, 48]).reshape([8, 48]);
        let heads: Tensor<4> = x.clone().reshape([2, 4, 2, 24]);
        let image: Tensor<4> = leaf([2, 4, 48]).reshape([2, 4, 6, 8]);
        let window: Tensor<4> = leaf([3, 4, 9]).reshape([3, 4, 3, 3]);
        let bias: Tensor<1> = leaf([1, 1, 3]).reshape([3]);
        let rectified =
            Convolution { stride: 1, padding: [1, 1], bias: true, residual: false, relu: true };
        let norm = Norm { centred: true, eps: 1e-6, weight: false, scale: true, shift: true };
        let attention = QkvAttention {
            heads: 2,
            scale: 1.0,
            preparation: Preparation::Plain,
            reach: AttentionKind::Neighborhood { height: 2, width: 2, kernel: 1 },
        };
        let operations: [(Arc<dyn Operation>, _); 11] = [
            (Arc::new(Linear { gelu: true }), given!(x, weight)),
            (Arc::new(GeluTanh), given!(x)),
            (Arc::new(Softmax), given!(x)),
            (Arc::new(Glu::Swiglu), given!(x)),
            (Arc::new(Glu::Geglu), given!(x)),
            (Arc::new(norm), given!(x, row, row)),
            (Arc::new(GatedResidual), given!(x, x, row)),
            (Arc::new(Attention { scale: 1.0 }), given!(heads, heads, heads)),
            (Arc::new(attention), given!(x)),
            (Arc::new(rectified), given!(image, window, bias)),
            (Arc::new(UpsampleConvolution), given!(image, window, bias)),
        ];
        for (operation, inputs) in operations {
            let name = format!("{operation:?}");
            let result = apply(operation, inputs).unwrap_or_else(|| panic!("{name} refuses"));
            assert!(matches!(result.kind, DispatchTensorKind::Autodiff(_)), "{name}");
        }
    }
}

macro_rules! families {
    ($($family:ident),*) => {
        mod same_results { $(#[test] fn $family() { super::cases::$family(&mut super::results); })* }
        #[cfg(feature = "autodiff")]
        mod same_gradients {
            $(#[test] fn $family() { super::cases::$family(&mut super::gradients::same); })*
        }
        #[cfg(feature = "autodiff")]
        mod differences {
            $(#[test] fn $family() { super::cases::$family(&mut super::gradients::slopes); })*
        }
    };
}
families!(
    norms,
    gates,
    activations,
    attention,
    packed_attention,
    softmaxes,
    products,
    convolutions,
    upsampled_convolutions,
    group_norms,
    rotations
);
