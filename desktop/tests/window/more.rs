//! Settings that only some networks and samplers have, strips of networks that take many steps, and guides. With a
//! small HDiT.

use std::path::{Path, PathBuf};

use eframe::egui::accesskit::Role;
use eframe::egui::{Color32, Key};
use egui_kittest::kittest::Queryable;
use serde_json::json;
use tintype::generate::{ImageSpec, ModelPaths, Origin, between};
use tintype::settings::{KarrasOptions, Sampler, TimeGrid};
use tintype_desktop::action::Action;
use tintype_desktop::app::Start;
use tintype_desktop::form::STRIP;
use tintype_desktop::gallery::Entry;
use tintype_desktop::preferences::Preferences;
use tintype_download::{Downloader, user_catalogue};

use super::bench::{Bench, STEPS, settings, sized};
use super::live::act;
use super::names::{file, open};

/// A window with the network, of which class 3 is chosen, in four steps.
fn bench(adapt: impl FnOnce(&mut Start)) -> Bench {
    let mut bench = Bench::built(&settings(STEPS), sized([1180.0, 900.0]), adapt);
    open(&mut bench);
    act(&mut bench, Action::Choose { class: 3, add: false });
    set(&mut bench, "Steps", 4.0);
    bench
}

/// Moves a slider.
pub fn set(bench: &mut Bench, slider: &str, value: f64) {
    let slider = bench.harness.get_by_role_and_label(Role::Slider, slider);
    slider.set_value_accesskit(value);
    bench.harness.run_steps(2);
}

/// Opens the section and waits until it has.
fn open_section(bench: &mut Bench) {
    bench.harness.get_by_label("More settings").click();
    bench.harness.run_steps(6);
}

/// Types into a field, in place of what is there.
fn fill(bench: &mut Bench, field: &str, text: &str) {
    let field = bench.harness.get_by_role_and_label(Role::TextInput, field);
    field.set_text_value_accesskit(text);
    bench.harness.run_steps(2);
}

/// Takes something from a list.
pub fn choose(bench: &mut Bench, list: &str, name: &str) {
    bench.harness.get_by_role_and_label(Role::ComboBox, list).click();
    bench.harness.run_steps(3);
    bench.harness.get_by_label(name).click();
    bench.harness.run_steps(3);
}

/// Whether something is in the window.
pub fn has(bench: &Bench, label: &str) -> bool {
    bench.harness.query_by_label(label).is_some()
}

/// Makes a picture: how it was made, and its pixels.
pub fn picture(bench: &mut Bench) -> (Origin, Vec<Color32>) {
    act(bench, Action::Generate);
    bench.idle();
    let gallery = bench.harness.state().gallery();
    let entry = gallery.entries().first().expect("a picture");
    let pixels = gallery.image(entry.id).expect("it was made here").pixels;
    (entry.origin.clone().expect("it was made here"), pixels)
}

fn karras(bench: &Bench) -> KarrasOptions {
    bench.harness.state().settings().expect("a model").karras
}

