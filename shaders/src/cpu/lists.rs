//! Operations on lists of tensors, as all parameters of a network. The pieces of all tensors are one list of work, so
//! that small tensors wait for no core, and results are written over what nobody else holds.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use super::tensor::{create, float32, wrap};
use super::vectors::vectorized;
use super::{for_each, math};
use crate::StepGuard;

/// Most values of a piece.
pub(super) const PIECE: usize = 1 << 14;

/// Whether all are float32 on the CPU backend, and not tracked.
pub(crate) fn takes<'a>(tensors: impl IntoIterator<Item = &'a Tensor<1>>) -> bool {
    tensors.into_iter().all(|x| float32(&x.clone().into_dispatch()).is_some())
}

/// The tensor itself, its values alone in their memory.
///
/// # Panics
///
/// If [`takes`] says no.
pub(super) fn own(x: Tensor<1>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("`takes` said yes").to_contiguous()
}

/// `a ← a + share·(b − a)` of each average and its value, unless one of the guard's numbers is not finite.
///
/// # Panics
///
/// If [`takes`] says no, or the sizes differ.
pub(crate) fn lerp(
    averages: Vec<Tensor<1>>,
    values: Vec<Tensor<1>>,
    share: f64,
    guard: &StepGuard,
) -> Vec<Tensor<1>> {
    if guard.factor().is_none() {
        return averages;
    }
    let share = share as f32;
    let [mut averages, values] =
        [averages, values].map(|list| -> Vec<FlexTensor> { list.into_iter().map(own).collect() });
    let mut pieces = Vec::new();
    for (average, value) in averages.iter_mut().zip(&values) {
        let (average, value) = (average.storage_mut::<f32>(), value.storage::<f32>());
        assert_eq!(average.len(), value.len(), "the sizes of an average and of its value");
        pieces.extend(average.chunks_mut(PIECE).zip(value.chunks(PIECE)));
    }
    for_each(pieces, |_, (average, value)| approach(average, value, share));
    averages.into_iter().map(|x| Tensor::from_dispatch(wrap(x))).collect()
}

/// `a ← a + share·(b − a)` of a piece.
pub(super) fn approach(average: &mut [f32], value: &[f32], share: f32) {
    let count = average.len();
    let value = &value[..count];
    vectorized(
        #[inline(always)]
        || {
            for i in 0..count {
                average[i] += (value[i] - average[i]) * share;
            }
        },
    );
}

