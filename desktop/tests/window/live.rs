//! Live pictures: made as settings change, saved when kept. With a small network of one step.

use std::collections::BTreeMap;

use eframe::egui::accesskit::Role;
use eframe::egui::{Color32, Key};
use egui_kittest::kittest::Queryable;
use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::generate::{ImageSpec, Origin, between};
use tintype::noise::Blend;
use tintype::weights::write_safetensors;
use tintype_desktop::action::Action;
use tintype_desktop::app::App;
use tintype_desktop::form::STRIP;
use tintype_desktop::gallery::Entry;
use tintype_test_models::configs::pmf;
use tintype_test_models::tensors;

use super::bench::{Bench, STEPS, settings};

/// A pMF of 16×16 pixels and six classes, with weights by a formula.
fn checkpoint() -> Vec<u8> {
    let network = pmf().init(&Device::flex()).expect("valid");
    write_safetensors(&tensors(&network, 0.4, |_| false), &BTreeMap::new()).expect("a file")
}

/// A window with that network, of which class 3 is chosen.
fn bench() -> Bench {
    let mut settings = settings(STEPS);
    settings["form"]["classes"] = json!([3]);
    let mut bench = Bench::new(&settings);
    let file = bench.folder.path().join("small.safetensors");
    std::fs::write(&file, checkpoint()).expect("written");
    bench.drop_files(&[&file]);
    bench.until("open", |app| app.model().is_some_and(|model| model.name == "small.safetensors"));
    let form = &bench.harness.state().preferences().form;
    assert!(form.classes.is_empty(), "3 was another class");
    act(&mut bench, Action::Choose { class: 3, add: false });
    bench
}

/// Whether the picture of the current settings is there, and no other in the making.
fn is_settled(app: &App) -> bool {
    let form = &app.preferences().form;
    let wanted = form.spec(form.classes.last().copied(), 0);
    let latest = app.sketch().latest().map(|latest| &latest.made.origin);
    let is_wanted =
        |origin: &Origin| origin.spec == wanted && Some(origin.settings) == app.settings();
    !app.sketch().is_busy() && latest.is_some_and(is_wanted)
}

fn settle(bench: &mut Bench) {
    bench.until("the picture of the settings", is_settled);
}

/// Has the app do something.
pub fn act(bench: &mut Bench, action: Action) {
    let ctx = bench.harness.ctx.clone();
    bench.harness.state_mut().act(action, &ctx);
    bench.harness.step();
}

/// Presses Enter in an empty search.
fn enter(bench: &mut Bench) {
    bench.harness.get_by_label("Search classes").focus();
    bench.harness.step();
    bench.harness.key_press(Key::Enter);
    bench.harness.run_steps(2);
}

/// How the latest picture was made, and its pixels.
fn latest(bench: &Bench) -> (Origin, Vec<Color32>) {
    let latest = bench.harness.state().sketch().latest().expect("a picture");
    (latest.made.origin.clone(), latest.made.image.pixels.clone())
}

/// Contents of the files in the folder of pictures.
fn files(bench: &Bench) -> Vec<Vec<u8>> {
    let Ok(folder) = std::fs::read_dir(bench.pictures()) else { return Vec::new() };
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read(entry.expect("an entry").path()).expect("it is a file")
    };
    folder.map(read).collect()
}

