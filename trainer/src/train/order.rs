//! Which items make a batch: a function of seed and position alone, so that a run can stop
//! anywhere, resume exactly and be shared by any number of devices.

use std::sync::Mutex;

use tintype::noise::{ImageKey, Stream, uniforms};

/// The order in which training sees its items.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    len: usize,
    /// Items of each class, where classes are drawn evenly.
    classes: Option<Vec<Vec<usize>>>,
    /// The permutation of the epoch in use.
    epoch: Mutex<Option<(u64, Vec<u32>)>>,
}

/// One place of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The item of the data set.
    pub item: usize,
    /// Its place in the global batch.
    pub index: usize,
    /// Its number since training began; keys all random numbers of this visit.
    pub position: u64,
}

impl Order {
    /// Every item once an epoch, in an order of its own each time.
    pub fn shuffled(seed: u64, len: usize) -> Self {
        Self { seed, len, classes: None, epoch: Mutex::new(None) }
    }

    /// Classes drawn evenly, then items evenly within the class; items without a class never.
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
        Self { seed, len: labels.len(), classes, epoch: Mutex::new(None) }
    }

    /// The places `range` of the global batch of a step (from 0).
    ///
    /// # Panics
    ///
    /// If there are no items and `range` is not empty.
    pub fn batch(&self, step: u64, batch: usize, range: std::ops::Range<usize>) -> Vec<Place> {
        range
            .map(|index| {
                let position = step * batch as u64 + index as u64;
                Place { item: self.item(position), index, position }
            })
            .collect()
    }

    fn item(&self, position: u64) -> usize {
        let key = |image| ImageKey { seed: self.seed, image };
        if let Some(classes) = &self.classes {
            let u = uniforms(key(position), Stream::Order, 0, 2);
            let items = &classes[(u[0] * classes.len() as f64) as usize];
            return items[(u[1] * items.len() as f64) as usize];
        }
        let epoch = position / self.len as u64;
        let mut cached = self.epoch.lock().unwrap_or_else(|poison| poison.into_inner());
        if cached.as_ref().is_none_or(|(e, _)| *e != epoch) {
            *cached = Some((epoch, self.permutation(epoch)));
        }
        cached.as_ref().map_or(0, |(_, p)| p[(position % self.len as u64) as usize] as usize)
    }

    /// Fisher–Yates.
    fn permutation(&self, epoch: u64) -> Vec<u32> {
        let key = ImageKey { seed: self.seed, image: epoch };
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
        let order = Order::shuffled(3, 10);
        let items =
            |step| -> Vec<usize> { order.batch(step, 5, 0..5).iter().map(|p| p.item).collect() };
        let epoch = |e: u64| [items(2 * e), items(2 * e + 1)].concat();
        for e in 0..3 {
            let mut seen = epoch(e);
            seen.sort();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epoch(0), epoch(1));
        // Going back gives the same again, and parts make up the whole.
        assert_eq!(epoch(0), epoch(0));
        let parts = [order.batch(1, 5, 0..2), order.batch(1, 5, 2..5)].concat();
        assert_eq!(parts, order.batch(1, 5, 0..5));
    }

    #[test]
    fn balanced_classes_come_equally_often() {
        let labels: Vec<_> = (0..100).map(|i| (i > 0).then_some(usize::from(i > 90) * 2)).collect();
        let order = Order::balanced(1, &labels);
        let drawn = order.batch(0, 4000, 0..4000);
        assert!(drawn.iter().all(|p| p.item != 0));
        let rare = drawn.iter().filter(|p| p.item > 90).count();
        assert!((1850..2150).contains(&rare), "{rare}");
    }
}
