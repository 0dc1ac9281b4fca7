//! What people want done.

use eframe::egui;
use tintype::generate::{ImageSpec, ModelPaths, Origin, Settings};

use super::App;
use super::events::other_guide;
use crate::action::{Action, View};
use crate::form::{random, random_seed};
use crate::notices::Severity;
use crate::preferences::OfModel;
use crate::sketch::Layout;
use crate::text;

impl App {
    /// Acts on a wish.
    pub fn act(&mut self, action: Action, ctx: &egui::Context) {
        match action {
            Action::Generate => self.generate(),
            Action::Surprise => {
                let classes = self.model().map_or(0, |model| model.inspection.labels.len());
                if classes > 0 {
                    self.preferences.form.classes = vec![random(classes as u64) as usize];
                }
                match self.keeps() || self.layout() != Layout::One && self.is_live() {
                    // It is made live.
                    true => {
                        self.preferences.form.seed = random_seed();
                        self.view = View::Develop;
                    }
                    false => self.generate(),
                }
            }
            Action::Cancel(job) => self.queue.cancel(job),
            Action::CancelAll => self.queue.cancel_all(),
            Action::Shift(job, by) => self.queue.shift(job, by),
            Action::Choose { class, add } => {
                self.preferences.form.choose(class, add);
                self.picker.point_at(class);
            }
            Action::Favourite(class) => {
                if let Some(of_model) = self.edit_model() {
                    of_model.toggle_favourite(class);
                }
            }
            Action::Live(is_on) => {
                if let Some(of_model) = self.edit_model() {
                    of_model.live = Some(is_on);
                }
            }
            Action::Keep => self.keep(),
            Action::KeepStrip => self.keep_strip(),
            Action::Layout(layout) => self.set_layout(layout),
            Action::Take { ahead, scale } => self.take(ahead, scale),
            Action::Blend(amount) => self.blend(amount),
            Action::NewSeed => self.preferences.form.seed = random_seed(),
            Action::SecondSeed(is_on) => self.preferences.form.set_second(is_on),
            Action::NewSecondSeed => {
                if let Some(to) = &mut self.preferences.form.to {
                    to.seed = random_seed();
                }
            }
            Action::Interpolate => self.interpolate(),
            Action::Defaults => {
                if let Some(model) = self.model() {
                    self.set_settings(model.defaults);
                }
            }
            Action::Ask(purpose) => self.dialogs.ask(purpose),
            Action::EmbeddedModel => self.set_paths(ModelPaths::default()),
            Action::AskModel(question) => self.browser.ask(question),
            Action::FetchModel(name) => {
                self.browser.begin(&name, self.preferences.choice.paths.clone());
            }
            Action::PauseModel(name) => self.browser.pause(&name),
            Action::UseModel(name) => self.use_model(&name),
            Action::RemoveModel(name) => self.remove_model(&name),
            Action::LookForModels => self.browser.look(),
            Action::AddToComparison { name, paths } => self.add_to_comparison(name, paths),
            Action::RemoveFromComparison(row) => self.remove_from_comparison(row),
            Action::StartComparison => self.compare_models(),
            Action::StopComparison => self.stop_comparison(),
            Action::NewComparisonSeed => self.comparison.seed = random_seed(),
            Action::Average(number) => self.set_average(number),
            Action::Guide(guide) => {
                let present = self.preferences.choice.paths.clone();
                self.set_paths(ModelPaths { guide, ..present });
            }
            Action::OpenPage(address) => {
                if let Err(e) = crate::page::open(&address) {
                    let sentence = format!("{address} could not be opened in a browser: {e}");
                    self.notices.trouble(sentence);
                }
            }
            Action::Device(device) => {
                self.preferences.choice.device = device;
                self.prepare();
            }
            Action::Precision(precision) => {
                self.preferences.choice.precision = precision;
                self.prepare();
            }
            Action::DefaultFolder => self.set_folder(None),
            Action::Drop(files) => {
                self.inspector.sort(files, self.preferences.choice.paths.clone(), false);
            }
            Action::Show(view) => {
                self.view = view;
                match view {
                    View::Models => self.browser.open(),
                    View::CompareModels => {
                        self.browser.look();
                        self.comparison.wants_focus = true;
                    }
                    _ => {}
                }
            }
            Action::UseSettings(id) => {
                if let Some(origin) = self.origin(id)
                    && self.has_model()
                {
                    self.restore(&origin);
                }
            }
            Action::UseSeed(id) => {
                if let Some(origin) = self.origin(id) {
                    self.preferences.form.take_seeds(origin.spec);
                }
            }
            Action::OtherSeed(id) => self.other_seed(id),
            Action::OtherClass(id) => {
                if let Some(origin) = self.origin(id)
                    && self.has_model()
                {
                    self.restore(&origin);
                    self.preferences.form.classes.clear();
                    self.picker.focus();
                    self.view = View::Develop;
                    self.notices.info(format!(
                        "Pick another class: {} and the settings stay.",
                        text::seed(&origin.spec)
                    ));
                }
            }
            Action::Copy(id) => match self.gallery.image(id) {
                Some(image) => {
                    ctx.copy_image(image);
                    self.notices.info("The picture is in the clipboard.");
                }
                None => self.notices.trouble("The picture is not loaded yet."),
            },
            Action::Delete(id) => self.delete(id),
            Action::Undo => match self.gallery.undo() {
                Ok(Some(_)) => self.notices.withdraw(|action| *action == Action::Undo),
                Ok(None) => {}
                Err(trouble) => self.notices.trouble(trouble),
            },
            Action::Dismiss(notice) => self.notices.dismiss(notice),
            Action::Theme(theme) => {
                self.preferences.theme = theme;
                crate::style::set_theme(ctx, theme);
            }
        }
    }

