//! What people set before they press Generate.

use serde::{Deserialize, Serialize};
use tintype::generate::{ImageSpec, Settings};
use tintype::settings::Setting;

/// Seeds, counts and classes; the settings of the sampler are kept for each model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Form {
    /// Seed of the first picture; the next ones of a class count up.
    pub seed: u64,
    /// Whether the seed stays after generating.
    pub seed_locked: bool,
    /// Pictures of each class.
    pub count: usize,
    /// The chosen classes.
    pub classes: Vec<usize>,
}

impl Default for Form {
    fn default() -> Self {
        Self { seed: random_seed(), seed_locked: false, count: 1, classes: Vec::new() }
    }
}

impl Form {
    /// The pictures that are asked for; one without a class for a model without classes. A seed
    /// that is not locked is another one afterwards.
    pub fn images(&mut self, model_has_classes: bool) -> Vec<ImageSpec> {
        let classes: Vec<Option<usize>> = match model_has_classes {
            true => self.classes.iter().copied().map(Some).collect(),
            false => vec![None],
        };
        let most = Setting::Count.slider().map_or(1, |range| range.max as usize);
        let count = self.count.clamp(1, most) as u64;
        let seeds = |k| self.seed.wrapping_add(k);
        let images = classes
            .into_iter()
            .flat_map(|class| (0..count).map(move |k| (class, k)))
            .map(|(class, k)| ImageSpec::new(class, seeds(k), 0))
            .collect();
        if !self.seed_locked {
            self.seed = random_seed();
        }
        images
    }

    /// Chooses a class alone, or adds or removes it.
    pub fn choose(&mut self, class: usize, add: bool) {
        match self.classes.iter().position(|c| *c == class) {
            Some(at) if add => {
                self.classes.remove(at);
            }
            None if add => self.classes.push(class),
            _ => self.classes = vec![class],
        }
    }
}

/// A seed that is easy to read out.
pub fn random_seed() -> u64 {
    random(100_000_000)
}

/// A number below `limit`.
pub fn random(limit: u64) -> u64 {
    // The standard library's hasher keys come from the system's generator.
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) % limit.max(1)
}

/// Moves settings into what a network understands: as a picture of another model brings them.
pub fn fitted(settings: Settings, to: &tintype::model::Architecture) -> Settings {
    match settings.validate(to) {
        Ok(()) => settings,
        Err(_) => to.default_settings(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_gets_the_same_seeds() {
        let mut form = Form { seed: 7, seed_locked: true, count: 2, classes: vec![3, 5] };
        let made: Vec<_> = form.images(true).iter().map(|i| (i.class, i.seed)).collect();
        assert_eq!(made, [(Some(3), 7), (Some(3), 8), (Some(5), 7), (Some(5), 8)]);
        assert_eq!(form.seed, 7);
        form.seed_locked = false;
        assert_eq!(form.images(false).len(), 2);
        assert_ne!(form.seed, 7, "one in a hundred million");
    }

    #[test]
    fn classes_are_chosen_alone_or_added() {
        let mut form = Form { classes: vec![1], ..Form::default() };
        form.choose(2, true);
        assert_eq!(form.classes, [1, 2]);
        form.choose(1, true);
        assert_eq!(form.classes, [2]);
        form.choose(4, false);
        assert_eq!(form.classes, [4]);
        form.choose(4, false);
        assert_eq!(form.classes, [4]);
    }
}
