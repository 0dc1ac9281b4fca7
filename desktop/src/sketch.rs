//! Live: the picture of the current settings, made as they change. Of several wishes only the latest is made,
//! and nothing is saved unless it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eframe::egui;
use tintype::generate::{ImageSpec, Settings};
use tintype::model::Process;

use crate::engine::{Choice, Made, Work};
use crate::gallery::Shown;
use crate::quality::evaluations;

/// Evaluations from which on a picture takes too long to be made unasked.
const MANY: usize = 4;

/// Whether pictures of these settings may be made live.
pub fn is_quick(settings: &Settings, process: Process) -> bool {
    evaluations(settings, process).is_some_and(|count| count < MANY)
}

/// What is shown of the live pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// That of the current settings.
    #[default]
    One,
    /// A sheet: guidance scales below each other, seeds side by side.
    Sheet,
    /// A strip: the way from the seed to the second one.
    Strip,
}

/// A picture that somebody may want.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// What makes it.
    pub choice: Choice,
    /// How.
    pub settings: Settings,
    /// Which.
    pub spec: ImageSpec,
}

/// The latest picture.
pub struct Latest {
    /// What was wished for.
    pub wish: Wish,
    /// What came of it.
    pub made: Made,
    shown: Shown,
    /// Its number in the gallery, once it was kept.
    kept: Option<u64>,
}

/// The picture in hand.
#[derive(Debug)]
struct Running {
    job: u64,
    wish: Wish,
    cancelled: Arc<AtomicBool>,
}

/// What is wanted, in the making and made.
#[derive(Default)]
pub struct Sketch {
    /// One picture, or those of a sheet or a strip.
    wishes: Vec<Wish>,
    running: Option<Running>,
    made: Vec<Latest>,
    /// What cannot be made.
    failed: Vec<Wish>,
    /// What was wanted when other pictures took the stage: theirs it is until something else is wanted.
    aside: Vec<Wish>,
}

