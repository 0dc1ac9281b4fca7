//! Kernels for GPUs against the plain operations on the processor: results, and the gradients of every input.
//! Needs Mesa's software GPU; `TINTYPE_TEST_DEVICE=cuda` takes CUDA's, where the build has it.
#![cfg(all(feature = "wgpu", feature = "autodiff", feature = "cpu"))]

#[allow(dead_code)] // some are of kernels for the processor alone
mod cases;
mod optimizer;
mod wgsl;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, Tolerance};
use cases::{Body, Flat, flat, values};

fn device() -> Device {
    #[cfg(feature = "cuda")]
    if std::env::var("TINTYPE_TEST_DEVICE").is_ok_and(|name| name == "cuda") {
        return Device::cuda(0);
    }
    wgsl::device()
}

/// Where the plain operations run: on a GPU they would be hundreds of kernels more, which take Mesa longer to
/// compile than ours, and that are not what is tested.
fn reference() -> Device {
    Device::flex()
}

/// Holds an operation to the plain one, under a weighted sum for the gradients.
fn same(inputs: &[TensorData], fused: Body<'_>, plain: Body<'_>, tolerance: f32) {
    same_on(&device(), inputs, fused, plain, tolerance);
}

fn same_on(
    device: &Device,
    inputs: &[TensorData],
    fused: Body<'_>,
    plain: Body<'_>,
    tolerance: f32,
) {
    let tolerance = Tolerance::<f32>::rel_abs(tolerance, tolerance);
    let run = |f: Body<'_>, device: &Device, track: bool| {
        let leaf = |data: &TensorData| -> Flat {
            let x = Tensor::from_data(flat(data), device);
            if track { x.require_grad() } else { x }
        };
        let inputs: Vec<Flat> = inputs.iter().map(leaf).collect();
        (f(&inputs), inputs)
    };
    let (a, _) = run(fused, device, false);
    let (b, _) = run(plain, &reference(), false);
    let count = b.dims()[0];
    a.into_data().assert_approx_eq::<f32>(&b.into_data(), tolerance);

    let weights = values([count], 99);
    let gradients = |f: Body<'_>, device: &Device| -> Vec<TensorData> {
        let tracked = device.clone().autodiff();
        let (y, inputs) = run(f, &tracked, true);
        let loss = (y * Tensor::from_data(weights.clone(), &tracked)).sum();
        let gradients = loss.backward();
        inputs.iter().map(|x| x.grad(&gradients).expect("it has one").into_data()).collect()
    };
    for (a, b) in gradients(fused, device).iter().zip(gradients(plain, &reference())) {
        a.assert_approx_eq::<f32>(&b, tolerance);
    }
}

/// See [`cases::slopes`].
fn slopes(inputs: &[TensorData], fused: Body<'_>, _: Body<'_>, _: f32) {
    cases::slopes(&device(), inputs, fused);
}