/// The sum of the squares of all values, `[1]`: in float32 inside of pieces, in float64 over them.
///
/// # Panics
///
/// If [`takes`] says no.
pub(crate) fn sum_of_squares(tensors: Vec<Tensor<1>>) -> Tensor<1> {
    let tensors: Vec<FlexTensor> = tensors.into_iter().map(own).collect();
    let pieces: Vec<&[f32]> =
        tensors.iter().flat_map(|x| x.storage::<f32>().chunks(PIECE)).collect();
    let mut sums = vec![0.0f32; pieces.len()];
    let pairs: Vec<_> = sums.iter_mut().zip(pieces).collect();
    for_each(pairs, |_, (sum, piece)| {
        *sum = vectorized(
            #[inline(always)]
            || math::sum_of_squares(piece, 0.0),
        );
    });
    let total: f64 = sums.into_iter().map(f64::from).sum();
    // Beyond float32 it is infinite, as a sum in float32 would be.
    Tensor::from_dispatch(create([1], |sum| sum[0] = total as f32))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::cpu::adamw;
    use crate::tests::on;
    use crate::{AdamWStep, AdamWUpdate, AdamWUpdated, plain};

    /// Sizes around those of pieces, and small ones.
    const SIZES: [usize; 6] = [1, 7, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5];

    fn row(n: usize, seed: usize) -> Tensor<1> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
        Tensor::from_data(
            TensorData::new((0..n).map(value).collect::<Vec<_>>(), [n]),
            &Device::flex(),
        )
    }

    fn list(seed: usize) -> Vec<Tensor<1>> {
        SIZES.iter().enumerate().map(|(i, &n)| row(n, seed + i)).collect()
    }

    /// Where the values of a tensor lie.
    fn place(x: &Tensor<1>) -> *const u8 {
        float32(&x.clone().into_dispatch()).expect("float32 on the CPU").bytes().as_ptr()
    }

    fn bits(x: &Tensor<1>) -> Vec<u32> {
        let values = x.to_data().try_to_vec::<f32>().expect("float32");
        values.into_iter().map(f32::to_bits).collect()
    }

    fn guard(numbers: &[f32], max_norm: Option<f64>) -> StepGuard {
        let numbers = TensorData::new(numbers.to_vec(), [numbers.len()]);
        StepGuard { numbers: Tensor::from_data(numbers, &Device::flex()), max_norm }
    }

    /// Of each size one, with no EMA, one or two.
    fn updates() -> Vec<AdamWUpdate> {
        let step = |i: usize| AdamWStep {
            betas: [0.9, 0.999],
            decay: 1.0 - 1e-4 * i as f64,
            rate: 1e-3 * (i + 1) as f64,
            root: 3.0,
            eps: 1e-8,
        };
        let update = |(i, &n): (usize, &usize)| AdamWUpdate {
            parameter: row(n, i),
            gradient: row(n, 10 + i),
            moments: [row(n, 20 + i), row(n, 30 + i).abs()],
            averages: (0..i % 3).map(|k| (row(n, 40 + i + k), 0.1 / (k + 1) as f64)).collect(),
            step: step(i),
        };
        SIZES.iter().enumerate().map(update).collect()
    }

    /// All that a step writes, after it.
    fn written(after: &AdamWUpdated) -> Vec<&Tensor<1>> {
        let [first, second] = &after.moments;
        [&after.parameter, first, second].into_iter().chain(&after.averages).collect()
    }

    fn all_bits(after: &[AdamWUpdated]) -> Vec<Vec<u32>> {
        after.iter().flat_map(written).map(bits).collect()
    }

    fn places(after: &[AdamWUpdated]) -> Vec<*const u8> {
        after.iter().flat_map(written).map(place).collect()
    }

    /// What a step that changes nothing would leave, in the memory of what it is given.
    fn unchanged(given: &[AdamWUpdate]) -> Vec<AdamWUpdated> {
        given.iter().map(|update| update.clone().unchanged()).collect()
    }

    #[test]
    fn averages_are_the_plain_ones_in_place() {
        let share = 1.0 - 0.9999;
        let guard = guard(&[1.0], None);
        let (averages, values) = (list(1), list(9));
        let expected = plain::lerp(list(1), list(9), share, &guard);
        let expected: Vec<_> = expected.iter().map(bits).collect();
        let before: Vec<_> = averages.iter().map(place).collect();
        let found = lerp(averages, values.clone(), share, &guard);
        assert_eq!(found.iter().map(bits).collect::<Vec<_>>(), expected);
        assert_eq!(found.iter().map(place).collect::<Vec<_>>(), before);
        // One that the values share memory with is left to them.
        let same = lerp(values.clone(), list(1), 0.5, &guard);
        assert!(same.iter().zip(&values).all(|(a, b)| place(a) != place(b)));
        assert_eq!(bits(&values[1]), bits(&row(7, 10)));
    }

    #[test]
    #[should_panic(expected = "the sizes of an average and of its value")]
    fn averages_of_other_sizes_are_refused() {
        lerp(vec![row(3, 1)], vec![row(4, 1)], 0.5, &guard(&[1.0], None));
    }

    #[test]
    fn squares_are_summed_alike_on_any_number_of_threads() {
        let found = sum_of_squares(list(1));
        let exact: f64 = list(1)
            .iter()
            .flat_map(|x| x.to_data().try_to_vec::<f32>().expect("float32"))
            .map(|v| f64::from(v) * f64::from(v))
            .sum();
        let value = f64::from(found.to_data().try_to_vec::<f32>().expect("float32")[0]);
        assert!((value / exact - 1.0).abs() < 2e-6, "{value}, not {exact}");
        for threads in [1, 3] {
            assert_eq!(bits(&on(threads, || sum_of_squares(list(1)))), bits(&found));
        }
        let large = sum_of_squares(vec![row(3, 1) * 1e15, row(40_000, 1) * 1e17]);
        assert!(large.to_data().try_to_vec::<f32>().expect("float32")[0].is_finite());
        let beyond = sum_of_squares(vec![row(40_000, 1) * 1e19]);
        assert_eq!(bits(&beyond), [f32::INFINITY.to_bits()]);
    }

    #[test]
    fn steps_of_adamw_are_the_plain_ones_in_place() {
        // Without clipping, to a norm that is not reached, and to a tenth.
        for max_norm in [None, Some(3.0), Some(0.2)] {
            let guard = || guard(&[4.0, 1.0], max_norm);
            let given = updates();
            let before = places(&unchanged(&given));
            let found = adamw::steps(given, &guard());
            assert_eq!(places(&found), before);
            for threads in [1, 3] {
                let again = on(threads, || adamw::steps(updates(), &guard()));
                assert_eq!(all_bits(&again), all_bits(&found));
            }
            for (found, expected) in found.iter().zip(plain::adamw_all(updates(), &guard())) {
                assert_eq!(found.averages.len(), expected.averages.len());
                for (found, expected) in written(found).into_iter().zip(written(&expected)) {
                    let tolerance = burn::tensor::Tolerance::<f32>::rel_abs(2e-6, 1e-7);
                    found.to_data().assert_approx_eq::<f32>(&expected.to_data(), tolerance);
                }
            }
        }
    }

    #[test]
    fn an_average_moves_with_a_step_as_it_does_alone() {
        let guard = guard(&[4.0], Some(1.0));
        let mut count = 0;
        for (found, update) in adamw::steps(updates(), &guard).iter().zip(updates()) {
            for (together, (average, share)) in found.averages.iter().zip(update.averages) {
                let value = found.parameter.clone();
                let alone = lerp(vec![average], vec![value], share, &guard);
                assert_eq!(bits(together), bits(&alone[0]));
                count += 1;
            }
        }
        assert_eq!(count, 6);
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for numbers in [[wrong, 1.0, 2.0], [1.0, 2.0, wrong]] {
                let guard = guard(&numbers, Some(1.0));
                let expected = all_bits(&unchanged(&updates()));
                assert_eq!(all_bits(&adamw::steps(updates(), &guard)), expected);
                assert_eq!(all_bits(&plain::adamw_all(updates(), &guard)), expected);
                let expected: Vec<_> = list(1).iter().map(bits).collect();
                for found in [lerp, plain::lerp].map(|f| f(list(1), list(9), 0.5, &guard)) {
                    assert_eq!(found.iter().map(bits).collect::<Vec<_>>(), expected);
                }
            }
        }
    }

    #[test]
    fn clones_of_what_a_step_changes_keep_their_values() {
        let given = updates();
        // A parameter may be where its EMA began.
        let together =
            AdamWUpdate { averages: vec![(given[1].parameter.clone(), 0.5)], ..given[1].clone() };
        let guard = guard(&[4.0], None);
        let kept = unchanged(&given);
        let found = adamw::steps(given, &guard);
        assert_eq!(all_bits(&kept), all_bits(&unchanged(&updates())));
        assert!(places(&found).iter().zip(places(&kept)).all(|(&a, b)| a != b));
        let moved = adamw::steps(vec![together], &guard).remove(0);
        assert_eq!(bits(&moved.parameter), bits(&found[1].parameter));
        let expected = lerp(vec![row(7, 1)], vec![moved.parameter], 0.5, &guard);
        assert_eq!(bits(&moved.averages[0]), bits(&expected[0]));
    }
}
