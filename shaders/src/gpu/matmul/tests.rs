//! Every plan against the plain operations on the processor. The only adapter of a machine for tests may be a
//! software GPU, which these products are not for; here they run on it all the same.

use burn::tensor::{DType, Device, DeviceKind, FloatDType, Tensor, TensorData, Tolerance};

use super::plan::{FEW, Tile};
use super::*;
use crate::plain;

const ALONG: Inner = Inner { a: true, b: true };

/// Reproducible values in −1…1, of eight bits so that float16 holds them, times `scale`.
fn values<const D: usize>(shape: [usize; D], scale: f32) -> TensorData {
    let mut state = shape.iter().sum::<usize>() as u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as f32 / 128.0 - 1.0) * scale
    };
    TensorData::new((0..shape.iter().product()).map(next).collect::<Vec<f32>>(), shape)
}

/// `x`, weight and bias of a layer whose results are about 1.
fn layer([m, n, k]: [usize; 3], device: &Device) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
    let scale = 1.0 / (k as f32).sqrt();
    let x = Tensor::from_data(values([m, k], 1.0), device);
    let weight = Tensor::from_data(values([n, k], scale), device);
    (x, weight, Tensor::from_data(values([n], 1.0), device))
}

fn plans(m: usize) -> impl Iterator<Item = Plan> {
    let few = (m <= FEW).then_some(Plan::FewRows);
    Tile::ALL.map(Plan::Tiles).into_iter().chain(few)
}

/// Holds the product of tensors on the GPU to one made elsewhere.
fn holds(
    plan: Plan,
    [a, b]: [&Tensor<2>; 2],
    inner: Inner,
    bias: Option<&Tensor<1>>,
    gelu: bool,
    expected: &Tensor<2>,
) {
    let [a, b] = [a, b].map(|x| x.clone().into_dispatch());
    let bias = bias.map(|x| x.clone().into_dispatch());
    let found = with_plan(plan, &a, &b, inner, bias.as_ref(), gelu).expect("the shapes fit");
    let found: Tensor<2> = Tensor::from_dispatch(found);
    let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-5);
    found.into_data().assert_approx_eq::<f32>(&expected.clone().into_data(), tolerance);
}

#[test]
fn every_plan_gives_the_plain_result() {
    let (gpu, processor) = (Device::wgpu(DeviceKind::Cpu), Device::flex());
    for sizes in [[1, 1, 1], [5, 7, 3], [64, 64, 64], [70, 130, 50], [8, 384, 1536], [257, 96, 33]]
    {
        let (x, weight, bias) = layer(sizes, &gpu);
        let (plain_x, plain_weight, plain_bias) = layer(sizes, &processor);
        let expected = plain::linear(plain_x.clone(), plain_weight.clone(), Some(plain_bias));
        for plan in plans(sizes[0]) {
            let bent = plain::gelu_tanh(expected.clone());
            holds(plan, [&x, &weight], ALONG, Some(&bias), true, &bent);
            if sizes[2] == 50 || sizes[2] == 1536 {
                holds(plan, [&x, &weight], ALONG, Some(&bias), false, &expected);
                let without = plain::linear(plain_x.clone(), plain_weight.clone(), None);
                holds(plan, [&x, &weight], ALONG, None, false, &without);
            }
        }
    }
}

#[test]
fn gradients_are_products_whose_rows_go_along_the_sum() {
    let (gpu, processor) = (Device::wgpu(DeviceKind::Cpu), Device::flex());
    for sizes in [[5, 7, 3], [64, 64, 64], [70, 130, 50]] {
        let [m, n, k] = sizes;
        let (x, weight, _) = layer(sizes, &gpu);
        let (plain_x, plain_weight, _) = layer(sizes, &processor);
        let gradient = values([m, n], 1.0 / (n.max(m) as f32).sqrt());
        let plain_gradient: Tensor<2> = Tensor::from_data(gradient.clone(), &processor);
        let gradient: Tensor<2> = Tensor::from_data(gradient, &gpu);
        let of_x = plain_gradient.clone().matmul(plain_weight);
        let of_weight = plain_gradient.transpose().matmul(plain_x);
        assert_eq!((of_x.dims(), of_weight.dims()), ([m, k], [n, k]));
        for tile in Tile::ALL {
            let plan = Plan::Tiles(tile);
            let (along, across) = (Inner { a: true, b: false }, Inner { a: false, b: false });
            holds(plan, [&gradient, &weight], along, None, false, &of_x);
            holds(plan, [&gradient, &x], across, None, false, &of_weight);
        }
    }
}

/// The factors are exact, and so one rounding is left: that of the result.
#[test]
fn sums_of_half_precision_are_in_float32() {
    let (gpu, processor) = (Device::wgpu(DeviceKind::Cpu), Device::flex());
    for sizes in [[3, 72, 1024], [40, 72, 1024]] {
        let (x, weight, _) = layer(sizes, &gpu);
        let [x, weight] = [x, weight].map(|x| x.cast(FloatDType::F16).into_dispatch());
        let result = multiply(&x, &weight, ALONG, None, false).expect("the shapes fit");
        assert_eq!(result.dtype(), DType::F16);
        let result: Tensor<2> = Tensor::from_dispatch(result);
        let (x, weight, _) = layer(sizes, &processor);
        let expected = plain::linear(x, weight, None).into_data();
        let tolerance = Tolerance::<f32>::rel_abs(1e-3, 1e-4);
        result.cast(FloatDType::F32).into_data().assert_approx_eq::<f32>(&expected, tolerance);
    }
}

/// A part of a larger tensor, and one value for all places.
#[test]
fn factors_need_not_be_contiguous() {
    let (gpu, processor) = (Device::wgpu(DeviceKind::Cpu), Device::flex());
    let factors = |device: &Device| -> [Tensor<2>; 3] {
        let (x, weight, _) = layer([40, 36, 24], device);
        let part = x.narrow(1, 8, 12);
        [part.clone(), weight.narrow(1, 4, 12), part.narrow(0, 0, 1).expand([40, 12])]
    };
    let ([x, weight, same], plain) = (factors(&gpu), factors(&processor));
    let [plain_x, plain_weight, plain_same] = plain;
    for plan in plans(40) {
        let expected = plain::linear(plain_x.clone(), plain_weight.clone(), None);
        holds(plan, [&x, &weight], ALONG, None, false, &expected);
        let expected = plain::linear(plain_same.clone(), plain_weight.clone(), None);
        holds(plan, [&same, &weight], ALONG, None, false, &expected);
    }
}

#[test]
fn shapes_that_do_not_fit_are_left_to_burn() {
    let gpu = Device::wgpu(DeviceKind::Cpu);
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &gpu).into_dispatch();
    let bias = Tensor::<1>::ones([5], &gpu).into_dispatch();
    assert!(multiply(&ones([3, 4]), &ones([5, 6]), ALONG, None, false).is_none());
    assert!(multiply(&ones([3, 4]), &ones([6, 4]), ALONG, Some(&bias), false).is_none());
}