#[test]
fn a_field_reaches_the_picture_and_goes_with_its_sampler() {
    let mut bench = bench(|_| {});
    assert!(!has(&bench, "Noise η"), "the section is closed");
    open_section(&mut bench);
    for other in ["Times", "Churn", "Time shift"] {
        assert!(!has(&bench, other), "{other} is of others");
    }
    let refused = "Noise η 2 is not between 0 and 1";
    fill(&mut bench, "Noise η", "2");
    assert!(has(&bench, refused));
    fill(&mut bench, "Noise η", "0.5");
    assert!(!has(&bench, refused));
    fill(&mut bench, "ρ", "3");
    // What is no number changes nothing.
    fill(&mut bench, "ρ", "three");
    let given = KarrasOptions { eta: Some(0.5), rho: Some(3.0), ..KarrasOptions::NONE };
    assert_eq!(karras(&bench), given);
    assert_eq!(picture(&mut bench).0.settings.karras, given);

    choose(&mut bench, "Sampler", "heun");
    assert!(has(&bench, "Churn") && !has(&bench, "Noise η"));
    let spaced = KarrasOptions { eta: None, ..given };
    assert_eq!(karras(&bench), spaced);
    let (origin, _) = picture(&mut bench);
    assert_eq!((origin.settings.sampler, origin.settings.karras), (Sampler::Heun, spaced));
    // Empty is the default.
    fill(&mut bench, "ρ", "");
    assert_eq!(karras(&bench), KarrasOptions::NONE);
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

#[test]
fn escape_leaves_a_field_before_it_clears_the_search() {
    let mut bench = bench(|_| {});
    open_section(&mut bench);
    bench.harness.get_by_label("Search classes").type_text("crane");
    bench.harness.run_steps(2);
    bench.harness.get_by_role_and_label(Role::TextInput, "Noise η").focus();
    bench.harness.run_steps(2);
    for is_searched in [true, false] {
        bench.harness.key_press(Key::Escape);
        bench.harness.run_steps(2);
        let found = bench.harness.query_by_label_contains("2 classes are called “crane”");
        assert_eq!(found.is_some(), is_searched);
    }
}

/// As pictures of the command line bring them.
#[test]
fn settings_that_no_slider_gives_stay_as_they_are() {
    let mut settings = settings(1000);
    let models = settings["models"].as_object_mut().expect("models");
    models.values_mut().for_each(|of_model| of_model["settings"]["tau"] = json!(0.125));
    let mut bench = Bench::new(&settings);
    bench.harness.run_steps(2);
    let set = bench.harness.state().settings().expect("a model");
    assert_eq!((set.steps, set.tau), (1000, Some(0.125)));
}

#[test]
fn times_have_options_of_their_own_and_are_remembered() {
    let mut bench = Bench::new(&settings(STEPS));
    open_section(&mut bench);
    assert!(has(&bench, "Guidance ends at") && !has(&bench, "Times"), "the SDE has its own");
    bench.harness.get_by_label("Draft, 8 steps").click();
    bench.harness.run_steps(2);
    assert!(!has(&bench, "ρ"));
    choose(&mut bench, "Times", "karras");
    fill(&mut bench, "ρ", "5");
    fill(&mut bench, "Guidance ends at", "0.9");
    let file = bench.folder.path().join("settings.json");
    let mut app = bench.harness.into_state();
    let set = app.settings().expect("a model");
    assert_eq!(
        (set.times, set.agreement, set.karras.rho),
        (TimeGrid::Karras, Some(0.9), Some(5.0))
    );
    eframe::App::on_exit(&mut app);
    let (preferences, trouble) = Preferences::load(&file, false).expect("it can be read");
    assert_eq!(trouble, None);
    assert_eq!(
        preferences.models.values().next().and_then(|of_model| of_model.settings),
        Some(set)
    );
}

#[test]
fn networks_of_many_steps_interpolate_between_two_seeds() {
    let mut bench = bench(|_| {});
    assert!(!has(&bench, "Interpolate"));
    bench.harness.get_by_role_and_label(Role::CheckBox, "To seed").click();
    bench.harness.run_steps(2);
    let to = bench.harness.state().preferences().form.to.expect("it is on").seed;
    bench.harness.get_by_label("Interpolate").click();
    bench.until("made", |app| app.gallery().entries().len() == STRIP);
    bench.idle();
    let entries = bench.harness.state().gallery().entries();
    let spec = |entry: &Entry| entry.origin.as_ref().expect("it was made here").spec;
    let made: Vec<ImageSpec> = entries.iter().rev().map(spec).collect();
    assert_eq!(made, between(Some(3), [7, to], 0, STRIP));
    assert!(entries.iter().all(|entry| entry.path.is_some()), "they are saved");
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

/// Puts the network where a download of a published one would be.
fn publish(start: &Start) {
    let bytes = std::fs::read(file()).expect("it is in the repository");
    let address = "https://example.org/guide.safetensors";
    let catalogue = json!({"models": [{
        "name": "small-guide", "title": "Small guide", "kind": "network", "architecture": "HDiT",
        "licence": {"id": "MIT", "commercial": true},
        "files": [{"role": "network", "address": address, "bytes": bytes.len()}],
    }]});
    let own = start.preferences.with_file_name("models.json");
    std::fs::write(own, catalogue.to_string()).expect("written");
    let environment = start.environment.clone().expect("one of its own");
    let catalogue = user_catalogue(&environment).expect("a catalogue");
    let entry = catalogue.get("small-guide").expect("it is there");
    let place = Downloader::new(environment).place(&entry.files[0]);
    std::fs::create_dir_all(place.parent().expect("a folder")).expect("created");
    std::fs::write(place, bytes).expect("written");
}

/// The guide's file, once the model is read with it.
fn guide(bench: &Bench) -> Option<PathBuf> {
    let model = bench.harness.state().model()?;
    assert_eq!(model.guide.is_some(), model.paths.guide.is_some());
    model.paths.guide.clone()
}

#[test]
fn a_published_network_guides_until_it_is_taken_away() {
    let mut bench = bench(|start| publish(start));
    set(&mut bench, "Guidance", 3.0);
    open_section(&mut bench);
    bench.until("looked for", |app| app.browser().cards().iter().all(|c| c.status.is_some()));
    choose(&mut bench, "Guide (autoguidance)", "Small guide");
    bench.until("read", |app| app.model().is_some_and(|model| model.guide.is_some()));
    // The network is its own guide, so that there is nothing to go on to.
    let (guided, own) = picture(&mut bench);
    assert_eq!(guided.weights.guide.as_ref(), Some(&guided.weights.model));
    set(&mut bench, "Guidance", 1.0);
    let (unguided, same) = picture(&mut bench);
    assert_eq!(unguided.weights.guide, None, "it did nothing");
    assert!(own == same);
    set(&mut bench, "Guidance", 3.0);
    choose(&mut bench, "Guide (autoguidance)", "none");
    bench.until("read", |app| app.model().is_some_and(|model| model.guide.is_none()));
    let (classifier_free, other) = picture(&mut bench);
    assert_eq!(classifier_free.weights.guide, None);
    assert!(own != other, "the class is left out in the second half");
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
    // Another one makes another picture, and that is said.
    let id = bench.harness.state().gallery().entries()[2].id;
    act(&mut bench, Action::UseSettings(id));
    assert!(bench.notices()[0].contains("with another guide"), "{:?}", bench.notices());
}

#[test]
fn a_guide_that_does_not_fit_is_told_and_another_model_comes_without() {
    let mut bench = bench(|_| {});
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/cases");
    act(&mut bench, Action::Guide(Some(cases.join("repa-sit.safetensors"))));
    bench.until("told", |app| !app.notices().shown().is_empty());
    bench.until("read", |app| app.model().is_some());
    let told = bench.notices().remove(0);
    assert!(told.starts_with("The guide is left out.") && told.contains("SiT"), "{told}");
    assert_eq!(guide(&bench), None);
    act(&mut bench, Action::Guide(Some(file())));
    bench.until("read", |app| app.model().is_some());
    assert_eq!(guide(&bench), Some(file()));
    act(&mut bench, Action::EmbeddedModel);
    bench.until("read", |app| app.model().is_some());
    assert_eq!(guide(&bench), None);
    assert_eq!(bench.harness.state().preferences().choice.paths, ModelPaths::default());
}
