//! Averages of a training run: one is chosen, remembered, brought back by a picture, and compared with the other.
//! With a small JiT.

use std::path::{Path, PathBuf};

use eframe::egui::{Key, Modifiers};
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::weights::write_safetensors;
use tintype_desktop::action::Action;
use tintype_desktop::compare::Stage;
use tintype_test_models::configs::jit;
use tintype_test_models::tensors;

use super::bench::{Bench, STEPS, settings, sized};
use super::compare::{click, origins, stages, type_class};
use super::live::act;
use super::more::{choose, has, picture, set};

const NAMES: [&str; 2] = ["ema.safetensors", "ema_2.safetensors"];

/// A run of a JiT of 16×16 pixels and six classes that keeps two averages, with weights by a formula.
fn run(folder: &Path) -> PathBuf {
    let network = jit().init(&Device::flex()).expect("valid");
    let metadata = [("config".to_string(), json!(jit()).to_string())].into();
    let run = folder.join("run");
    std::fs::create_dir(&run).expect("a folder");
    for (name, scale) in NAMES.into_iter().zip([0.4, 0.2]) {
        let file = write_safetensors(&tensors(&network, scale, |_| false), &metadata);
        std::fs::write(run.join(name), file.expect("it writes")).expect("written");
    }
    run
}

/// Waits for the run with an average.
fn until_open(bench: &mut Bench, average: usize) {
    bench.until("open", |app| {
        app.model().is_some_and(|model| model.name == "run" && model.average() == average)
    });
}

#[test]
fn another_average_keeps_class_settings_and_favourites() {
    let mut bench = Bench::built(&settings(STEPS), sized([1180.0, 900.0]), |_| {});
    assert!(!has(&bench, "Average"), "the emoji model is one set of weights");
    let run = run(bench.folder.path());
    bench.drop_files(&[&run]);
    until_open(&mut bench, 1);
    act(&mut bench, Action::Choose { class: 3, add: false });
    act(&mut bench, Action::Favourite(3));
    set(&mut bench, "Steps", 4.0);
    let (first, pixels) = picture(&mut bench);

    choose(&mut bench, "Average", NAMES[1]);
    until_open(&mut bench, 2);
    let app = bench.harness.state();
    assert_eq!(app.preferences().choice.paths.average, Some(2));
    assert_eq!(app.preferences().form.classes, [3]);
    assert_eq!(app.of_model().map(|of_model| of_model.favourites.as_slice()), Some(&[3][..]));
    let (second, others) = picture(&mut bench);
    assert_eq!((second.settings, second.spec), (first.settings, first.spec));
    assert_ne!(second.weights, first.weights);
    assert!(others != pixels);

    // A picture brings its average back, and is made again.
    let id = bench.harness.state().gallery().entries()[1].id;
    act(&mut bench, Action::OtherSeed(id));
    act(&mut bench, Action::UseSettings(id));
    until_open(&mut bench, 1);
    let told = bench.notices();
    assert!(told[0].contains("with average 1 of this model"), "{told:?}");
    assert!(told[1].contains("its average of the weights is opened"), "{told:?}");
    let (again, same) = picture(&mut bench);
    assert_eq!(again, first);
    assert!(same == pixels);
}

#[test]
fn a_remembered_average_is_compared_with_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(STEPS);
    settings["choice"]["paths"] = json!({"model": run(folder.path()), "average": 2});
    let mut bench = Bench::new(&settings);
    until_open(&mut bench, 2);
    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Num4);
    bench.harness.run_steps(2);
    for name in ["run", "run, average 2"] {
        click(&mut bench, "Add a model");
        click(&mut bench, name);
    }
    bench.until("read", |app| {
        let rows = app.comparison().rows();
        rows.len() == 2 && rows.iter().all(|row| row.model().is_some())
    });
    click(&mut bench, "Draft");
    type_class(&mut bench, "3");
    click(&mut bench, "Start");
    bench.idle();
    assert_eq!(stages(bench.harness.state()), [Stage::Done, Stage::Done], "{:?}", bench.notices());
    let names = bench.harness.state().comparison().rows().iter().map(|row| row.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["run", "run, average 2"]);
    let origins = origins(&bench);
    let [first, second] = origins.as_slice() else { panic!("{origins:?}") };
    assert_eq!(first.spec, second.spec);
    assert_ne!(first.weights, second.weights);
}
