//! The first start: where nothing can be written, where another window is open, and with a picture to begin with.

use std::path::{Path, PathBuf};

use egui_kittest::kittest::Queryable;
use serde_json::json;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{
    Fingerprints, ImageSpec, ModelFiles, ModelPaths, Origin, Sampler, Settings,
};
use tintype::image::Rgb;
use tintype::precision::Precision;
use tintype_desktop::action::Action;
use tintype_desktop::app::App;
use tintype_desktop::preferences::Preferences;

use super::bench::{Bench, STEPS, settings, sized};
use super::names::file;

const SIZE: [f32; 2] = [1180.0, 780.0];

/// What is typed changes, and the window closes.
fn change_and_close(app: &mut App, ctx: &eframe::egui::Context) {
    let before = app.preferences().form.seed;
    app.act(Action::NewSeed, ctx);
    assert_ne!(app.preferences().form.seed, before, "one in a hundred million");
    eframe::App::on_exit(app);
}

#[test]
fn settings_that_cannot_be_saved_are_told_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // A file where the folder should be cannot be written into, even by an administrator.
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").expect("written");
    let mut bench = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.preferences = blocked.join("settings.json");
        start.device = Some("cpu".into());
    });
    let told = bench.notices();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("Settings cannot be saved"), "{told:?}");
    bench.harness.get_by_label("Generate");
    bench.harness.get_by_label("Dismiss").click();
    bench.harness.run_steps(2);
    let ctx = bench.harness.ctx.clone();
    change_and_close(bench.harness.state_mut(), &ctx);
    assert!(bench.notices().is_empty(), "it was said: {:?}", bench.notices());
}

#[test]
fn a_second_window_opens_and_says_that_it_saves_no_settings() {
    let mut first = Bench::new(&settings(STEPS));
    assert!(first.notices().is_empty(), "{:?}", first.notices());
    let file = first.folder.path().join("settings.json");
    let mut second = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.preferences = file.clone();
    });
    let told = second.notices();
    assert!(told[0].starts_with("Another window is open"), "{told:?}");
    let saved = || Preferences::load(&file, false).expect("it can be read").0.form.seed;
    let ctx = second.harness.ctx.clone();
    change_and_close(second.harness.state_mut(), &ctx);
    assert_eq!(saved(), 7);
    let ctx = first.harness.ctx.clone();
    change_and_close(first.harness.state_mut(), &ctx);
    assert_eq!(saved(), first.harness.state().preferences().form.seed);
    // The next one may save again.
    let third = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.preferences = file.clone();
    });
    assert!(third.notices().is_empty(), "{:?}", third.notices());
}

/// A picture that the emoji model made, as its file says.
fn picture(folder: &Path) -> PathBuf {
    let files = ModelFiles::embedded().expect("it is inside");
    let origin = Origin {
        version: "0.1.0".into(),
        weights: Fingerprints::of(files.parts()),
        class_name: "clock".into(),
        spec: ImageSpec::new(Some(8), 1234, 0),
        settings: Settings::new(Sampler::Euler, STEPS, Guidance::new(3.0)),
        precision: Precision::F32,
        device: "cpu".into(),
    };
    let path = folder.join("clock.png");
    let pixel = Rgb { width: 1, height: 1, pixels: vec![0; 3] };
    std::fs::write(&path, origin.to_png(&pixel).expect("a PNG")).expect("written");
    path
}

/// The settings of that picture are the current ones.
fn is_taken_over(app: &App) -> bool {
    let form = &app.preferences().form;
    let is_set = app.settings().is_some_and(|settings| settings.guidance.scale == 3.0);
    is_set && (form.seed, &form.classes[..]) == (1234, &[8][..])
}

#[test]
fn a_picture_that_it_is_started_with_brings_its_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = picture(folder.path());
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "no picture").expect("written");
    let mut bench = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.files = vec![notes, picture.clone(), folder.path().join("gone.png")];
    });
    bench.until("taken over", is_taken_over);
    let told = bench.notices();
    for part in ["notes.txt", "gone.png", "settings, class and seed"] {
        assert!(told.iter().any(|notice| notice.contains(part)), "{part}: {told:?}");
    }
    assert_eq!(bench.harness.state().preferences().choice.paths, ModelPaths::default());
}

#[test]
fn a_picture_opens_its_model_where_the_remembered_one_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = picture(folder.path());
    let mut settings = settings(STEPS);
    settings["choice"]["paths"] = json!({"model": "/gone.pt"});
    let mut bench = Bench::built(&settings, sized(SIZE), |start| {
        start.files = vec![picture.clone()];
    });
    bench.until("taken over", is_taken_over);
    assert_eq!(bench.harness.state().preferences().choice.paths, ModelPaths::default());
}

#[test]
fn a_model_that_is_named_with_a_picture_is_used_instead_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = picture(folder.path());
    let named = ModelPaths { model: Some(file()), ..ModelPaths::default() };
    let mut bench = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.paths = Some(named.clone());
        start.files = vec![picture.clone()];
    });
    bench.until("taken over", |app| app.preferences().form.seed == 1234);
    let app = bench.harness.state();
    assert_eq!(app.preferences().choice.paths, named);
    assert_eq!(app.model().map(|model| &model.paths), Some(&named));
}

#[test]
fn weights_and_a_picture_together_are_used_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = picture(folder.path());
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let [network, vae] = ["hidit.safetensors", "vae-decoder.safetensors"].map(|f| models.join(f));
    let mut bench = Bench::built(&settings(STEPS), sized(SIZE), |start| {
        start.files = vec![picture.clone(), network.clone(), vae];
    });
    bench.until("taken over", is_taken_over);
    let app = bench.harness.state();
    assert_eq!(app.preferences().choice.paths.model.as_deref(), Some(network.as_path()));
}
