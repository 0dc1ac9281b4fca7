//! What people set before they press Generate.

use serde::{Deserialize, Serialize};
use tintype::generate::{ImageSpec, Settings, between};
use tintype::noise::Blend;
use tintype::settings::Setting;

use crate::model::Model;

/// Pictures of a strip, both ends included.
pub const STRIP: usize = 7;

/// Seeds, counts and classes; the settings of the sampler are kept for each model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Form {
    /// Seed of the first picture; the next ones of a class count up.
    pub seed: u64,
    /// Whether the seeds stay after generating.
    pub seed_locked: bool,
    /// A second seed, which counts up with the first, and how far pictures are on the way to it.
    pub to: Option<Blend>,
    /// Pictures of each class.
    pub count: usize,
    /// The chosen classes.
    pub classes: Vec<usize>,
}

impl Default for Form {
    fn default() -> Self {
        Self { seed: random_seed(), seed_locked: false, to: None, count: 1, classes: Vec::new() }
    }
}

impl Form {
    /// The pictures that are asked for; one without a class for a model without classes. Seeds
    /// that are not locked are others afterwards.
    pub fn images(&mut self, model_has_classes: bool) -> Vec<ImageSpec> {
        let most = Setting::Count.slider().map_or(1, |range| range.max as usize);
        let count = self.count.clamp(1, most) as u64;
        let images = self
            .classes_of(model_has_classes)
            .into_iter()
            .flat_map(|class| (0..count).map(move |k| (class, k)))
            .map(|(class, k)| self.spec(class, k))
            .collect();
        self.leave_seeds();
        images
    }

    /// A strip of each class. Seeds that are not locked are others afterwards.
    pub fn strips(&mut self, model_has_classes: bool) -> Vec<ImageSpec> {
        let classes = self.classes_of(model_has_classes);
        let images = classes.into_iter().flat_map(|class| self.strip(class)).collect();
        self.leave_seeds();
        images
    }

    /// The picture of a class under seeds that are so far ahead.
    pub fn spec(&self, class: Option<usize>, ahead: u64) -> ImageSpec {
        let own = ImageSpec::new(class, self.seed.wrapping_add(ahead), 0);
        let Some(Blend { seed, amount }) = self.to else { return own };
        let seed = seed.wrapping_add(ahead);
        match amount {
            // Both ends are pictures of one seed, as those of a strip are.
            0.0 => own,
            1.0 => ImageSpec::new(class, seed, 0),
            _ => ImageSpec { blend: Some(Blend { seed, amount }), ..own },
        }
    }

    /// Pictures of a class from the first seed to the second; none where there is no second one.
    pub fn strip(&self, class: Option<usize>) -> Vec<ImageSpec> {
        let to = self.to.map(|to| between(class, [self.seed, to.seed], 0, STRIP));
        to.unwrap_or_default()
    }

    /// Goes on to later seeds.
    pub fn advance(&mut self, ahead: u64) {
        self.seed = self.seed.wrapping_add(ahead);
        if let Some(to) = &mut self.to {
            to.seed = to.seed.wrapping_add(ahead);
        }
    }

    /// Takes the seeds of a picture, and keeps them. One of a single seed leaves the second one where it is.
    pub fn take_seeds(&mut self, of: ImageSpec) {
        (self.seed, self.seed_locked) = (of.seed, true);
        self.to = of.blend.or(self.to.map(|to| Blend { amount: 0.0, ..to }));
    }

    /// Turns the second seed on, at the picture of the first, or off.
    pub fn set_second(&mut self, is_on: bool) {
        self.to = is_on.then(|| Blend { seed: random_seed(), amount: 0.0 });
    }

    /// The chosen classes, or none for a model without classes.
    fn classes_of(&self, model_has_classes: bool) -> Vec<Option<usize>> {
        match model_has_classes {
            true => self.classes.iter().copied().map(Some).collect(),
            false => vec![None],
        }
    }

