//! Models side by side: chosen, run one after the other, left out, failed and stopped. With the model inside the
//! program and a small HDiT of ImageNet's classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use eframe::egui::{Event, Key, Modifiers, Pos2, Rect};
use egui_kittest::kittest::Queryable;
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::generate::Origin;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::settings::Quality;
use tintype::weights::write_safetensors;
use tintype_desktop::action::{Action, View};
use tintype_desktop::app::App;
use tintype_desktop::compare::Stage;
use tintype_test_models::{configs, rae, tensors};

use super::bench::{Bench, STEPS, settings, sized};
use super::live::act;
use super::names::file;

const EMOJI: &str = "Emoji (built in)";

/// A window of this size that shows the comparison.
fn bench(size: [f32; 2]) -> Bench {
    let mut bench = Bench::built(&settings(STEPS), sized(size), |_| {});
    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Num4);
    bench.harness.run_steps(2);
    assert_eq!(bench.harness.state().view(), View::CompareModels);
    bench
}

pub fn click(bench: &mut Bench, name: &str) {
    bench.harness.get_by_label(name).click();
    bench.harness.run_steps(3);
}

/// Adds the model inside the program.
fn add_emoji(bench: &mut Bench) {
    click(bench, "Add a model");
    click(bench, EMOJI);
    bench.until("read", |app| app.comparison().rows().iter().all(|row| row.model().is_some()));
}

/// Drops a network on the window, which opens and adds it.
fn drop_network(bench: &mut Bench, file: &Path) {
    let rows = bench.harness.state().comparison().rows().len();
    bench.drop_files(&[file]);
    bench.until("added", |app| app.comparison().rows().len() == rows + 1);
    bench.until("read", |app| app.comparison().rows().iter().all(|row| row.model().is_some()));
}

/// Types a class, wherever the keyboard is.
pub fn type_class(bench: &mut Bench, class: &str) {
    bench.harness.get_by_label("Class of all models").focus();
    bench.harness.step();
    bench.harness.event(Event::Text(class.into()));
    bench.harness.run_steps(2);
}

pub fn stages(app: &App) -> Vec<Stage> {
    app.comparison().rows().iter().map(|row| row.stage(app.queue())).collect()
}

/// How the pictures of the gallery were made, the first one first.
pub fn origins(bench: &Bench) -> Vec<Origin> {
    let entries = bench.harness.state().gallery().entries().iter().rev();
    entries.map(|entry| entry.origin.clone().expect("it was made here")).collect()
}

#[test]
fn models_make_the_same_class_and_seed_one_after_the_other() {
    let mut bench = bench([1180.0, 780.0]);
    bench.harness.get_by_label_contains("Add models, or drop their files here");
    add_emoji(&mut bench);
    drop_network(&mut bench, &file());
    click(&mut bench, "Draft");
    // Nothing is begun before there is a class.
    click(&mut bench, "Start");
    assert_eq!(bench.notices(), ["Name a class first."]);
    type_class(&mut bench, "5");
    bench.harness.get_by_label("2 models");
    bench.harness.key_press(Key::Enter);
    bench.until("at work", |app| app.queue().running().is_some());
    assert_eq!(stages(bench.harness.state()), [Stage::Running, Stage::Waiting]);
    bench.harness.get_by_label("Stop");
    bench.harness.get_by_label(&format!("Progress of {EMOJI}"));
    bench.idle();
    assert_eq!(stages(bench.harness.state()), [Stage::Done, Stage::Done]);
    bench.harness.get_by_label("2 models: 2 finished");

    // What it cost stands beside each, and the pictures are those of the gallery.
    for row in bench.harness.state().comparison().rows() {
        let captions = row.captions(Quality::Draft);
        let [how, _, cost] = captions.as_slice() else { panic!("{captions:?}") };
        assert!(how.contains(" · 8 steps · "), "{how}");
        assert!(cost.contains(" evaluations (NFE) · ") && cost.contains(" s · "), "{cost}");
        assert!(cost.ends_with("iB of memory"), "{cost}");
        bench.harness.get_by_label(cost);
    }
    assert_eq!(bench.harness.query_all_by_label_contains(" · 8 steps · ").count(), 2);
    let origins = origins(&bench);
    let specs: BTreeSet<_> =
        origins.iter().map(|origin| (origin.spec.class, origin.spec.seed)).collect();
    let weights: BTreeSet<_> = origins.iter().map(|origin| &origin.weights.model).collect();
    assert_eq!((origins.len(), specs.len(), weights.len()), (2, 1, 2));
    let seed = origins[0].spec.seed;
    assert_eq!(specs.first(), Some(&(Some(5), seed)));
    assert_eq!(std::fs::read_dir(bench.pictures()).expect("a folder").count(), 2);
    // A click shows a picture large; the rows stay.
    let name = origins[0].class_name.clone();
    let name = tintype::labels::short(&name);
    click(&mut bench, &format!("Show {name}, seed {seed}, {EMOJI}"));
    assert!(matches!(bench.harness.state().view(), View::Picture(_)));
    act(&mut bench, Action::Show(View::CompareModels));
    click(&mut bench, &format!("Remove {EMOJI}"));
    bench.harness.get_by_label("1 model: 1 finished");
    click(&mut bench, "Close");
    assert_eq!(bench.harness.state().view(), View::Develop);
}

