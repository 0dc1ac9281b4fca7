//! One model after the other: loaded, asked for its images, and freed again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use tintype::generate::{Event, GenerateError, ImageSpec, Picture, Pipeline, Request, Settings};
use tintype::labels::printable;
use tintype::memory::give_back_freed_memory;
use tintype::sampler::Stop;
use tintype::settings::{KarrasOptions, Sampler};

use super::candidate::{Asked, Candidate, Model};
use super::peak;
use crate::cli::events::Reporter;

/// Steps of what nobody measures: enough for every formula of a multistep solver, both sides of a guidance interval
/// and both streams of a Hi-DiT.
const WARM_UP: usize = 4;

/// How models are measured.
pub struct Measuring<'a> {
    pub asked: &'a Asked<'a>,
    /// Images that are made together.
    pub batch: usize,
    pub reporter: &'a Reporter,
    pub interrupted: &'a AtomicBool,
}

/// What came of a model.
#[derive(Debug)]
pub struct Measured {
    pub model: Model,
    /// Its images, in the order of the columns.
    pub pictures: Vec<Picture>,
    /// Seconds of sampling and decoding them all.
    pub seconds: f64,
    /// Seconds of reading the weights and bringing them to the device.
    pub load_seconds: f64,
    /// The most memory that the process has had meanwhile, in bytes; on the processor, where the system tells.
    pub peak: Option<u64>,
}

impl Measuring<'_> {
    /// Measures a model; `None` where a signal came.
    ///
    /// * `before`: steps of the models before it
    ///
    /// # Errors
    ///
    /// If a weight cannot be read, the device fails, or the network computes a value that is not finite.
    pub fn measure(&self, candidate: Candidate, before: u64) -> Result<Option<Measured>> {
        let Candidate { model, files } = candidate;
        let found = self.asked.found;
        let is_processor = found.id == "cpu";
        let is_watched = is_processor && peak::forget();
        let started = Instant::now();
        let pipeline = files.load(self.asked.precision, found)?;
        // A device that fails to synchronize also fails on its next use.
        found.device.sync().ok();
        let load_seconds = started.elapsed().as_secs_f64();
        drop(files);
        for (file, report) in pipeline.reports() {
            if !report.unexpected.is_empty() {
                eprintln!("warning: {file}: {report}");
            }
        }
        let images = model.images(self.asked);
        if !is_processor && !self.warm_up(&pipeline, &model, &images, before)? {
            return Ok(None);
        }
        self.reporter.message(printable(&model.name));
        let started = Instant::now();
        let mut pictures = Vec::with_capacity(images.len());
        for images in images.chunks(self.batch) {
            let before = before + (pictures.len() * model.settings.steps) as u64;
            match self.make(&pipeline, &model.name, model.settings, images, before)? {
                Some(made) => pictures.extend(made),
                None => return Ok(None),
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let peak = peak::read().filter(|_| is_watched);
        drop(pipeline);
        // The next model may need other sizes than those that are kept.
        found.device.memory_cleanup();
        give_back_freed_memory();
        Ok(Some(Measured { model, pictures, seconds, load_seconds, peak }))
    }

    /// Takes a few steps with batches of every size that will come, so that no kernel is compiled, and no network
    /// recorded, while something is measured. Whether no signal came.
    fn warm_up(
        &self,
        pipeline: &Pipeline,
        model: &Model,
        images: &[ImageSpec],
        before: u64,
    ) -> Result<bool> {
        self.reporter.message(format!("{}, warm-up", printable(&model.name)));
        self.reporter.event("warm-up", json!({"name": model.name}));
        let settings = few_steps(model.settings);
        let first = &images[..images.len().min(self.batch)];
        let last = images.chunks(self.batch).last().filter(|last| last.len() != first.len());
        for images in std::iter::once(first).chain(last) {
            if self.make(pipeline, &model.name, settings, images, before)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a batch of images; `None` where a signal came.
    fn make(
        &self,
        pipeline: &Pipeline,
        name: &str,
        settings: Settings,
        images: &[ImageSpec],
        before: u64,
    ) -> Result<Option<Vec<Picture>>> {
        let request = Request { settings, images: images.to_vec() };
        let mut pictures = Vec::with_capacity(images.len());
        let result = pollster::block_on(pipeline.generate(&request, &mut async |event: Event<
            '_,
        >| {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Stop::Cancelled);
            }
            match event {
                Event::Step { index, total, time, .. } => {
                    self.reporter.position(before + (index * images.len()) as u64);
                    let step = json!({"name": name, "step": index, "steps": total, "time": time});
                    self.reporter.event("step", step);
                }
                Event::Image(picture) => pictures.push(picture),
            }
            Ok(())
        }));
        match result {
            Ok(()) => Ok(Some(pictures)),
            Err(GenerateError::Stopped(Stop::Cancelled)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The settings with few steps. An adaptive sampler would take all of its own, so another one is taken.
fn few_steps(settings: Settings) -> Settings {
    let few = Settings { steps: settings.steps.min(WARM_UP), ..settings };
    match settings.sampler.is_adaptive() {
        true => Settings { sampler: Sampler::Euler, karras: KarrasOptions::NONE, ..few },
        false => few,
    }
}

#[cfg(test)]
mod tests {
    use tintype::preset;

    use super::*;

    #[test]
    fn few_steps_fit_where_many_did() {
        let eta = KarrasOptions { eta: Some(0.5), ..KarrasOptions::NONE };
        for (name, sampler, karras) in [
            ("hidit-xl-1-256", Sampler::UniPc, KarrasOptions::NONE),
            ("sit-xl-1", Sampler::EulerMaruyama, KarrasOptions::NONE),
            ("sit-xl-1", Sampler::Dopri5, KarrasOptions::NONE),
            ("hdit-imagenet-256", Sampler::DpmFast, eta),
            ("hdit-imagenet-256", Sampler::DpmAdaptive, eta),
            ("pmf-b-16", Sampler::MeanFlow, KarrasOptions::NONE),
        ] {
            let network = preset::find(name).expect("a preset").architecture;
            let settings = Settings { sampler, karras, ..network.default_settings() };
            assert_eq!(settings.validate(&network), Ok(()), "{name}");
            let few = few_steps(settings);
            assert_eq!(few.validate(&network), Ok(()), "{name}");
            assert!(few.steps <= WARM_UP && !few.sampler.is_adaptive(), "{name}");
            assert_eq!(few.guidance, settings.guidance, "{name}");
        }
    }
}