    fn origin(&self, id: u64) -> Option<Origin> {
        self.gallery.get(id)?.origin.clone()
    }

    /// Whether there is a model for a picture's settings; says so where there is none.
    pub(super) fn has_model(&mut self) -> bool {
        let is_open = self.model().is_some();
        if !is_open {
            self.notices.trouble(
                "The picture's settings are not used, since no model is open. Open one, and then \
                 the picture once more.",
            );
        }
        is_open
    }

    pub(super) fn edit_model(&mut self) -> Option<&mut OfModel> {
        let key = self.model()?.key().to_string();
        Some(self.preferences.models.entry(key).or_default())
    }

    /// Loads ahead what was just chosen, unless pictures are being made.
    fn prepare(&mut self) {
        if self.queue.is_empty() && self.model().is_some() {
            self.engine.prepare(self.preferences.choice.clone());
        }
    }

    fn generate(&mut self) {
        let Some((settings, has_classes)) = self.asked_for() else { return };
        if self.keeps() {
            self.keep();
            return;
        }
        let images = self.preferences.form.images(has_classes);
        self.enqueue(settings, images);
    }

    /// Makes pictures from the first seed to the second.
    fn interpolate(&mut self) {
        let Some((settings, has_classes)) = self.asked_for() else { return };
        let images = self.preferences.form.strips(has_classes);
        if !images.is_empty() {
            self.enqueue(settings, images);
        }
    }

    /// How pictures are to be made, and whether of classes; `None` where a class is to be picked first.
    fn asked_for(&mut self) -> Option<(Settings, bool)> {
        let (settings, has_classes) = (self.settings()?, self.model()?.has_classes());
        if has_classes && self.preferences.form.classes.is_empty() {
            self.picker.focus();
            self.notices.info("Pick a class first, or press “Surprise me”.");
            return None;
        }
        Some((settings, has_classes))
    }

    fn other_seed(&mut self, id: u64) {
        let Some(origin) = self.origin(id) else { return };
        if !self.has_model() {
            return;
        }
        let Some(model) = self.model() else { return };
        if let Some(number) = model.other_average(&origin.weights.model) {
            self.notices.info(format!(
                "The picture was made with average {number} of this model; choose that one first."
            ));
            return;
        }
        if origin.weights.model != model.fingerprint {
            self.notices.info("The picture was made with another model; open that one first.");
            return;
        }
        if !model.has_guide_of(&origin) {
            self.notices.info(other_guide(&origin));
            return;
        }
        let spec = ImageSpec { seed: random_seed(), blend: None, ..origin.spec };
        self.enqueue(origin.settings, vec![spec]);
        self.view = View::Develop;
    }

    pub(super) fn enqueue(&mut self, settings: Settings, images: Vec<ImageSpec>) {
        let Some(model) = self.model() else { return };
        let labels = &model.inspection.labels;
        let mut classes: Vec<usize> = images.iter().filter_map(|image| image.class).collect();
        classes.dedup();
        let names: Vec<String> =
            classes.iter().map(|class| text::short(&labels.name(*class)).into()).collect();
        let name = match names.as_slice() {
            [] => "picture".into(),
            [one] => one.clone(),
            [one, two] => format!("{one}, {two}"),
            [one, rest @ ..] => format!("{one} and {} more", rest.len()),
        };
        let settings = Settings { keep_latent: model.gate().is_some(), ..settings };
        if let Some(of_model) = self.edit_model() {
            classes.iter().rev().for_each(|class| of_model.made(*class));
        }
        self.view = View::Develop;
        self.queue.add(name, self.preferences.choice.clone(), settings, images);
    }

    fn delete(&mut self, id: u64) {
        let next = self.gallery.neighbour(id, 1).or_else(|| self.gallery.neighbour(id, -1));
        match self.gallery.delete(id) {
            Ok(comes_back) => {
                self.develop.forget(id);
                self.notices.withdraw(|action| *action == Action::Undo);
                let undo = comes_back.then_some(("Undo", Action::Undo));
                let sentence = match comes_back {
                    true => "The picture is deleted.",
                    false => "The picture's file was deleted before.",
                };
                self.notices.add(Severity::Info, sentence, undo);
                self.view = match (self.view, next) {
                    (View::Picture(_), Some(next)) => View::Picture(next),
                    (View::Picture(_) | View::Compare(..), _) => View::Gallery,
                    (view, _) => view,
                };
            }
            Err(trouble) => self.notices.trouble(trouble),
        }
    }
}
