//! Sampling of training items: a function of seed and global index alone, so that a run can stop
//! anywhere, resume exactly and be distributed over any number of devices.

use std::sync::{Arc, Mutex};

use tintype::noise::{ImageKey, Stream, uniforms};

/// Samples the items of the batches, shuffled per epoch or class-balanced.
#[derive(Debug)]
pub struct EpochSampler {
    seed: u64,
    len: usize,
    /// Items of each class, if sampling is class-balanced.
    classes: Option<Vec<Vec<usize>>>,
    /// The permutations that were drawn last.
    epochs: Mutex<Vec<Epoch>>,
}

/// Permutations that are kept: at the end of an epoch, one reader of batches is in it and another in the next one.
const KEPT: usize = 2;

#[derive(Clone, Debug)]
struct Epoch {
    number: u64,
    /// Its permutation.
    items: Arc<[u32]>,
}

/// Indices of a sample of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleIndex {
    /// Index of the item in the dataset.
    pub item: usize,
    /// Index in the global batch.
    pub index: usize,
    /// Number of samples drawn before this one since training began; seeds all random numbers of this
    /// sample.
    pub global_index: u64,
}

impl SampleIndex {
    /// So many items spread over a data set of `len`, to look at.
    pub fn spread(count: usize, len: usize) -> Vec<Self> {
        let one = |i: usize| Self { item: i * len / count, index: i, global_index: i as u64 };
        (0..count).map(one).collect()
    }
}

impl EpochSampler {
    /// Every item once per epoch, reshuffled each epoch.
    pub fn shuffled(seed: u64, len: usize) -> Self {
        Self { seed, len, classes: None, epochs: Mutex::new(Vec::new()) }
    }

    /// Class-balanced: uniform over classes, then over the items of the class; unlabelled items are
    /// never drawn.
    pub fn balanced(seed: u64, labels: &[Option<usize>]) -> Self {
        let count = labels.iter().flatten().max().map_or(0, |last| last + 1);
        let mut classes = vec![Vec::new(); count];
        for (item, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                classes[*label].push(item);
            }
        }
        classes.retain(|items| !items.is_empty());
        let classes = (!classes.is_empty()).then_some(classes);
        Self { seed, len: labels.len(), classes, epochs: Mutex::new(Vec::new()) }
    }

    /// The samples `range` of the global batch of a step, counted from 0.
    ///
    /// # Panics
    ///
    /// If there are no items and `range` is not empty.
    pub fn batch(
        &self,
        step: u64,
        batch: usize,
        range: std::ops::Range<usize>,
    ) -> Vec<SampleIndex> {
        // Those of a batch are of one epoch or two.
        let mut current = None;
        range
            .map(|index| {
                let global_index = step * batch as u64 + index as u64;
                let item = self.item(global_index, &mut current);
                SampleIndex { item, index, global_index }
            })
            .collect()
    }

    fn item(&self, global_index: u64, current: &mut Option<Epoch>) -> usize {
        let key = |image| ImageKey::new(self.seed, image);
        if let Some(classes) = &self.classes {
            let u = uniforms(key(global_index), Stream::Order, 0, 2);
            let items = &classes[(u[0] * classes.len() as f64) as usize];
            return items[(u[1] * items.len() as f64) as usize];
        }
        let number = global_index / self.len as u64;
        if current.as_ref().is_none_or(|epoch| epoch.number != number) {
            *current = Some(self.epoch(number));
        }
        let at = (global_index % self.len as u64) as usize;
        current.as_ref().map_or(0, |epoch| epoch.items[at] as usize)
    }

    /// The permutation of an epoch: the first one who asks draws it, and others wait for it.
    fn epoch(&self, number: u64) -> Epoch {
        let mut kept = self.epochs.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(epoch) = kept.iter().find(|epoch| epoch.number == number) {
            return epoch.clone();
        }
        if kept.len() == KEPT {
            kept.remove(0);
        }
        let epoch = Epoch { number, items: self.permutation(number).into() };
        kept.push(epoch.clone());
        epoch
    }

    /// Fisher–Yates.
    fn permutation(&self, epoch: u64) -> Vec<u32> {
        let key = ImageKey::new(self.seed, epoch);
        let u = uniforms(key, Stream::Order, 1, self.len);
        let mut items: Vec<u32> = (0..self.len as u32).collect();
        for i in (1..self.len).rev() {
            items.swap(i, (u[i] * (i + 1) as f64) as usize);
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_item_once_and_epochs_differ() {
        let sampler = EpochSampler::shuffled(3, 10);
        let items =
            |step| -> Vec<usize> { sampler.batch(step, 5, 0..5).iter().map(|p| p.item).collect() };
        let epoch = |e: u64| [items(2 * e), items(2 * e + 1)].concat();
        for e in 0..3 {
            let mut seen = epoch(e);
            seen.sort();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epoch(0), epoch(1));
        // Sampling is deterministic, and slices of a batch make up the whole.
        assert_eq!(epoch(0), epoch(0));
        let parts = [sampler.batch(1, 5, 0..2), sampler.batch(1, 5, 2..5)].concat();
        assert_eq!(parts, sampler.batch(1, 5, 0..5));
    }

    #[test]
    fn batches_are_the_same_in_any_order_and_from_any_thread() {
        let items = |sampler: &EpochSampler, step| -> Vec<usize> {
            sampler.batch(step, 4, 0..4).iter().map(|sample| sample.item).collect()
        };
        // Batches lie across epochs of 7 items, or several epochs in a batch.
        for len in [7, 3, 100] {
            let sampler = EpochSampler::shuffled(5, len);
            let in_order: Vec<_> = (0..40).map(|step| items(&sampler, step)).collect();
            let shared = EpochSampler::shuffled(5, len);
            std::thread::scope(|scope| {
                for reader in 0..4 {
                    let (shared, in_order) = (&shared, &in_order);
                    scope.spawn(move || {
                        for step in (0..40).rev().filter(|step| step % 4 == reader) {
                            assert_eq!(items(shared, step), in_order[step as usize], "{step}");
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn class_balanced_sampling_is_uniform_over_classes() {
        let labels: Vec<_> = (0..100).map(|i| (i > 0).then_some(usize::from(i > 90) * 2)).collect();
        let sampler = EpochSampler::balanced(1, &labels);
        let drawn = sampler.batch(0, 4000, 0..4000);
        assert!(drawn.iter().all(|p| p.item != 0));
        let rare = drawn.iter().filter(|p| p.item > 90).count();
        assert!((1850..2150).contains(&rare), "{rare}");
    }
}
