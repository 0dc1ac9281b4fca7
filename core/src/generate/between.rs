//! A row of pictures from one seed to another.

use super::request::ImageSpec;
use crate::noise::Blend;

/// `count` pictures of a class at even steps from one seed to another, both ends included: those are the pictures of
/// the two seeds themselves. One picture is the first, none are none.
///
/// * `index`: the number of the pictures under both seeds
pub fn between(
    class: Option<usize>,
    [from, to]: [u64; 2],
    index: u64,
    count: usize,
) -> Vec<ImageSpec> {
    let last = count.saturating_sub(1);
    let picture = |k: usize| match k {
        0 => ImageSpec::new(class, from, index),
        k if k == last => ImageSpec::new(class, to, index),
        k => {
            let blend = Some(Blend { seed: to, amount: k as f64 / last as f64 });
            ImageSpec { blend, ..ImageSpec::new(class, from, index) }
        }
    };
    (0..count).map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_even_steps_and_both_ends() {
        let amounts = |count| -> Vec<_> {
            let row = between(Some(4), [3, 7], 2, count);
            assert!(row.iter().all(|spec| (spec.class, spec.index) == (Some(4), 2)));
            row.into_iter()
                .map(|spec| (spec.seed, spec.blend.map(|b| (b.seed, b.amount))))
                .collect()
        };
        let (first, last) = ((3u64, None), (7u64, None));
        let at = |amount: f64| (3u64, Some((7u64, amount)));
        assert!(amounts(0).is_empty());
        assert_eq!(amounts(1), [first]);
        assert_eq!(amounts(2), [first, last]);
        assert_eq!(amounts(5), [first, at(0.25), at(0.5), at(0.75), last]);
    }
}
