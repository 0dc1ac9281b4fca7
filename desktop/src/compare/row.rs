//! A model of the comparison: what is asked of it, how far it is, and what it cost.

use std::sync::Arc;

use eframe::egui;
use tintype::generate::{ImageSpec, ModelPaths, Settings, bytes};
use tintype::settings::Quality;

use crate::gallery::Shown;
use crate::model::Model;
use crate::queue::Queue;
use crate::{quality, text};

/// A model.
pub struct Row {
    /// Its number.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// Its files.
    pub paths: ModelPaths,
    /// What is in them, or why it would not load; `None` while they are read.
    pub(super) model: Option<Result<Box<Model>, String>>,
    /// The class of the name that is typed, `None` of a model without classes; or why it has none. `None` before a
    /// name is typed.
    pub(super) class: Option<Result<Option<usize>, String>>,
    /// Its pictures, once they were asked for.
    pub run: Option<Run>,
}

/// Pictures that a model makes.
pub struct Run {
    /// The number of the job.
    pub job: u64,
    /// The class by the model's own name; `None` for a model without classes.
    pub class_name: Option<String>,
    /// How they are made.
    pub settings: Settings,
    /// Which.
    pub specs: Vec<ImageSpec>,
    /// Those that are finished.
    pub pictures: Vec<Picture>,
    /// How the job ended.
    pub(super) ending: Option<Stage>,
    /// Seconds that all of them took, without the loading of the model.
    pub(super) seconds: f64,
    /// Bytes of the weights on the device and of what decoding one picture takes, known with the first picture.
    pub(super) memory: u64,
}

/// A finished picture.
pub struct Picture {
    /// Its number in the gallery.
    pub id: u64,
    /// Evaluations of the network; a guided one is two.
    pub evaluations: usize,
    pub(super) image: Arc<egui::ColorImage>,
    shown: Shown,
}

/// What a row is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its files are being read.
    Reading,
    /// It would make pictures.
    Ready,
    /// It makes none of this class, and why.
    LeftOut(String),
    /// Its job is in the queue.
    Waiting,
    /// It is at work.
    Running,
    /// All its pictures are made.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// It makes none at all, and why.
    Failed(String),
}

/// How a model makes pictures of a quality: its sampler and steps, and what else its authors sample with.
pub(super) fn settings(model: &Model, quality: Quality) -> Settings {
    quality::settings(quality, model.defaults, model.defaults, &model.inspection.architecture)
}

impl Row {
    pub(super) fn new(id: u64, name: String, paths: ModelPaths) -> Self {
        Self { id, name, paths, model: None, class: None, run: None }
    }

    /// What is in its files, once they are read and would load.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref()?.as_deref().ok()
    }

    /// What it is at.
    pub fn stage(&self, queue: &Queue) -> Stage {
        if let Some(Run { job, ending, .. }) = &self.run {
            let is_waiting = || queue.waiting().any(|other| other.id == *job);
            return match ending {
                Some(ending) => ending.clone(),
                None if queue.running().is_some_and(|other| other.id == *job) => Stage::Running,
                None if is_waiting() => Stage::Waiting,
                // It was taken out of the queue.
                None => Stage::Stopped,
            };
        }
        match (&self.model, &self.class) {
            (None, _) => Stage::Reading,
            (Some(Err(trouble)), _) => Stage::Failed(trouble.clone()),
            (Some(Ok(_)), Some(Err(reason))) => Stage::LeftOut(reason.clone()),
            (Some(Ok(_)), _) => Stage::Ready,
        }
    }

    /// What stands beside its pictures, a line each: how they are made, or would be in this quality, which they are,
    /// and what they cost.
    pub fn captions(&self, quality: Quality) -> Vec<String> {
        let [how, which, cost] = match &self.run {
            Some(run) => [Some(how(&run.settings)), run.which(), run.cost()],
            None => {
                let how = self.model().map(|model| how(&settings(model, quality)));
                [how, self.class_title(), None]
            }
        };
        [how, which, cost].into_iter().flatten().collect()
    }

    /// The class of the name that is typed, so that a part of a name is seen to mean it.
    fn class_title(&self) -> Option<String> {
        let class = (*self.class.as_ref()?.as_ref().ok()?)?;
        Some(class_title(class, &self.model()?.inspection.labels.name(class)))
    }
}

/// A class by the model's own number and name: "class 207: golden retriever".
fn class_title(class: usize, name: &str) -> String {
    let (number, name) = (class.to_string(), text::short(name));
    match name == number {
        true => format!("class {number}"),
        false => format!("class {number}: {name}"),
    }
}

/// Sampler, steps and guidance: "unipc · 8 steps · guidance 2".
fn how(settings: &Settings) -> String {
    let guidance = match settings.guidance.scale {
        1.0 => "no guidance".into(),
        scale => format!("guidance {scale}"),
    };
    format!("{} · {} · {guidance}", settings.sampler.name(), text::steps(settings))
}

impl Run {
    pub(super) fn new(
        job: u64,
        class_name: Option<String>,
        settings: Settings,
        specs: Vec<ImageSpec>,
    ) -> Self {
        let pictures = Vec::with_capacity(specs.len());
        Self { job, class_name, settings, specs, pictures, ending: None, seconds: 0.0, memory: 0 }
    }

    /// Class and seed of a picture.
    pub fn title(&self, spec: &ImageSpec) -> String {
        match &self.class_name {
            Some(name) => format!("{}, {}", text::short(name), text::seed(spec)),
            None => text::seed(spec),
        }
    }

    /// The class and the seeds: "class 207: golden retriever, seeds 7 to 10".
    fn which(&self) -> Option<String> {
        let (first, last) = (self.specs.first()?, self.specs.last()?);
        let seeds = match self.specs.len() {
            1 => text::seed(first),
            _ => format!("seeds {} to {}", first.seed, last.seed),
        };
        Some(match first.class.zip(self.class_name.as_deref()) {
            Some((class, name)) => format!("{}, {seeds}", class_title(class, name)),
            None => seeds,
        })
    }

    /// Evaluations, seconds and memory, once the first picture is made: "16 evaluations (NFE) · 2.1 s · 30.8 MiB of
    /// memory".
    fn cost(&self) -> Option<String> {
        let evaluations = || self.pictures.iter().map(|picture| picture.evaluations);
        let evaluations = match (evaluations().min()?, evaluations().max()?) {
            (1, 1) => "1 evaluation (NFE)".to_string(),
            (least, most) if least == most => format!("{most} evaluations (NFE)"),
            (least, most) => format!("{least} to {most} evaluations (NFE)"),
        };
        let seconds = (self.ending == Some(Stage::Done)).then(|| text::duration(self.seconds));
        let (each, seconds) = match self.specs.len() {
            1 => ("", seconds),
            n => (" each", seconds.map(|seconds| format!("{seconds} for {n} pictures"))),
        };
        let memory = format!("{} of memory", bytes(self.memory));
        let parts = [Some(evaluations + each), seconds, Some(memory)];
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" · "))
    }
}

impl Picture {
    /// A picture of the gallery.
    pub fn new(id: u64, evaluations: usize, image: Arc<egui::ColorImage>) -> Self {
        Self { id, evaluations, shown: Shown::new(image.clone()), image }
    }

    /// Its width and height.
    pub fn size(&self) -> egui::Vec2 {
        let [width, height] = self.image.size;
        egui::vec2(width as f32, height as f32)
    }

    /// Its texture, made on the first call.
    pub fn texture(&mut self, ctx: &egui::Context) -> egui::load::SizedTexture {
        self.shown.texture(ctx)
    }
}