    /// Others in place of seeds that are not locked.
    fn leave_seeds(&mut self) {
        if self.seed_locked {
            return;
        }
        self.seed = random_seed();
        if let Some(to) = &mut self.to {
            to.seed = random_seed();
        }
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

/// Moves settings into what a model understands: as a picture of another one brings them.
pub fn fitted(settings: Settings, to: &Model) -> Settings {
    match to.check(&settings) {
        Ok(()) => settings,
        Err(_) => to.inspection.architecture.default_settings(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_gets_the_same_seeds() {
        let mut form =
            Form { seed: 7, seed_locked: true, count: 2, classes: vec![3, 5], ..Form::default() };
        let made: Vec<_> = form.images(true).iter().map(|i| (i.class, i.seed)).collect();
        assert_eq!(made, [(Some(3), 7), (Some(3), 8), (Some(5), 7), (Some(5), 8)]);
        assert_eq!(form.seed, 7);
        form.seed_locked = false;
        assert_eq!(form.images(false).len(), 2);
        assert_ne!(form.seed, 7, "one in a hundred million");
    }

    #[test]
    fn pictures_lie_between_two_seeds_that_count_up_together() {
        let at = |amount| Form {
            seed: 7,
            seed_locked: true,
            to: Some(Blend { seed: 20, amount }),
            count: 2,
            classes: vec![3],
        };
        let blend = |amount| Some(Blend { seed: 21, amount });
        let second = |amount| at(amount).images(true)[1];
        assert_eq!(second(0.0), ImageSpec::new(Some(3), 8, 0));
        assert_eq!(second(1.0), ImageSpec::new(Some(3), 21, 0));
        assert_eq!(second(0.3), ImageSpec { blend: blend(0.3), ..ImageSpec::new(Some(3), 8, 0) });
        let mut form = at(0.3);
        form.advance(1);
        assert_eq!((form.seed, form.to), (8, blend(0.3)));
        assert_eq!(form.spec(Some(3), 0), second(0.3));
    }

    #[test]
    fn a_strip_has_the_pictures_of_the_way() {
        let mut form = Form { classes: vec![3, 5], ..Form::default() };
        assert!(form.strips(true).is_empty(), "there is no second seed");
        form.set_second(true);
        form.seed_locked = true;
        let made = form.strips(true);
        assert_eq!(made.len(), 2 * STRIP);
        // Each of them is one that the form makes alone.
        for (at, spec) in made.iter().enumerate() {
            let end = if at % STRIP == 0 { 0.0 } else { 1.0 };
            let amount = spec.blend.map_or(end, |blend| blend.amount);
            form.to = form.to.map(|to| Blend { amount, ..to });
            assert_eq!(form.spec(spec.class, 0), *spec, "picture {at}");
        }
        let before = form.clone();
        form.seed_locked = false;
        form.strips(true);
        let seed = |form: &Form| form.to.map(|to| to.seed);
        assert!(form.seed != before.seed && seed(&form) != seed(&before), "both are others");
    }

    #[test]
    fn the_seeds_of_a_picture_come_back() {
        let mut form = Form { seed: 1, ..Form::default() };
        let blend = Some(Blend { seed: 20, amount: 0.25 });
        let blended = ImageSpec { blend, ..ImageSpec::new(None, 7, 0) };
        form.take_seeds(blended);
        assert_eq!((form.spec(None, 0), form.seed_locked), (blended, true));
        let plain = ImageSpec::new(None, 8, 0);
        form.take_seeds(plain);
        assert_eq!((form.spec(None, 0), form.to.map(|to| to.seed)), (plain, Some(20)));
    }

    /// Files of earlier versions know no second seed.
    #[test]
    fn a_form_without_a_second_seed_is_read() {
        let text = r#"{"seed": 7, "seed_locked": true, "count": 2, "classes": [3]}"#;
        let form: Form = serde_json::from_str(text).expect("a form");
        assert_eq!((form.seed, form.to, form.count), (7, None, 2));
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
