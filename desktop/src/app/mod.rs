//! The app's state, and the one place that changes it: what people want done is in `acts`, what the
//! other threads did in `events`, what is made live in `live`, what concerns published models in `models`, and
//! several models at once in `compare`.

mod acts;
mod compare;
mod events;
mod live;
mod models;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eframe::{egui, egui_wgpu};
use tintype::files::{try_write_whole, write_whole};
use tintype::generate::{ModelPaths, Origin, Settings};
use tintype::labels::Labels;
use tintype::settings::Quality;
use tintype_download::Environment;

use crate::action::View;
use crate::browser::{Browser, Library};
use crate::compare::Comparison;
use crate::dialogs::Dialogs;
use crate::engine::{Choice, DeviceRow, Engine, Ready};
use crate::frame_times::FrameTimes;
use crate::gallery::Gallery;
use crate::model::{Inspector, Model};
use crate::notices::Notices;
use crate::preferences::{OfModel, Preferences, Window, Write};
use crate::quality::{self, Pace};
use crate::queue::Queue;
use crate::restart;
use crate::search::Picker;
use crate::settings_file::SettingsFile;
use crate::sketch::{Layout, Sketch};
use crate::stage::Develop;
pub use crate::start::Start;
pub(crate) use live::SEEDS;

/// What the engine said last about its networks.
#[derive(Clone, Debug, Default)]
pub enum Networks {
    /// Nothing yet.
    #[default]
    None,
    /// Being loaded onto a device.
    Loading(String),
    /// Ready.
    Ready(Box<Ready>),
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
    settings_file: SettingsFile,
    /// What is in the settings file, and when it was tried last to write it.
    saved: (Preferences, Instant),
    inspector: Inspector,
    pub(crate) chosen: Chosen,
    /// The classes of the model that was open last.
    labels: Option<Labels>,
    /// How a picture was made whose settings wait for a model, and the model that made it, where that is here.
    awaited: Option<(Box<Origin>, Option<ModelPaths>)>,
    engine: Engine,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) networks: Networks,
    /// How long the latest picture took, and of which networks it is.
    pace: Option<(Choice, Pace)>,
    pub(crate) queue: Queue,
    pub(crate) develop: Develop,
    pub(crate) sketch: Sketch,
    /// What was asked to be shown of the live pictures.
    layout: Layout,
    pub(crate) gallery: Gallery,
    pub(crate) browser: Browser,
    pub(crate) comparison: Comparison,
    pub(crate) picker: Picker,
    /// What had the keyboard at the end of the last frame.
    pub(crate) focused: Option<egui::Id>,
    pub(crate) view: View,
    pub(crate) notices: Notices,
    dialogs: Dialogs,
    pub(crate) frame_times: Option<FrameTimes>,
    pub(crate) window_lost: Arc<AtomicBool>,
}

/// How long changes wait before they are written.
const SAVE_AFTER: Duration = Duration::from_secs(2);

