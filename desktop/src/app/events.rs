//! What the other threads did.

use std::path::PathBuf;

use eframe::egui;
use tintype::generate::{ModelPaths, Origin};

use super::{App, Chosen, Networks};
use crate::action::{Action, View};
use crate::average::with_average;
use crate::compare::Picture;
use crate::dialogs::{Answer as DialogAnswer, Purpose};
use crate::engine::{Made, Outcome, Update};
use crate::form::fitted;
use crate::model::Answer;
use crate::notices::Severity;

impl App {
    pub(super) fn inspected(&mut self, answer: Answer) {
        self.comparison.read(&answer);
        match answer {
            Answer::Model(model) if model.paths == self.preferences.choice.paths => {
                let labels = &model.inspection.labels;
                // The numbers of another model's classes mean others here.
                let is_same = |class: usize| {
                    let before = self.labels.as_ref();
                    before.is_none_or(|before| before.name(class) == labels.name(class))
                };
                let is_here = |class: &usize| *class < labels.len() && is_same(*class);
                self.preferences.form.classes.retain(is_here);
                self.labels = Some(labels.clone());
                let is_of_trouble =
                    |action: &Action| matches!(action, Action::EmbeddedModel | Action::Average(_));
                self.notices.withdraw(is_of_trouble);
                let (name, paths) = (model.title(), model.paths.clone());
                self.chosen = Chosen::Model(model);
                // Whoever opens a model there wants to compare it.
                if self.view == View::CompareModels {
                    self.add_to_comparison(name, paths);
                }
                if self.queue.is_empty() {
                    self.engine.prepare(self.preferences.choice.clone());
                }
                self.open_awaited();
            }
            // The model may open without it.
            Answer::Trouble(paths, trouble)
                if paths == self.preferences.choice.paths && paths.guide.is_some() =>
            {
                self.notices.trouble(format!("The guide is left out. {trouble}"));
                // It is the same model, for which a picture may wait.
                self.read(ModelPaths { guide: None, ..paths });
            }
            Answer::Trouble(paths, trouble) if paths == self.preferences.choice.paths => {
                let way_out = match &paths {
                    ModelPaths { average: Some(_), .. } => {
                        Some(("Use the first average", Action::Average(1)))
                    }
                    ModelPaths { model: None, vae: None, .. } => None,
                    _ => Some(("Use the emoji model", Action::EmbeddedModel)),
                };
                self.notices.add(Severity::Trouble, trouble.clone(), way_out);
                self.chosen = Chosen::Trouble(trouble);
                self.open_awaited();
            }
            // The answer to an older question.
            Answer::Model(_) | Answer::Trouble(..) => {}
            Answer::Paths(paths) => self.set_paths(paths),
            Answer::Picture(origin, maker) => self.open_picture(origin, maker),
            Answer::Useless(trouble) => self.notices.trouble(trouble),
        }
    }

    /// Takes over how a picture that was opened was made, once the model that made it is open, where that is here.
    fn open_picture(&mut self, origin: Box<Origin>, maker: Option<ModelPaths>) {
        if matches!(self.chosen, Chosen::Reading) {
            self.awaited = Some((origin, maker));
            return;
        }
        if let Some(paths) = maker.filter(|paths| *paths != self.preferences.choice.paths) {
            self.notices.info("The model that made the picture is opened.");
            self.read(paths);
            self.awaited = Some((origin, None));
        } else if self.has_model() {
            self.restore(&origin);
        }
    }

    /// Goes on with a picture that waited for the model.
    fn open_awaited(&mut self) {
        if let Some((origin, maker)) = self.awaited.take() {
            self.open_picture(origin, maker);
        }
    }

    /// Opens a model. A picture that waited for another one is no longer wanted.
    pub(super) fn set_paths(&mut self, paths: ModelPaths) {
        self.awaited = None;
        self.read(paths);
    }

    /// Has a model's files read.
    fn read(&mut self, paths: ModelPaths) {
        self.chosen = Chosen::Reading;
        self.start.note_open(&paths);
        self.preferences.set_paths(paths.clone());
        self.inspector.inspect(paths);
    }

    /// Opens an average of the network's file, counted from 1.
    pub(super) fn set_average(&mut self, number: usize) {
        self.set_paths(with_average(&self.preferences.choice.paths, number));
    }

