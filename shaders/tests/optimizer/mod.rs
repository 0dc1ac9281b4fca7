//! Steps of an optimizer on a GPU against the plain operations on the processor, and what they do to memory.

use burn::backend::Wgpu;
#[cfg(feature = "fusion")]
use burn::backend::wgpu::{CubeBackend, WgpuRuntime};
use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use tintype_shaders::{
    AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard, adamw_all, lerp, plain, sum_of_squares,
};

use super::cases::{Flat, values};
use super::{device, reference, wgsl};

/// Around those of cubes, and one of many cubes.
const SIZES: [usize; 6] = [1, 7, 255, 256, 257, 100_003];

fn row(n: usize, seed: u32, device: &Device) -> Flat {
    Tensor::from_data(values([n], seed), device)
}

fn numbers(x: &Flat) -> Vec<f32> {
    x.to_data().try_to_vec::<f32>().expect("float32")
}

fn bits(x: &Flat) -> Vec<u32> {
    numbers(x).into_iter().map(f32::to_bits).collect()
}

fn of(numbers: Vec<f32>, device: &Device) -> Flat {
    let n = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [n]), device)
}

/// An update with so many EMAs.
fn update(n: usize, averages: usize, device: &Device) -> AdamWUpdate {
    let second = numbers(&row(n, 4, &reference())).into_iter().map(f32::abs).collect();
    let average = |k: usize| (row(n, 5 + k as u32, device), 0.1 / (k + 1) as f64);
    AdamWUpdate {
        parameter: row(n, 1, device),
        gradient: row(n, 2, device),
        moments: [row(n, 3, device), of(second, device)],
        averages: (0..averages).map(average).collect(),
        step: AdamWStep {
            betas: [0.9, 0.999],
            decay: 1.0 - 1e-4,
            rate: 1e-3 / (1.0 - 0.9f64.powi(3)),
            root: 1.0 / (1.0 - 0.999f64.powi(3)).sqrt(),
            eps: 1e-8,
        },
    }
}

fn guard(numbers: &[f32], max_norm: Option<f64>, device: &Device) -> StepGuard {
    StepGuard { numbers: of(numbers.to_vec(), device), max_norm }
}

/// All that a step writes, before it.
fn given(update: &AdamWUpdate) -> Vec<&Flat> {
    let averages = update.averages.iter().map(|(average, _)| average);
    [&update.parameter].into_iter().chain(&update.moments).chain(averages).collect()
}

/// The same after it.
fn written(after: &AdamWUpdated) -> Vec<&Flat> {
    [&after.parameter].into_iter().chain(&after.moments).chain(&after.averages).collect()
}

fn all_bits(tensors: Vec<&Flat>) -> Vec<Vec<u32>> {
    tensors.into_iter().map(bits).collect()
}

/// A step of one parameter.
fn stepped(update: AdamWUpdate, guard: &StepGuard) -> AdamWUpdated {
    adamw_all(vec![update], guard).remove(0)
}

/// The names of the memory behind tensors; `None` for those of another backend than wgpu.
fn memory(tensors: Vec<&Flat>) -> Vec<Option<String>> {
    let name = |x: &Flat| {
        let tensor = x.clone().try_into_primitive::<Wgpu>().ok()?;
        #[cfg(feature = "fusion")]
        let tensor = tensor.client.clone().resolve_tensor_float::<CubeBackend<WgpuRuntime>>(tensor);
        let described = format!("{:?}", tensor.handle.memory);
        let (_, rest) = described.split_once("value: ").expect("it has a number");
        Some(rest.split(' ').next().expect("the number").to_owned())
    };
    tensors.into_iter().map(name).collect()
}

