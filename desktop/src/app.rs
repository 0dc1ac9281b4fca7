//! The app's state, and the one place that changes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eframe::{egui, egui_wgpu};
use tintype::generate::{ModelPaths, Origin, Settings};

use crate::action::{Action, View};
use crate::dialogs::{Answer as DialogAnswer, Dialogs, Purpose};
use crate::engine::{DeviceRow, Engine, Outcome, Ready, Update};
use crate::form::{fitted, random, random_seed};
use crate::gallery::Gallery;
use crate::model::{Answer, Inspector, Model};
use crate::notices::{Notices, Severity};
use crate::preferences::{OfModel, Preferences, Window};
use crate::queue::Queue;
use crate::restart;
use crate::ui::develop::Develop;
use crate::ui::frame_times::FrameTimes;
use crate::ui::picker::Picker;
use crate::words;

/// How the app is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The file of the preferences.
    pub preferences: PathBuf,
    /// Where pictures are saved unless somebody chose another folder.
    pub pictures: PathBuf,
    /// Model, instead of the remembered one.
    pub paths: Option<ModelPaths>,
    /// Device, instead of the remembered one.
    pub device: Option<String>,
    /// Folder for pictures, instead of the remembered one.
    pub output: Option<PathBuf>,
    /// Files to open, as if they were dropped on the window.
    pub files: Vec<PathBuf>,
    /// A message to begin with.
    pub notice: Option<String>,
    /// Repaint without pause and report how long frames take.
    pub frame_times: bool,
}

/// What the engine said last about its networks.
#[derive(Clone, Debug, Default)]
pub enum Networks {
    /// Nothing yet.
    #[default]
    None,
    /// Being loaded onto a device.
    Loading(String),
    /// Ready.
    Ready(Ready),
}

/// The model that the next pictures are made with.
#[derive(Debug)]
pub enum Chosen {
    /// Its files are being read.
    Reading,
    /// It would load.
    Model(Box<Model>),
    /// It would not, and why.
    Trouble(String),
}

/// Everything.
pub struct App {
    pub(crate) preferences: Preferences,
    start: Start,
    saved: (Preferences, Instant),
    inspector: Inspector,
    pub(crate) chosen: Chosen,
    engine: Engine,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) networks: Networks,
    pub(crate) queue: Queue,
    pub(crate) develop: Develop,
    pub(crate) gallery: Gallery,
    pub(crate) picker: Picker,
    pub(crate) view: View,
    pub(crate) notices: Notices,
    dialogs: Dialogs,
    pub(crate) frame_times: Option<FrameTimes>,
    window_lost: Arc<AtomicBool>,
}

/// How long changes wait before they are written.
const SAVE_AFTER: Duration = Duration::from_secs(2);

impl App {
    /// The app of a window; `window` is what draws it.
    pub fn new(ctx: &egui::Context, window: Option<egui_wgpu::RenderState>, start: Start) -> Self {
        crate::ui::style::apply(ctx);
        let (mut preferences, trouble) = Preferences::load(&start.preferences);
        let mut notices = Notices::default();
        if let Some(trouble) = trouble {
            notices.trouble(trouble);
        }
        if let Some(notice) = &start.notice {
            notices.trouble(notice.clone());
        }
        if let Some(paths) = &start.paths {
            preferences.choice.paths = paths.clone();
        }
        if let Some(device) = &start.device {
            preferences.choice.device = device.clone();
        }
        if start.output.is_some() {
            preferences.output = start.output.clone();
        }
        crate::ui::style::set_theme(ctx, preferences.theme);
        let window_lost = Arc::new(AtomicBool::new(false));
        if let Some(state) = &window {
            let (lost, ctx) = (window_lost.clone(), ctx.clone());
            state.device.set_device_lost_callback(move |reason, _| {
                if reason != eframe::wgpu::DeviceLostReason::Destroyed {
                    lost.store(true, Ordering::Relaxed);
                    ctx.request_repaint();
                }
            });
        }
        let folder = preferences.output.clone().unwrap_or_else(|| start.pictures.clone());
        let mut app = Self {
            saved: (preferences.clone(), Instant::now()),
            inspector: Inspector::start(ctx.clone()),
            chosen: Chosen::Reading,
            engine: Engine::start(ctx.clone(), window.clone()),
            devices: Vec::new(),
            networks: Networks::None,
            queue: Queue::default(),
            develop: Develop::new(window),
            gallery: Gallery::open(&folder, ctx.clone()),
            picker: Picker::default(),
            view: View::Develop,
            notices,
            dialogs: Dialogs::new(ctx.clone()),
            frame_times: start.frame_times.then(FrameTimes::default),
            window_lost,
            preferences,
            start,
        };
        app.picker.focus();
        app.inspector.inspect(app.preferences.choice.paths.clone());
        if !app.start.files.is_empty() {
            let present = app.preferences.choice.paths.clone();
            app.inspector.sort(app.start.files.clone(), present);
        }
        app
    }

