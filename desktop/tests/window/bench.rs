//! The real app in a harness that stands in for a window.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eframe::egui;
use egui_kittest::{Harness, HarnessBuilder};
use serde_json::json;
use tempfile::TempDir;
use tintype::generate::ModelFiles;
use tintype_desktop::app::{App, Start};
use tintype_download::Environment;

/// An app with folders of its own.
pub struct Bench {
    pub harness: Harness<'static, App>,
    pub folder: TempDir,
}

/// Steps of the embedded model that are enough for a test.
pub const STEPS: usize = 3;

/// Settings in which the embedded model takes few steps, on the processor.
pub fn settings(steps: usize) -> serde_json::Value {
    let model = ModelFiles::embedded().expect("it is inside").model.fingerprint();
    json!({
        "choice": {"device": "cpu"},
        "form": {"seed": 7, "seed_locked": true, "count": 1, "classes": []},
        "models": {model: {"settings": {
            "sampler": "euler-maruyama", "steps": steps,
            "guidance": {"scale": 2.0, "low": 0.0, "high": 1.0, "channels": null},
        }}},
    })
}

/// An environment whose caches and catalogue are in a folder.
pub fn environment(folder: &Path) -> Environment {
    Environment::of(|name| {
        let own = match name {
            "HF_HOME" => "huggingface",
            "TINTYPE_CACHE" => "cache",
            "TINTYPE_CATALOGUE" => "models.json",
            _ => return None,
        };
        Some(folder.join(own).into())
    })
}

/// A window of this many points.
pub fn sized(size: [f32; 2]) -> HarnessBuilder<App> {
    Harness::builder().with_size(size)
}

impl Bench {
    /// The app after a start with these settings.
    pub fn new(settings: &serde_json::Value) -> Self {
        Self::built(settings, sized([1180.0, 780.0]), |_| {})
    }

    /// The same with another harness and other ways to start.
    pub fn built(
        settings: &serde_json::Value,
        builder: HarnessBuilder<App>,
        adapt: impl FnOnce(&mut Start),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let preferences = folder.path().join("settings.json");
        std::fs::write(&preferences, settings.to_string()).expect("written");
        std::fs::write(folder.path().join("models.json"), "{\"models\": []}").expect("written");
        let mut start = Start {
            preferences,
            pictures: folder.path().join("pictures"),
            environment: Some(environment(folder.path())),
            ..Start::default()
        };
        adapt(&mut start);
        let builder = builder.with_max_steps(4);
        let harness = builder.build_eframe(move |cc| {
            let app = App::new(&cc.egui_ctx, cc.wgpu_render_state.clone(), start);
            // The harness clears with nothing; the window would with this.
            cc.egui_ctx.all_styles_mut(|style| {
                style.visuals.panel_fill = tintype_desktop::style::background(&style.visuals);
            });
            app
        });
        let mut bench = Self { harness, folder };
        bench.until("the model is read", |app| app.model().is_some());
        bench
    }

    /// Where pictures go.
    pub fn pictures(&self) -> PathBuf {
        self.folder.path().join("pictures")
    }

    /// Runs the window until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&App) -> bool) {
        let started = Instant::now();
        loop {
            self.harness.step();
            if holds(self.harness.state()) {
                break;
            }
            let notices = self.notices();
            // Other tests run beside this one, and a picture on a software GPU takes a minute alone.
            assert!(started.elapsed() < Duration::from_secs(600), "not {what}: {notices:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        // What was just taken in is shown.
        self.harness.step();
    }

    /// Runs the window until all jobs are done.
    pub fn idle(&mut self) {
        self.until("idle", |app| app.queue().is_empty());
    }

    /// What the window says.
    pub fn notices(&self) -> Vec<String> {
        self.harness.state().notices().shown().iter().map(|n| n.text.clone()).collect()
    }

    /// Drops files on the window.
    pub fn drop_files(&mut self, files: &[&Path]) {
        let dropped = files
            .iter()
            .map(|path| Arc::new(Dropped(path.to_path_buf())) as egui::DroppedFileHandle);
        self.harness.input_mut().dropped_files.extend(dropped);
        self.harness.step();
    }
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.0).map_err(|e| e.to_string())
    }
}