impl Sketch {
    /// What is wanted now; a picture in hand that nobody wants any more stops at its next step. One of a single
    /// step is as good as made: whoever drags a slider sees it pass by.
    pub fn want(&mut self, wishes: Vec<Wish>) {
        if !wishes.is_empty() {
            if wishes == self.aside {
                self.wishes.clear();
                return;
            }
            self.aside.clear();
        }
        if wishes != self.wishes {
            self.failed.clear();
            self.wishes = wishes;
        }
        if self.wishes.len() > 1 {
            self.made.retain(|latest| self.wishes.contains(&latest.wish));
        }
        if let Some(running) = &self.running
            && running.wish.settings.steps > 1
            && !self.wishes.contains(&running.wish)
        {
            running.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Other pictures take the stage; `wishes` are what would be wanted.
    pub fn step_aside(&mut self, wishes: Vec<Wish>) {
        self.wishes.clear();
        self.made.clear();
        self.aside = wishes;
        if let Some(running) = &self.running {
            running.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether other pictures have the stage, and keep it while this is wanted.
    pub fn is_aside(&self, wish: &Wish) -> bool {
        self.aside.contains(wish)
    }

    /// What the engine should make next: one picture at a time, of the latest wishes. `number` is of a new job.
    pub fn next(&mut self, number: impl FnOnce() -> u64) -> Option<Work> {
        if self.running.is_some() {
            return None;
        }
        let is_open = |wish: &&Wish| self.of(wish).is_none() && !self.failed.contains(wish);
        let wish = self.wishes.iter().find(is_open)?.clone();
        let running = Running { job: number(), wish, cancelled: Arc::default() };
        let work = Work {
            job: running.job,
            choice: running.wish.choice.clone(),
            settings: running.wish.settings,
            images: vec![running.wish.spec],
            folder: None,
            cancelled: running.cancelled.clone(),
        };
        self.running = Some(running);
        Some(work)
    }

    /// What makes the pictures of a job, if it is the one in hand.
    pub fn choice_of(&self, job: u64) -> Option<&Choice> {
        Some(&self.running.as_ref().filter(|running| running.job == job)?.wish.choice)
    }

    /// The picture in hand is made.
    pub fn picture(&mut self, made: Made) {
        let Some(running) = &self.running else { return };
        // Another one has the stage.
        if !self.aside.is_empty() {
            return;
        }
        let wish = running.wish.clone();
        // What passes by does not replace what is wanted.
        let is_wanted = self.wishes.contains(&wish);
        if !is_wanted && self.wishes.iter().any(|wanted| self.of(wanted).is_some()) {
            return;
        }
        if self.wishes.len() == 1 {
            self.made.clear();
        }
        let shown = Shown::new(made.image.clone());
        self.made.push(Latest { wish, made, shown, kept: None });
    }

    /// A job came to its end: what made it, if it was of here. What failed is not tried again.
    pub fn end(&mut self, job: u64, failed: bool) -> Option<Choice> {
        let Running { wish, .. } = self.running.take_if(|running| running.job == job)?;
        let choice = wish.choice.clone();
        if failed {
            self.failed.push(wish);
        }
        Some(choice)
    }

    /// The picture of a wish.
    pub fn of(&self, wish: &Wish) -> Option<&Latest> {
        self.made.iter().find(|latest| latest.wish == *wish)
    }

    /// How many pictures there are.
    pub fn count(&self) -> usize {
        self.made.len()
    }

    /// The place of the picture that is wanted, or of the last one before it.
    fn place(&self) -> Option<usize> {
        let wish = self.wishes.first();
        let wanted = wish.and_then(|wish| self.made.iter().position(|made| made.wish == *wish));
        wanted.or(self.made.len().checked_sub(1))
    }

    /// The latest picture.
    pub fn latest(&self) -> Option<&Latest> {
        self.made.get(self.place()?)
    }

    /// Notes the number of the latest picture in the gallery.
    pub fn kept(&mut self, id: u64) {
        if let Some(place) = self.place() {
            self.made[place].kept = Some(id);
        }
    }

    /// The texture of the latest picture.
    pub fn texture(&mut self, ctx: &egui::Context) -> Option<egui::load::SizedTexture> {
        let place = self.place()?;
        Some(self.made[place].shown.texture(ctx))
    }

    /// The texture of the picture of a wish.
    pub fn texture_of(
        &mut self,
        wish: &Wish,
        ctx: &egui::Context,
    ) -> Option<egui::load::SizedTexture> {
        let latest = self.made.iter_mut().find(|latest| latest.wish == *wish)?;
        Some(latest.shown.texture(ctx))
    }

    /// Whether a picture is in the making.
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }
}

impl Latest {
    /// Its number in the gallery, once it was kept.
    pub fn in_gallery(&self) -> Option<u64> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use tintype::diffusion::guidance::Guidance;
    use tintype::settings::Sampler;

    use super::*;

    fn wish(seed: u64, steps: usize) -> Vec<Wish> {
        let settings = Settings::new(Sampler::MeanFlow, steps, Guidance::NONE);
        let spec = ImageSpec::new(Some(1), seed, 0);
        vec![Wish { choice: Choice::default(), settings, spec }]
    }

    #[test]
    fn of_several_wishes_the_latest_is_made() {
        let mut sketch = Sketch::default();
        assert!(sketch.next(|| 0).is_none());
        sketch.want(wish(1, 2));
        let first = sketch.next(|| 1).expect("work");
        assert_eq!((first.images[0].seed, first.folder.is_none()), (1, true));
        for seed in [2, 3, 4] {
            sketch.want(wish(seed, 2));
            assert!(sketch.next(|| 9).is_none(), "one at a time");
        }
        assert!(first.cancelled.load(Ordering::Relaxed));
        assert!(sketch.end(77, false).is_none(), "of somebody else");
        assert!(sketch.end(1, false).is_some());
        let latest = sketch.next(|| 2).expect("work");
        assert_eq!(latest.images[0].seed, 4);
        // What fails once fails again, also on a sheet.
        sketch.end(2, true);
        assert!(sketch.next(|| 3).is_none());
        sketch.want([wish(4, 2), wish(5, 2)].concat());
        assert_eq!(sketch.next(|| 3).expect("wanted anew").images[0].seed, 4);
        sketch.end(3, true);
        assert_eq!(sketch.next(|| 4).expect("the other").images[0].seed, 5);
        sketch.end(4, true);
        assert!(sketch.next(|| 5).is_none());
        sketch.want(wish(5, 1));
        let single = sketch.next(|| 4).expect("work");
        sketch.want(wish(6, 1));
        assert!(!single.cancelled.load(Ordering::Relaxed), "it is as good as made");
    }

    #[test]
    fn other_pictures_have_the_stage_until_something_changes() {
        let mut sketch = Sketch::default();
        sketch.step_aside(wish(1, 1));
        sketch.want(wish(1, 1));
        assert!(sketch.next(|| 1).is_none());
        sketch.want(Vec::new());
        sketch.want(wish(1, 1));
        assert!(sketch.next(|| 1).is_none());
        sketch.want(wish(2, 1));
        assert!(sketch.next(|| 1).is_some());
    }

    #[test]
    fn few_evaluations_are_quick() {
        let one = Process::MeanFlow;
        let of = |steps| Settings::new(Sampler::MeanFlow, steps, Guidance::new(7.0));
        assert!(is_quick(&of(1), one) && is_quick(&of(3), one) && !is_quick(&of(4), one));
        let flow = Process::Flow(tintype::model::Clock::NoiseAtOne);
        assert!(!is_quick(&Settings { sampler: Sampler::Euler, ..of(2) }, flow), "guided twice");
    }
}