#[test]
fn steps_of_adamw_are_the_plain_ones() {
    let device = device();
    for n in SIZES {
        for averages in 0..3 {
            // Without clipping, to a norm that is not reached, and to a tenth.
            for max_norm in [None, Some(3.0), Some(0.2)] {
                let on = |device: &Device| guard(&[4.0, 1.0], max_norm, device);
                let found = stepped(update(n, averages, &device), &on(&device));
                let again = stepped(update(n, averages, &device), &on(&device));
                assert_eq!(all_bits(written(&again)), all_bits(written(&found)));
                let expected = vec![update(n, averages, &reference())];
                let expected = plain::adamw_all(expected, &on(&reference())).remove(0);
                assert_eq!(found.averages.len(), averages);
                for (found, expected) in written(&found).into_iter().zip(written(&expected)) {
                    let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
                    found.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
                }
            }
        }
    }
}

/// A gradient of a tenth of the values, by clipping or by itself, makes the same step.
#[test]
fn clipping_scales_the_gradient() {
    let device = device();
    let clipped = stepped(update(257, 1, &device), &guard(&[4.0], Some(0.2), &device));
    let mut small = update(257, 1, &device);
    let tenth = numbers(&small.gradient).into_iter().map(|g| g * (0.2 / (2.0 + 1e-6)));
    small.gradient = of(tenth.collect(), &device);
    let expected = stepped(small, &guard(&[4.0], None, &device));
    let whole = stepped(update(257, 1, &device), &guard(&[4.0], None, &device));
    for (found, expected) in written(&clipped).into_iter().zip(written(&expected)) {
        let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
        found.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
    }
    assert_ne!(bits(&clipped.moments[0]), bits(&whole.moments[0]));
}

/// Rank 0 of a training alone has averages, and its weights have to stay those of the others.
#[test]
fn an_average_changes_no_bit_of_a_step() {
    let device = device();
    for n in SIZES {
        let guard = guard(&[9.0, 1.0], Some(1.0), &device);
        let found: Vec<_> = [0, 1, 2]
            .map(|averages| stepped(update(n, averages, &device), &guard))
            .iter()
            .map(|after| all_bits(written(after)[..3].to_vec()))
            .collect();
        assert_eq!(found[0], found[1], "{n}");
        assert_eq!(found[0], found[2], "{n}");
    }
}

#[test]
fn what_is_not_finite_changes_nothing() {
    let device = device();
    let expected = all_bits(given(&update(256, 2, &reference())));
    let row = |seed| row(256, seed, &device);
    for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for numbers in [[wrong, 1.0, 2.0], [1.0, 2.0, wrong]] {
            for max_norm in [None, Some(0.2)] {
                let guard = guard(&numbers, max_norm, &device);
                let found = stepped(update(256, 2, &device), &guard);
                assert_eq!(all_bits(written(&found)), expected, "{numbers:?}");
                let found = lerp(vec![row(1)], vec![row(2)], 0.5, &guard).remove(0);
                assert_eq!(bits(&found), bits(&row(1)), "{numbers:?}");
            }
        }
        // As it comes about: a gradient overflowed.
        let mut given = update(256, 2, &device);
        let mut gradient = numbers(&given.gradient);
        gradient[77] = wrong;
        given.gradient = of(gradient, &device);
        let squares = sum_of_squares(vec![row(9), given.gradient.clone()]);
        let found = stepped(given, &StepGuard { numbers: squares, max_norm: Some(1.0) });
        assert_eq!(all_bits(written(&found)), expected, "{wrong} in a gradient");
    }
    // The largest float is one like others.
    let found = stepped(update(256, 2, &device), &guard(&[1.0, f32::MAX], None, &device));
    assert_ne!(all_bits(written(&found)), expected);
}