    /// Takes over how a picture was made. Where that was with another average of the model's file, that one is opened.
    pub(super) fn restore(&mut self, origin: &Origin) {
        let Some(model) = self.model() else { return };
        let settings = fitted(origin.settings, model);
        let class = origin.spec.class.filter(|class| *class < model.inspection.labels.len());
        let average = model.other_average(&origin.weights.model);
        let is_same = average.is_some() || origin.weights.model == model.fingerprint;
        let sentence = match (is_same, settings == origin.settings) {
            (true, _) if !model.has_guide_of(origin) => other_guide(origin),
            (true, _) if average.is_some() => {
                "These are the picture's settings, class and seed now, and its average of the \
                 weights is opened."
            }
            (true, _) => "These are the picture's settings, class and seed now.",
            (false, true) => {
                "The picture was made with another model: its settings are here, the picture will \
                 be another one."
            }
            (false, false) => {
                "The picture was made with another kind of model, whose settings this one does not \
                 have."
            }
        };
        self.notices.info(sentence);
        self.set_settings(settings);
        let form = &mut self.preferences.form;
        form.take_seeds(origin.spec);
        if let Some(class) = class {
            form.classes = vec![class];
        }
        if let Some(number) = average {
            self.set_average(number);
        }
    }

    pub(super) fn apply(&mut self, update: Update, ctx: &egui::Context) {
        match update {
            Update::Devices(devices) => self.devices = devices,
            Update::Loading(device) => self.networks = Networks::Loading(device),
            Update::Ready(ready) => self.networks = Networks::Ready(Box::new(ready)),
            Update::NotReady(trouble) => {
                self.networks = Networks::None;
                self.notices.trouble(trouble);
            }
            Update::Step(step) => self.develop.step(step, ctx),
            Update::Picture(made) => self.pictured(*made),
            Update::End { job, outcome, seconds } => self.ended(job, outcome, seconds),
        }
    }

    fn pictured(&mut self, made: Made) {
        let job = made.job;
        let live = self.sketch.choice_of(job);
        let choice = live.or(self.queue.running().map(|job| &job.choice)).cloned();
        if let (Some(choice), Some(pace)) = (choice, made.pace) {
            self.pace = Some((choice, pace));
        }
        if self.sketch.choice_of(job).is_some() {
            self.sketch.picture(made);
            return;
        }
        self.queue.picture(job);
        let (image, evaluations, memory) = (made.image.clone(), made.evaluations, made.memory);
        let id = self.add(made);
        self.develop.finished(job, id);
        self.comparison.picture(job, Picture::new(id, evaluations, image), memory);
    }

    /// Takes a picture into the gallery, and says so where it could not be saved; returns its number.
    pub(super) fn add(&mut self, made: Made) -> u64 {
        if let Some(Err(trouble)) = &made.saved {
            self.notices.add(
                Severity::Trouble,
                format!("The picture is not saved: {trouble}. Choose another folder."),
                Some(("Choose a folder…", Action::Ask(Purpose::Output))),
            );
        }
        self.gallery.add(made)
    }

    fn ended(&mut self, job: u64, outcome: Outcome, seconds: f64) {
        self.develop.end(job);
        let failed = !matches!(outcome, Outcome::Done | Outcome::Cancelled);
        if let Some(choice) = self.sketch.end(job, failed) {
            // What is wanted of the processor is another wish, and made.
            self.goes_on(&choice.device, outcome);
            return;
        }
        let Some(job) = self.queue.end(job) else { return };
        let is_compared = self.comparison.end(job.id, &outcome, seconds);
        // Its row says it, too.
        if is_compared && self.view == View::CompareModels && matches!(outcome, Outcome::Failed(_))
        {
            self.networks = Networks::None;
            return;
        }
        if self.goes_on(&job.choice.device, outcome) {
            self.comparison.again(job.id);
            self.queue.again(job, "cpu");
        }
    }

    /// Tells how a job ended; whether the processor goes on with what a lost device left.
    fn goes_on(&mut self, device: &str, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Done | Outcome::Cancelled => {}
            Outcome::Failed(trouble) => {
                self.networks = Networks::None;
                self.notices.trouble(trouble);
            }
            Outcome::DeviceLost(reason) if device == "cpu" => {
                self.networks = Networks::None;
                let sentence = format!("The computation failed ({reason}). Please report it.");
                self.notices.trouble(sentence);
            }
            Outcome::DeviceLost(reason) => {
                self.networks = Networks::None;
                self.preferences.choice.device = "cpu".into();
                self.notices.trouble(format!(
                    "The device stopped working ({reason}). The processor goes on; try the device \
                     again under “Device”."
                ));
                return true;
            }
        }
        false
    }

    pub(super) fn answered(&mut self, purpose: Purpose, answer: DialogAnswer) {
        let path = match answer {
            DialogAnswer::Chosen(path) => path,
            DialogAnswer::Closed => return,
            DialogAnswer::Unavailable => {
                self.notices.trouble(
                    "The system's file dialog did not open. Drop the file on the window instead, or \
                     name it when starting the app.",
                );
                return;
            }
        };
        let mut paths = self.preferences.choice.paths.clone();
        match purpose {
            Purpose::Model => {
                let new = ModelPaths { model: Some(path), ..Default::default() };
                paths = crate::model::joined(new, paths);
            }
            Purpose::Autoencoder => {
                paths = ModelPaths { vae: Some(path), vae_config: None, ..paths };
            }
            Purpose::Statistics => paths.stats = Some(path),
            Purpose::Configuration => paths.config = Some(path),
            Purpose::Guide => paths.guide = Some(path),
            Purpose::Output => {
                self.set_folder(Some(path));
                return;
            }
            Purpose::Sheet(_) => {
                self.comparison.save(path);
                return;
            }
            Purpose::SaveAs(id, _) => {
                match self.gallery.save_as(id, &path) {
                    Ok(()) => self.notices.info(format!("Saved as {}.", path.display())),
                    Err(trouble) => self.notices.trouble(trouble),
                }
                return;
            }
        }
        self.set_paths(paths);
    }

    pub(super) fn set_folder(&mut self, folder: Option<PathBuf>) {
        self.preferences.output = folder;
        let folder = self.folder().to_path_buf();
        self.start.note_folder(&folder);
        self.gallery.set_folder(&folder);
        self.notices.withdraw(|action| *action == Action::Ask(Purpose::Output));
        match self.gallery.save_unsaved() {
            Ok(0) => {}
            Ok(n) => self.notices.info(format!("{n} pictures are saved there now.")),
            Err(trouble) => self.notices.trouble(trouble),
        }
    }
}

