//! How long the steps of pictures take.

use std::time::Instant;

use tintype::generate::Settings;
use tintype::model::Process;

use crate::quality::{Pace, evaluations};

/// Watches the pictures of one batch.
pub struct Stopwatch {
    began: Instant,
    /// When the first and the latest step were.
    steps: Option<[Instant; 2]>,
    count: usize,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { began: Instant::now(), steps: None, count: 0 }
    }

    /// A step was taken.
    pub fn step(&mut self) {
        let now = Instant::now();
        let [first, _] = self.steps.unwrap_or([now; 2]);
        self.steps = Some([first, now]);
        self.count += 1;
    }

    /// The pace of a picture, once so many are there. The first step of several does not count: it may have
    /// had to wait for kernels.
    pub fn pace(&self, settings: &Settings, process: Process, images: usize) -> Option<Pace> {
        let [first, last] = self.steps?;
        let evaluations = evaluations(settings, process)? as f64 / settings.steps.max(1) as f64;
        let step = match self.count {
            1 => first - self.began,
            n => (last - first) / u32::try_from(n - 1).ok()?,
        };
        let images = images.max(1) as f64;
        Some(Pace {
            evaluation: step.as_secs_f64() / evaluations / images,
            rest: last.elapsed().as_secs_f64() / images,
        })
    }
}