    /// The model, if it would load.
    pub fn model(&self) -> Option<&Model> {
        match &self.chosen {
            Chosen::Model(model) => Some(model),
            _ => None,
        }
    }

    /// What is remembered of the model.
    pub fn of_model(&self) -> Option<&OfModel> {
        self.preferences.models.get(&self.model()?.fingerprint)
    }

    /// Whether the networks are loaded.
    pub fn is_ready(&self) -> bool {
        matches!(self.networks, Networks::Ready(_))
    }

    /// The settings of the next pictures.
    pub fn settings(&self) -> Option<Settings> {
        let model = self.model()?;
        Some(self.of_model().and_then(|m| m.settings).unwrap_or(model.defaults))
    }

    fn set_settings(&mut self, settings: Settings) {
        let Some(model) = self.model() else { return };
        let (key, defaults) = (model.fingerprint.clone(), model.defaults);
        let of_model = self.preferences.models.entry(key).or_default();
        of_model.settings = (settings != defaults).then_some(settings);
    }

    /// The settings of the next pictures, to be typed into.
    pub(crate) fn edit_settings(&mut self, edit: impl FnOnce(&mut Settings)) {
        if let Some(mut settings) = self.settings() {
            edit(&mut settings);
            self.set_settings(settings);
        }
    }

    /// The jobs, for those who watch.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The pictures, for those who watch.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// What is remembered, for those who watch.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }

    /// What fills the window, for those who watch.
    pub fn view(&self) -> View {
        self.view
    }

    /// The messages in the window, for those who watch.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Where pictures are saved.
    pub fn folder(&self) -> &Path {
        self.preferences.output.as_deref().unwrap_or(&self.start.pictures)
    }

    /// Takes in what the other threads did, and gives the engine its next job.
    pub fn update(&mut self, ctx: &egui::Context) {
        for answer in self.inspector.answers() {
            self.inspected(answer);
        }
        for update in self.engine.news() {
            self.news(update, ctx);
        }
        self.gallery.update();
        for (purpose, answer) in self.dialogs.answers() {
            self.answered(purpose, answer);
        }
        let folder = self.folder().to_path_buf();
        if let Some(work) = self.queue.next(&folder) {
            self.develop.begin(&work, self.queue.running().map(|job| job.name.clone()));
            self.engine.work(work);
        }
    }

    fn inspected(&mut self, answer: Answer) {
        match answer {
            Answer::Model(model) if model.paths == self.preferences.choice.paths => {
                let classes = model.inspection.labels.len();
                self.preferences.form.classes.retain(|class| *class < classes);
                self.notices.withdraw(|action| *action == Action::EmbeddedModel);
                self.chosen = Chosen::Model(model);
                if self.queue.is_empty() {
                    self.engine.prepare(self.preferences.choice.clone());
                }
            }
            Answer::Trouble(paths, trouble) if paths == self.preferences.choice.paths => {
                let way_out = paths.model.is_some() || paths.vae.is_some();
                let way_out = way_out.then_some(("Use the emoji model", Action::EmbeddedModel));
                self.notices.add(Severity::Trouble, trouble.clone(), way_out);
                self.chosen = Chosen::Trouble(trouble);
            }
            // The answer to an older question.
            Answer::Model(_) | Answer::Trouble(..) => {}
            Answer::Paths(paths) => self.set_paths(paths),
            Answer::Picture(_, origin) => self.restore(&origin),
            Answer::Useless(trouble) => self.notices.trouble(trouble),
        }
    }

    fn set_paths(&mut self, paths: ModelPaths) {
        self.chosen = Chosen::Reading;
        self.preferences.choice.paths = paths.clone();
        self.inspector.inspect(paths);
    }

    /// Takes over how a picture was made.
    fn restore(&mut self, origin: &Origin) {
        let Some(model) = self.model() else { return };
        let settings = fitted(origin.settings, &model.inspection.architecture);
        let class = origin.spec.class.filter(|class| *class < model.inspection.labels.len());
        match (origin.model == model.fingerprint, settings == origin.settings) {
            (true, _) => self.notices.info("These are the picture's settings, class and seed now."),
            (false, true) => self.notices.info(
                "The picture was made with another model: its settings are here, the picture will \
                 be another one.",
            ),
            (false, false) => self.notices.info(
                "The picture was made with another kind of model, whose settings this one does not \
                 have.",
            ),
        }
        self.set_settings(settings);
        let form = &mut self.preferences.form;
        (form.seed, form.seed_locked) = (origin.spec.seed, true);
        if let Some(class) = class {
            form.classes = vec![class];
        }
    }

