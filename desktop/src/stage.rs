//! Pictures in the making, and the latest finished ones: what is on the stage.

use std::time::Instant;

use eframe::{egui, egui_wgpu};
use tintype::generate::ImageSpec;

use crate::engine::{StepUpdate, Work};
use crate::live::Live;

/// What is on the stage.
pub struct Develop {
    pub(crate) live: Live,
    pub(crate) running: Option<Running>,
    /// Finished pictures of the latest job.
    pub(crate) finished: Vec<u64>,
}

/// The job in hand.
pub(crate) struct Running {
    pub job: u64,
    pub name: String,
    pub total_images: usize,
    /// `None` before the first step.
    pub step: Option<Progress>,
}

/// The latest step.
pub(crate) struct Progress {
    pub first: usize,
    pub images: Vec<ImageSpec>,
    pub index: usize,
    pub total: Option<usize>,
    pub time: f64,
    pub pixels: bool,
    /// When the first step of these pictures was.
    pub began: Instant,
}

impl Develop {
    /// An empty stage in a window that is drawn by this.
    pub fn new(window: Option<egui_wgpu::RenderState>) -> Self {
        Self { live: Live::new(window), running: None, finished: Vec::new() }
    }

    /// A job begins.
    pub fn begin(&mut self, work: &Work, name: Option<String>) {
        self.finished.clear();
        let name = name.unwrap_or_default();
        let total_images = work.images.len();
        self.running = Some(Running { job: work.job, name, total_images, step: None });
    }

    /// A step of it.
    pub fn step(&mut self, update: StepUpdate, ctx: &egui::Context) {
        let Some(running) = self.running.as_mut().filter(|running| running.job == update.job)
        else {
            return;
        };
        let same = running.step.as_ref().filter(|step| step.first == update.first);
        let began = same.map_or_else(Instant::now, |step| step.began);
        running.step = Some(Progress {
            first: update.first,
            images: update.images,
            index: update.index,
            total: update.total,
            time: update.time,
            pixels: update.pixels,
            began,
        });
        if let Some(frames) = update.frames {
            self.live.show(frames, ctx);
        }
    }

    /// A picture of it is in the gallery.
    pub fn finished(&mut self, job: u64, id: u64) {
        if self.running.as_ref().is_some_and(|running| running.job == job) {
            self.finished.push(id);
        }
    }

    /// It came to its end.
    pub fn end(&mut self, job: u64) {
        self.running.take_if(|running| running.job == job);
        self.live.clear();
    }

    /// A picture is gone from the gallery.
    pub fn forget(&mut self, id: u64) {
        self.finished.retain(|finished| *finished != id);
    }
}