/// The plain operations on the GPU, which `--plain` takes, and what kernels are not made for: each operation of a
/// family at one size.
fn one(family: fn(cases::Visit<'_>)) {
    let mut size = None;
    family(&mut |inputs: &[TensorData], _: Body<'_>, plain: Body<'_>, tolerance: f32| {
        let own = inputs[0].shape.clone();
        if size.is_none() && own.num_elements() >= 500 {
            size = Some(own.clone());
        }
        if size.as_ref() == Some(&own) {
            same(inputs, plain, plain, tolerance);
        }
    });
    assert!(size.is_some(), "no size is large enough");
}

macro_rules! families {
    ($($family:ident),*) => {
        mod results { $(#[test] fn $family() { super::cases::$family(&mut super::same); })* }
        mod differences { $(#[test] fn $family() { super::cases::$family(&mut super::slopes); })* }
        mod plain_operations { $(#[test] fn $family() { super::one(super::cases::$family); })* }
    };
}
families!(
    norms,
    gates,
    activations,
    attention,
    neighborhoods,
    packed_attention,
    group_norms,
    products,
    convolutions
);

/// What GPUs compute in other ways that are no programs on the processor: [`device`] may be one.
mod results_of_hardware {
    macro_rules! families {
        ($($family:ident),*) => {
            $(#[test] fn $family() {
                super::cases::$family(&mut |inputs, fused, plain, tolerance| {
                    super::same_on(&super::wgsl::hardware(), inputs, fused, plain, tolerance);
                });
            })*
        };
    }
    families!(norms, attention, packed_attention, group_norms, products);
}

#[test]
fn what_is_overwritten_is_seen_by_all_who_share_it() {
    let device = device();
    let to: Tensor<2> = Tensor::from_data(values([3, 5], 1), &device);
    let shared = to.clone();
    let from: Tensor<2> = Tensor::from_data(values([5, 3], 2), &device).transpose();
    assert!(tintype_shaders::overwrite(from.clone(), &to));
    shared.into_data().assert_eq(&from.clone().into_data(), true);
    // Another shape, and another device.
    assert!(!tintype_shaders::overwrite(from.clone().transpose(), &to));
    #[cfg(feature = "cpu")]
    assert!(!tintype_shaders::overwrite(from, &Tensor::zeros([3, 5], &Device::flex())));
}

/// In half precision, sums are in float32 all the same: results are those of float32, rounded.
#[test]
fn half_precision() {
    let device = device();
    assert!(device.supports_dtype(DType::F16), "Mesa's software GPU has float16");
    let mut compare = |inputs: &[TensorData], fused: Body<'_>, plain: Body<'_>, _: f32| {
        let leaf = |data, device: &Device| -> Flat { Tensor::from_data(flat(data), device) };
        let half = |data| leaf(data, &device).cast(FloatDType::F16);
        let half: Vec<Flat> = inputs.iter().map(half).collect();
        let full: Vec<Flat> = inputs.iter().map(|data| leaf(data, &reference())).collect();
        let a = fused(&half).cast(FloatDType::F32).into_data();
        a.assert_approx_eq::<f32>(&plain(&full).into_data(), Tolerance::rel_abs(2e-2, 2e-2));
    };
    cases::norms(&mut compare);
    cases::gates(&mut compare);
    cases::activations(&mut compare);
    cases::attention(&mut compare);
    cases::neighborhoods(&mut compare);
    cases::packed_attention(&mut compare);
    cases::group_norms(&mut compare);
    cases::products(&mut compare);
    cases::convolutions(&mut compare);
}

#[test]
fn gradients_in_half_precision() {
    let gradients = |inputs: &[TensorData], device: Device, dtype: FloatDType, f: Body<'_>| {
        let tracked = device.autodiff();
        let leaf = |data: &TensorData| -> Flat {
            let wide: Flat = Tensor::from_data(flat(data), &tracked);
            wide.cast(dtype).detach().require_grad()
        };
        let leaves: Vec<Flat> = inputs.iter().map(leaf).collect();
        let gradients = f(&leaves).sum().backward();
        let of = |x: &Flat| x.grad(&gradients).expect("it has one").cast(FloatDType::F32);
        leaves.iter().map(|x| of(x).into_data()).collect::<Vec<_>>()
    };
    let norm = |data: &[f32]| data.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let mut compare = |inputs: &[TensorData], fused: Body<'_>, plain: Body<'_>, _: f32| {
        let expected = gradients(inputs, reference(), FloatDType::F32, plain);
        for (a, b) in gradients(inputs, device(), FloatDType::F16, fused).iter().zip(&expected) {
            let [a, b] = [a, b].map(|data| data.try_to_vec::<f32>().expect("float32"));
            let difference: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            let most = 0.02 * norm(&b).max(0.01 * (b.len() as f64).sqrt());
            assert!(norm(&difference) < most, "{} of {}", norm(&difference), norm(&b));
        }
    };
    cases::attention(&mut compare);
    cases::packed_attention(&mut compare);
    cases::products(&mut compare);
}