/// What to do first to make a picture again that was made with another guide, or with none.
pub(super) fn other_guide(origin: &Origin) -> &'static str {
    match origin.weights.guide {
        Some(_) => "The picture was made with another guide: choose that one to make it again.",
        None => "The picture was made without a guide: take the present one away to make it again.",
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tintype::diffusion::guidance::Guidance;
    use tintype::generate::{Fingerprints, ImageSpec, Settings};
    use tintype::precision::Precision;
    use tintype::settings::Sampler;
    use tintype_download::Environment;

    use super::*;
    use crate::notices::Notices;
    use crate::start::Start;

    /// An app that has taken in no answer yet, so that the model is still being read.
    fn app(folder: &TempDir) -> App {
        let folder = folder.path();
        let of = ["HF_HOME", "TINTYPE_CACHE", "TINTYPE_CATALOGUE"];
        let own = |name: &str| of.contains(&name).then(|| folder.join(name).into());
        let start = Start {
            preferences: folder.join("settings.json"),
            pictures: folder.join("pictures"),
            environment: Some(Environment::of(own)),
            ..Start::default()
        };
        App::new(&egui::Context::default(), None, start)
    }

    fn origin() -> Box<Origin> {
        let weights = Fingerprints {
            model: "0123456789abcdef".into(),
            autoencoder: None,
            statistics: None,
            guide: None,
        };
        Box::new(Origin {
            version: "0.1.0".into(),
            weights,
            class_name: "clock".into(),
            spec: ImageSpec::new(Some(8), 1234, 0),
            settings: Settings::new(Sampler::Euler, 5, Guidance::NONE),
            precision: Precision::F32,
            device: "cpu".into(),
        })
    }

    fn paths(model: &str) -> ModelPaths {
        ModelPaths { model: Some(model.into()), ..ModelPaths::default() }
    }

    #[test]
    fn a_picture_does_not_wait_for_a_model_that_is_chosen_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut app = app(&folder);
        app.inspected(Answer::Picture(origin(), Some(paths("own"))));
        assert!(app.awaited.is_some());
        app.set_paths(paths("chosen"));
        assert!(app.awaited.is_none());
        assert_eq!(app.start.last_open(), Some(paths("chosen")));
        // Its own model it does wait for, also where that does not load with its guide.
        app.chosen = Chosen::Trouble("it does not load".into());
        let guided = ModelPaths { guide: Some("guide".into()), ..paths("own") };
        app.inspected(Answer::Picture(origin(), Some(guided.clone())));
        assert_eq!(app.preferences.choice.paths, guided);
        assert!(app.awaited.is_some());
        app.inspected(Answer::Trouble(guided, "it is another network.".into()));
        assert_eq!(app.preferences.choice.paths, paths("own"));
        assert!(app.awaited.is_some());
    }

    #[test]
    fn a_picture_of_the_gallery_needs_a_model_and_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut app = app(&folder);
        let id = app.gallery.add(Made {
            job: 1,
            origin: *origin(),
            image: egui::ColorImage::filled([1, 1], egui::Color32::BLACK).into(),
            latent: None,
            png: vec![0_u8].into(),
            saved: None,
            pace: None,
            evaluations: 5,
            memory: 0,
        });
        for wish in [Action::UseSettings(id), Action::OtherSeed(id), Action::OtherClass(id)] {
            app.act(wish, &egui::Context::default());
            let told = app.notices.shown().last().expect("it is told");
            assert!(told.text.contains("no model is open"), "{}", told.text);
            app.notices = Notices::default();
        }
    }
}