#[test]
fn a_model_that_cannot_is_told_in_its_row_and_the_others_go_on() {
    let mut bench = bench([1180.0, 780.0]);
    let gone = bench.folder.path().join("gone.safetensors");
    std::fs::copy(file(), &gone).expect("copied");
    drop_network(&mut bench, &gone);
    drop_network(&mut bench, &file());
    add_emoji(&mut bench);
    click(&mut bench, "Draft");
    // What was loaded ahead is the network that was opened last, so this one is to be read again.
    std::fs::remove_file(&gone).expect("removed");
    type_class(&mut bench, "tiger ca");
    click(&mut bench, "tiger cat");
    click(&mut bench, "Start");
    bench.idle();
    let stages = stages(bench.harness.state());
    assert!(matches!(&stages[0], Stage::Failed(why) if why.contains("gone")), "{stages:?}");
    assert_eq!(stages[1], Stage::Done);
    assert_eq!(stages[2], Stage::LeftOut("does not know “tiger cat”".into()));
    bench.harness.get_by_label("does not know “tiger cat”");
    bench.harness.get_by_label("3 models: 1 finished, 1 failed, 1 left out");
    assert_eq!(origins(&bench).len(), 1);
}

/// A network on the latents of a RAE, its decoder and its statistics.
fn rae_files(folder: &Path) -> [PathBuf; 3] {
    let config = LightningDiTConfig { in_channels: 64, input_size: 2, ..configs::lightningdit() };
    let network = config.init(&Device::flex()).expect("valid");
    let metadata = [("config".to_string(), json!(config).to_string())].into();
    let network = write_safetensors(&tensors(&network, 0.4, |_| false), &metadata);
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("it is written");
        path
    };
    std::fs::create_dir(folder.join("decoder")).expect("a folder");
    write("decoder/config.json", rae::decoder_json().as_bytes());
    [
        write("network.safetensors", &network.expect("it writes")),
        write("decoder/model.pt", &rae::decoder_file()),
        write("stat.pt", &rae::statistics_file([64, 2, 2])),
    ]
}

#[test]
fn a_model_on_the_latents_of_a_rae_is_compared() {
    let mut bench = bench([1180.0, 780.0]);
    let files = rae_files(bench.folder.path());
    bench.drop_files(&files.each_ref().map(PathBuf::as_path));
    bench.until("added", |app| app.comparison().rows().len() == 1);
    click(&mut bench, "Draft");
    type_class(&mut bench, "5");
    click(&mut bench, "Start");
    bench.idle();
    assert_eq!(stages(bench.harness.state()), [Stage::Done], "{:?}", bench.notices());
    bench.harness.get_by_label("1 model: 1 finished");
}

#[test]
fn a_comparison_stops_in_the_smallest_window_and_other_jobs_go_on() {
    let size = [760.0, 480.0];
    let mut bench = bench(size);
    add_emoji(&mut bench);
    drop_network(&mut bench, &file());
    type_class(&mut bench, "5");
    // The authors' sampler takes its time.
    click(&mut bench, "Start");
    bench.until("at work", |app| app.queue().running().is_some());
    let window = Rect::from_min_size(Pos2::ZERO, size.into());
    let row = format!("Remove {EMOJI}");
    let names =
        ["Class of all models", "Add a model", "Stop", "Save as picture…", "Keys", row.as_str()];
    for name in names {
        let rect = bench.harness.get_by_label(name).rect();
        assert!(window.contains_rect(rect), "{name} is at {rect}");
    }
    // Somebody asks for a picture of the open model meanwhile.
    act(&mut bench, Action::Choose { class: 3, add: false });
    act(&mut bench, Action::Generate);
    act(&mut bench, Action::Show(View::CompareModels));
    bench.harness.run_steps(2);
    click(&mut bench, "Stop");
    bench.idle();
    assert_eq!(stages(bench.harness.state()), [Stage::Stopped, Stage::Stopped]);
    let made: Vec<_> = origins(&bench).iter().map(|origin| origin.spec.class).collect();
    assert_eq!(made, [Some(3)]);
    bench.harness.get_by_label("2 models: 2 stopped");
}