#[test]
fn a_step_writes_over_what_nothing_else_holds() {
    let device = device();
    let guard = guard(&[4.0], Some(1.0), &device);
    for n in [7, 256] {
        let alone = update(n, 2, &device);
        let before = memory(given(&alone));
        let in_place = stepped(alone, &guard);
        assert_eq!(memory(written(&in_place)), before);
        let expected = all_bits(written(&in_place));
        let average = row(n, 1, &device);
        let before = memory(vec![&average]);
        let moved = lerp(vec![average], vec![row(n, 2, &device)], 0.5, &guard);
        assert_eq!(memory(vec![&moved[0]]), before);

        let shared = update(n, 2, &device);
        let kept = shared.clone();
        let found = stepped(shared, &guard);
        assert_eq!(all_bits(written(&found)), expected);
        assert_eq!(all_bits(given(&kept)), all_bits(given(&update(n, 2, &reference()))));
        for (found, kept) in memory(written(&found)).into_iter().zip(memory(given(&kept))) {
            assert!(found.is_none() || found != kept);
        }
        let average = row(n, 1, &device);
        let kept = average.clone();
        let found = lerp(vec![average], vec![row(n, 2, &device)], 0.5, &guard);
        assert_eq!(bits(&found[0]), bits(&moved[0]));
        assert_eq!(bits(&kept), bits(&row(n, 1, &device)));
    }
}

/// An EMA begins as its parameter, in the same memory, and a gradient may be the value of a moment.
#[test]
fn tensors_of_one_update_may_share_memory() {
    let device = device();
    let together = |device: &Device| {
        let mut update = update(257, 0, device);
        update.averages = vec![(update.parameter.clone(), 0.5), (update.parameter.clone(), 0.1)];
        update.moments[0] = update.gradient.clone();
        update
    };
    let found = stepped(together(&device), &guard(&[4.0], None, &device));
    let expected = vec![together(&reference())];
    let expected = plain::adamw_all(expected, &guard(&[4.0], None, &reference())).remove(0);
    for (found, expected) in written(&found).into_iter().zip(written(&expected)) {
        let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
        found.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
    }
}

/// Every second value of a larger tensor.
#[test]
fn parts_of_other_tensors_are_left_to_them() {
    let device = device();
    let n = 130;
    let base = row(2 * n, 6, &device);
    let part =
        |base: &Flat| -> Flat { base.clone().reshape([n, 2]).narrow(1, 1, 1).squeeze_dim::<1>(1) };
    let guard = |device: &Device| guard(&[4.0], None, device);
    let mut given = update(n, 1, &device);
    given.parameter = part(&base);
    given.gradient = part(&row(2 * n, 7, &device));
    let found = stepped(given, &guard(&device));
    assert_eq!(bits(&base), bits(&row(2 * n, 6, &reference())));
    let mut given = update(n, 1, &reference());
    given.parameter = part(&row(2 * n, 6, &reference()));
    given.gradient = part(&row(2 * n, 7, &reference()));
    let expected = plain::adamw_all(vec![given], &guard(&reference())).remove(0);
    for (found, expected) in written(&found).into_iter().zip(written(&expected)) {
        let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
        found.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
    }
}

#[test]
fn squares_are_summed_precisely_and_alike() {
    for device in [device(), wgsl::hardware()] {
        let check = |sizes: &[usize]| {
            let list = || -> Vec<Flat> {
                let seeds = 1..;
                sizes.iter().zip(seeds).map(|(&n, seed)| row(n, seed, &device)).collect()
            };
            let values: Vec<f32> = list().iter().flat_map(numbers).collect();
            let expected: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            let found = sum_of_squares(list());
            assert_eq!(found.dims(), [1]);
            let value = f64::from(numbers(&found)[0]);
            assert!((value / expected - 1.0).abs() < 1e-6, "{value}, not {expected}: {sizes:?}");
            assert_eq!(bits(&sum_of_squares(list())), bits(&found), "{sizes:?}");
        };
        for n in SIZES {
            check(&[n]);
        }
        check(&SIZES);
        // Sums of sums of sums, in vectors and without.
        check(&[1 << 20]);
        check(&[(1 << 20) + 3, 1, 40]);
        let wrong = sum_of_squares(vec![row(300, 1, &device), of(vec![1e20; 3], &device)]);
        assert!(!numbers(&wrong)[0].is_finite());
    }
}