    fn news(&mut self, update: Update, ctx: &egui::Context) {
        match update {
            Update::Devices(devices) => self.devices = devices,
            Update::Loading(device) => self.networks = Networks::Loading(device),
            Update::Ready(ready) => self.networks = Networks::Ready(ready),
            Update::NotReady(trouble) => {
                self.networks = Networks::None;
                self.notices.trouble(trouble);
            }
            Update::Step(step) => self.develop.step(step, ctx),
            Update::Picture(made) => {
                self.queue.picture(made.job);
                let job = made.job;
                if let Err(trouble) = &made.saved {
                    self.notices.add(
                        Severity::Trouble,
                        format!("The picture is not saved: {trouble}. Choose another folder."),
                        Some(("Choose a folder…", Action::Ask(Purpose::Output))),
                    );
                }
                let id = self.gallery.add(*made);
                self.develop.finished(job, id);
            }
            Update::End { job, outcome } => self.ended(job, outcome),
        }
    }

    fn ended(&mut self, job: u64, outcome: Outcome) {
        self.develop.end(job);
        let Some(job) = self.queue.end(job) else { return };
        match outcome {
            Outcome::Done | Outcome::Cancelled => {}
            Outcome::Failed(trouble) => {
                self.networks = Networks::None;
                self.notices.trouble(trouble);
            }
            Outcome::DeviceLost(reason) if job.choice.device == "cpu" => {
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
                self.queue.again(job, "cpu");
            }
        }
    }