impl App {
    /// The app of a window; `window` is what draws it.
    pub fn new(ctx: &egui::Context, window: Option<egui_wgpu::RenderState>, start: Start) -> Self {
        crate::style::apply(ctx);
        // Before the file is read: the window that has it may write it.
        let (mut settings_file, file_trouble) = SettingsFile::open(&start.preferences);
        let (mut preferences, unread) = settings_file.load();
        if let Some(paths) = &start.paths {
            if paths.model != preferences.choice.paths.model {
                // They are remembered as those of the other model.
                preferences.form.classes.clear();
            }
            preferences.set_paths(paths.clone());
        }
        start.note_open(&preferences.choice.paths);
        if let Some(device) = &start.device {
            preferences.choice.device = device.clone();
        }
        if start.output.is_some() {
            preferences.output = start.output.clone();
        }
        crate::style::set_theme(ctx, preferences.theme);
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
        let environment = start.environment.clone().unwrap_or_else(Environment::of_process);
        let (library, trouble) = Library::open(environment);
        // Those of the settings last: of many messages the first ones go.
        let troubles = start.notice.clone().into_iter().chain(trouble).chain(file_trouble);
        let mut notices = Notices::default();
        troubles.chain(unread).for_each(|trouble| notices.trouble(trouble));
        let library = Arc::new(library);
        let folder = preferences.output.clone().unwrap_or_else(|| start.pictures.clone());
        let mut app = Self {
            settings_file,
            saved: (preferences.clone(), Instant::now()),
            inspector: Inspector::start(ctx.clone(), library.clone()),
            chosen: Chosen::Reading,
            labels: None,
            awaited: None,
            engine: Engine::start(ctx.clone(), window.clone()),
            devices: Vec::new(),
            networks: Networks::None,
            pace: None,
            queue: Queue::default(),
            develop: Develop::new(window),
            sketch: Sketch::default(),
            layout: Layout::One,
            gallery: Gallery::open(&folder, ctx.clone()),
            browser: Browser::new(library, ctx.clone()),
            comparison: Comparison::new(ctx.clone()),
            picker: Picker::default(),
            focused: None,
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
            let is_chosen = app.start.paths.is_some();
            app.inspector.sort(app.start.files.clone(), present, is_chosen);
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
        self.preferences.models.get(self.model()?.key())
    }

    /// Where the networks run, once they are loaded.
    pub fn ready(&self) -> Option<&Ready> {
        match &self.networks {
            Networks::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    /// The settings of the next pictures.
    pub fn settings(&self) -> Option<Settings> {
        let model = self.model()?;
        Some(self.of_model().and_then(|m| m.settings).unwrap_or(model.defaults))
    }

    /// The quality that these are; `None` where somebody chose another sampler or other steps.
    pub fn quality(&self) -> Option<Quality> {
        let (settings, model) = (self.settings()?, self.model()?);
        quality::current(settings, model.defaults, &model.inspection.architecture)
    }

    /// Seconds that a picture will take with some settings, known once one was made here.
    pub fn seconds(&self, settings: &Settings) -> Option<f64> {
        let (choice, pace) = self.pace.as_ref()?;
        let is_here = *choice == self.preferences.choice;
        let process = self.model()?.inspection.architecture.process();
        pace.seconds(settings, process).filter(|_| is_here)
    }

    fn set_settings(&mut self, settings: Settings) {
        let Some(model) = self.model() else { return };
        let (key, defaults) = (model.key().to_string(), model.defaults);
        self.preferences.set_settings(&key, settings, defaults);
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

    /// What is made live, for those who watch.
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// The pictures, for those who watch.
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// The published models, for those who watch.
    pub fn browser(&self) -> &Browser {
        &self.browser
    }

    /// The models that are compared, for those who watch.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
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
        for update in self.engine.updates() {
            self.apply(update, ctx);
        }
        self.gallery.update();
        for news in self.browser.update(Instant::now()) {
            self.heard(news);
        }
        for (purpose, answer) in self.dialogs.answers() {
            self.answered(purpose, answer);
        }
        for saved in self.comparison.saved() {
            match saved {
                Ok(path) => self.notices.info(format!("Saved as {}.", path.display())),
                Err(trouble) => self.notices.trouble(trouble),
            }
        }
        let folder = self.folder().to_path_buf();
        if let Some(work) = self.queue.next(&folder) {
            self.develop.begin(&work, self.queue.running().map(|job| job.name.clone()));
            self.engine.work(work);
        }
    }

    /// Remembers the window, and writes preferences some time after they changed.
    pub(crate) fn remember(&mut self, ctx: &egui::Context) {
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
            // The window would stand still while a file waits for a virus scanner.
            self.save(try_write_whole);
        }
    }

    /// Saves preferences, if they are to be saved.
    fn save(&mut self, write: Write) {
        match self.settings_file.save(&self.preferences, write) {
            Ok(()) => self.saved.0 = self.preferences.clone(),
            // They differ from the saved ones still, so it is tried again.
            Err(trouble) => trouble.into_iter().for_each(|trouble| self.notices.trouble(trouble)),
        }
        self.saved.1 = Instant::now();
    }

    /// Saves for the last time, and leaves the settings to the next window.
    pub(crate) fn close_settings(&mut self) {
        self.save(write_whole);
        self.settings_file.release();
    }

    /// The device that draws the window is gone.
    pub(crate) fn leave_lost_window(&mut self) -> ! {
        self.close_settings();
        restart::again(&self.start, &restart::notice("The graphics device stopped working"))
    }
}