#[test]
fn the_picture_follows_the_settings_and_is_saved_once_it_is_kept() {
    let mut bench = bench();
    settle(&mut bench);
    bench.harness.get_by_role_and_label(Role::Image, "3, seed 7, live");
    let (_, first) = latest(&bench);
    bench.harness.get_by_label("New").click();
    bench.harness.run_steps(2);
    settle(&mut bench);
    let (origin, second) = latest(&bench);
    assert_ne!(origin.spec.seed, 7, "one in a hundred million");
    assert!(first != second, "another seed is another picture");
    bench.harness.get_by_role_and_label(Role::Slider, "Guidance").set_value_accesskit(3.0);
    bench.harness.run_steps(2);
    settle(&mut bench);
    assert_eq!(latest(&bench).0.settings.guidance.scale, 3.0);
    assert!(bench.harness.state().gallery().entries().is_empty() && files(&bench).is_empty());

    bench.harness.get_by_label("Keep this picture").click();
    bench.harness.run_steps(2);
    let (origin, _) = latest(&bench);
    let kept = files(&bench);
    assert_eq!((kept.len(), bench.harness.state().gallery().entries().len()), (1, 1));
    assert_eq!(Origin::read(&kept[0]).expect("it carries its settings"), origin);
    // Once is enough; the next one is kept by Enter.
    enter(&mut bench);
    assert_eq!(files(&bench).len(), 1);
    act(&mut bench, Action::Choose { class: 1, add: false });
    settle(&mut bench);
    enter(&mut bench);
    assert_eq!(files(&bench).len(), 2);
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

#[test]
fn of_quick_changes_the_last_is_made() {
    let mut bench = bench();
    for steps in [1.0, 3.0] {
        let slider = bench.harness.get_by_role_and_label(Role::Slider, "Steps");
        slider.set_value_accesskit(steps);
        bench.harness.run_steps(2);
        for class in [0, 1, 2, 4, 5] {
            act(&mut bench, Action::Choose { class, add: false });
            act(&mut bench, Action::NewSeed);
        }
        settle(&mut bench);
        let (origin, _) = latest(&bench);
        assert_eq!((origin.spec.class, origin.settings.steps), (Some(5), steps as usize));
    }
    assert!(bench.harness.state().gallery().entries().is_empty() && files(&bench).is_empty());
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

#[test]
fn pictures_that_were_asked_for_have_the_stage_and_live_can_be_turned_off() {
    let mut bench = bench();
    settle(&mut bench);
    bench.harness.get_by_role_and_label(Role::Slider, "Count").set_value_accesskit(2.0);
    bench.harness.run_steps(2);
    bench.harness.get_by_label("Generate 2").click();
    bench.until("two pictures", |app| app.gallery().entries().len() == 2);
    bench.idle();
    bench.harness.run_steps(4);
    assert!(bench.harness.state().sketch().latest().is_none());
    act(&mut bench, Action::NewSeed);
    settle(&mut bench);

    bench.harness.get_by_label("Live").click();
    bench.harness.run_steps(2);
    let (before, _) = latest(&bench);
    act(&mut bench, Action::NewSeed);
    bench.harness.run_steps(4);
    assert!(!bench.harness.state().sketch().is_busy());
    assert_eq!(latest(&bench).0, before);
    assert_eq!(files(&bench).len(), 2);
}

#[test]
fn a_sheet_shows_guidance_and_seeds_of_which_one_is_taken() {
    let mut bench = bench();
    settle(&mut bench);
    bench.harness.get_by_label("Sheet").click();
    bench.harness.run_steps(2);
    bench.until("all are made", |app| app.sketch().count() == 9 && !app.sketch().is_busy());
    for scale in ["1.00", "3.00", "5.00"] {
        for seed in [7, 8, 9] {
            bench.harness.get_by_label(&format!("Seed {seed}, guidance {scale}"));
        }
    }
    bench.harness.get_by_label("Seed 8, guidance 3.00").click();
    bench.harness.run_steps(2);
    settle(&mut bench);
    let (origin, _) = latest(&bench);
    assert_eq!((origin.spec.seed, origin.settings.guidance.scale), (8, 3.0));
    bench.harness.get_by_label("Keep this picture");
    assert!(files(&bench).is_empty());
}

#[test]
fn the_picture_goes_from_one_seed_to_another() {
    let mut bench = bench();
    settle(&mut bench);
    let (_, own) = latest(&bench);
    bench.harness.get_by_role_and_label(Role::CheckBox, "To seed").click();
    bench.harness.run_steps(2);
    settle(&mut bench);
    assert!(latest(&bench).1 == own, "it begins at the first seed");
    let to = bench.harness.state().preferences().form.to.expect("it is on").seed;
    let mut at = |amount: f64| {
        let slider = bench.harness.get_by_role_and_label(Role::Slider, "Blend");
        slider.set_value_accesskit(amount);
        bench.harness.run_steps(2);
        settle(&mut bench);
        latest(&bench)
    };
    let own_spec = ImageSpec::new(Some(3), 7, 0);
    let blend = Some(Blend { seed: to, amount: 0.25 });
    let (end, other) = at(1.0);
    assert_eq!(end.spec, ImageSpec { seed: to, ..own_spec }, "the picture of that seed");
    let (blended, middle) = at(0.25);
    assert_eq!(blended.spec, ImageSpec { blend, ..own_spec });
    assert!(middle != own && middle != other);

    // It is kept as such, and comes back from the gallery.
    bench.harness.get_by_label("Keep this picture").click();
    bench.harness.run_steps(2);
    let kept = files(&bench);
    assert_eq!(Origin::read(&kept[0]).expect("it carries its settings"), blended);
    bench.harness.get_by_label(&format!("Show 3, seed 7 to {to} at 0.25"));
    let id = bench.harness.state().gallery().entries()[0].id;
    act(&mut bench, Action::SecondSeed(false));
    settle(&mut bench);
    assert!(latest(&bench).1 == own);
    act(&mut bench, Action::UseSettings(id));
    settle(&mut bench);
    assert!(latest(&bench).1 == middle);
    assert_eq!(bench.harness.state().preferences().form.to, blend);
}

#[test]
fn a_strip_shows_the_way_between_two_seeds_and_is_kept() {
    let mut bench = bench();
    settle(&mut bench);
    bench.harness.get_by_label("Strip").click();
    bench.harness.run_steps(2);
    bench.until("all are made", |app| app.sketch().count() == STRIP && !app.sketch().is_busy());
    let to = bench.harness.state().preferences().form.to.expect("a strip needs one").seed;
    for amount in ["0.00", "0.17", "0.33", "0.67", "0.83", "1.00"] {
        bench.harness.get_by_label(&format!("Blend {amount}"));
    }
    bench.harness.get_by_label("Blend 0.50").click();
    bench.harness.run_steps(2);
    settle(&mut bench);
    assert_eq!(latest(&bench).0.spec.blend, Some(Blend { seed: to, amount: 0.5 }));
    assert!(files(&bench).is_empty());

    bench.harness.get_by_label("Strip").click();
    bench.harness.run_steps(2);
    bench.harness.get_by_label("Keep all").click();
    bench.until("kept", |app| app.gallery().entries().len() == STRIP);
    bench.idle();
    let entries = bench.harness.state().gallery().entries();
    let spec = |entry: &Entry| entry.origin.as_ref().expect("it was made here").spec;
    let made: Vec<ImageSpec> = entries.iter().rev().map(spec).collect();
    assert_eq!(made, between(Some(3), [7, to], 0, STRIP));
    assert_eq!(files(&bench).len(), STRIP);
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}