    fn answered(&mut self, purpose: Purpose, answer: DialogAnswer) {
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
            Purpose::Autoencoder => paths.vae = Some(path),
            Purpose::Statistics => paths.stats = Some(path),
            Purpose::Configuration => paths.config = Some(path),
            Purpose::Output => {
                self.set_folder(Some(path));
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

    fn set_folder(&mut self, folder: Option<PathBuf>) {
        self.preferences.output = folder;
        let folder = self.folder().to_path_buf();
        self.gallery.set_folder(&folder);
        self.notices.withdraw(|action| *action == Action::Ask(Purpose::Output));
        match self.gallery.save_unsaved() {
            Ok(0) => {}
            Ok(n) => self.notices.info(format!("{n} pictures are saved there now.")),
            Err(trouble) => self.notices.trouble(trouble),
        }
    }

    /// Acts on a wish.
    pub fn act(&mut self, action: Action, ctx: &egui::Context) {
        match action {
            Action::Generate => self.generate(),
            Action::Surprise => {
                let classes = self.model().map_or(0, |model| model.inspection.labels.len());
                if classes > 0 {
                    self.preferences.form.classes = vec![random(classes as u64) as usize];
                }
                self.generate();
            }
            Action::Cancel(job) => self.queue.cancel(job),
            Action::CancelAll => self.queue.cancel_all(),
            Action::Shift(job, by) => self.queue.shift(job, by),
            Action::Choose { class, add } => self.preferences.form.choose(class, add),
            Action::Favourite(class) => {
                if let Some(of_model) = self.edit_model() {
                    of_model.toggle_favourite(class);
                }
            }
            Action::NewSeed => self.preferences.form.seed = random_seed(),
            Action::Defaults => {
                if let Some(model) = self.model() {
                    self.set_settings(model.defaults);
                }
            }
            Action::Ask(purpose) => self.dialogs.ask(purpose),
            Action::EmbeddedModel => self.set_paths(ModelPaths::default()),
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
                self.inspector.sort(files, self.preferences.choice.paths.clone());
            }
            Action::Show(view) => self.view = view,
            Action::UseSettings(id) => {
                if let Some(origin) = self.origin(id) {
                    self.restore(&origin);
                }
            }
            Action::UseSeed(id) => {
                if let Some(origin) = self.origin(id) {
                    let form = &mut self.preferences.form;
                    (form.seed, form.seed_locked) = (origin.spec.seed, true);
                }
            }
            Action::OtherSeed(id) => self.other_seed(id),
            Action::OtherClass(id) => {
                if let Some(origin) = self.origin(id) {
                    self.restore(&origin);
                    self.preferences.form.classes.clear();
                    self.picker.focus();
                    self.view = View::Develop;
                    self.notices.info(format!(
                        "Pick another class: seed {} and the settings stay.",
                        origin.spec.seed
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
                crate::ui::style::set_theme(ctx, theme);
            }
        }
    }

    fn origin(&self, id: u64) -> Option<Origin> {
        self.gallery.get(id)?.origin.clone()
    }

    fn edit_model(&mut self) -> Option<&mut OfModel> {
        let key = self.model()?.fingerprint.clone();
        Some(self.preferences.models.entry(key).or_default())
    }

    /// Loads ahead what was just chosen, unless pictures are being made.
    fn prepare(&mut self) {
        if self.queue.is_empty() && self.model().is_some() {
            self.engine.prepare(self.preferences.choice.clone());
        }
    }

    fn generate(&mut self) {
        let (Some(settings), Some(model)) = (self.settings(), self.model()) else { return };
        let has_classes = model.has_classes();
        if has_classes && self.preferences.form.classes.is_empty() {
            self.picker.focus();
            self.notices.info("Pick a class first, or press “Surprise me”.");
            return;
        }
        let images = self.preferences.form.images(has_classes);
        self.enqueue(settings, images);
    }

    fn other_seed(&mut self, id: u64) {
        let Some(origin) = self.origin(id) else { return };
        let Some(model) = self.model() else { return };
        if origin.model != model.fingerprint {
            self.notices.info("The picture was made with another model; open that one first.");
            return;
        }
        let spec = tintype::generate::ImageSpec { seed: random_seed(), ..origin.spec };
        self.enqueue(origin.settings, vec![spec]);
        self.view = View::Develop;
    }

    fn enqueue(&mut self, settings: Settings, images: Vec<tintype::generate::ImageSpec>) {
        let Some(model) = self.model() else { return };
        let labels = &model.inspection.labels;
        let mut classes: Vec<usize> = images.iter().filter_map(|image| image.class).collect();
        classes.dedup();
        let names: Vec<String> =
            classes.iter().map(|class| words::short(&labels.name(*class)).into()).collect();
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
            Ok(()) => {
                self.develop.forget(id);
                self.notices.withdraw(|action| *action == Action::Undo);
                let undo = Some(("Undo", Action::Undo));
                self.notices.add(Severity::Info, "The picture is deleted.", undo);
                self.view = match (self.view, next) {
                    (View::Picture(_), Some(next)) => View::Picture(next),
                    (View::Picture(_) | View::Compare(..), _) => View::Gallery,
                    (view, _) => view,
                };
            }
            Err(trouble) => self.notices.trouble(trouble),
        }
    }

    /// Remembers the window, and writes preferences some time after they changed.
    fn remember(&mut self, ctx: &egui::Context) {
        let window = ctx.input(|input| {
            let viewport = input.viewport();
            let size = viewport.inner_rect?.size();
            Some(Window {
                position: viewport.outer_rect.map(|rect| [rect.min.x, rect.min.y]),
                size: [size.x, size.y],
                maximized: viewport.maximized.unwrap_or(false),
            })
        });
        // A maximised window remembers the size it goes back to.
        if let Some(window) = window {
            let before = self.preferences.window;
            self.preferences.window = Some(match (window.maximized, before) {
                (true, Some(before)) => Window { maximized: true, ..before },
                _ => window,
            });
        }
        if self.preferences != self.saved.0 && self.saved.1.elapsed() > SAVE_AFTER {
            self.save();
        }
    }

    fn save(&mut self) {
        if let Err(trouble) = self.preferences.save(&self.start.preferences) {
            self.notices.trouble(trouble);
        }
        self.saved = (self.preferences.clone(), Instant::now());
    }

    /// The device that draws the window is gone.
    fn leave_lost_window(&mut self) -> ! {
        self.save();
        restart::again(&self.start, &restart::notice("The graphics device stopped working"))
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        self.update(ctx);
        if self.window_lost.swap(false, Ordering::Relaxed) {
            self.leave_lost_window();
        }
    }

    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        if let Some(times) = &mut self.frame_times {
            times.frame();
            ui.ctx().request_repaint();
        }
        let mut actions = crate::ui::keys::actions(self, ui.ctx());
        crate::ui::show(self, ui, &mut actions);
        let ctx = ui.ctx().clone();
        for action in actions {
            self.act(action, &ctx);
        }
        self.remember(&ctx);
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        crate::ui::style::background(visuals).to_normalized_gamma_f32()
    }

    fn on_exit(&mut self) {
        self.queue.cancel_all();
        self.save();
        if let Some(times) = &self.frame_times {
            eprintln!("{times}");
        }
    }
}
