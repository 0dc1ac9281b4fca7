//! The app as people use it: by accessible names and the keyboard, with the embedded model.

use super::bench::{Bench, STEPS, environment, settings, sized};
use eframe::egui::accesskit::Role;
use eframe::egui::{Event, Key, Modifiers};
use egui_kittest::kittest::Queryable;
use tintype::generate::Origin;
use tintype::settings::{Quality, Sampler};
use tintype_desktop::action::View;
use tintype_desktop::preferences::Preferences;

/// Types into the search field and presses Enter.
pub fn generate(bench: &mut Bench, class: &str) {
    bench.harness.get_by_label("Search classes").focus();
    bench.harness.step();
    bench.harness.get_by_label("Search classes").type_text(class);
    bench.harness.step();
    bench.harness.key_press(Key::Enter);
    bench.harness.step();
    // The next search begins anew.
    bench.harness.get_by_label("Search classes").focus();
    bench.harness.step();
    bench.harness.key_press(Key::Escape);
    bench.harness.step();
}

fn origin(bench: &Bench, at: usize) -> Origin {
    let entry = &bench.harness.state().gallery().entries()[at];
    entry.origin.clone().expect("it says how it was made")
}

#[test]
fn type_a_class_press_enter_and_there_is_a_picture() {
    let mut bench = Bench::new(&settings(STEPS));
    generate(&mut bench, "frui");
    bench.until("a picture in the making", |app| app.queue().running().is_some());
    bench.harness.get_by_label("Stop");
    bench.idle();
    let origin = origin(&bench, 0);
    assert_eq!((origin.class_name.as_str(), origin.spec.seed), ("fruit", 7));
    assert_eq!(origin.settings.steps, STEPS);
    let saved = bench.pictures().join("fruit-17-7.png");
    let png = std::fs::read(&saved).expect("it is saved");
    assert_eq!(Origin::read(&png).expect("it carries its settings"), origin);
    // It is shown with what can be done with it, and in the strip below.
    bench.harness.get_by_role_and_label(Role::Image, "fruit, seed 7");
    bench.harness.get_by_label("Show fruit, seed 7");
    bench.harness.get_by_label("Compare with the decoded latent");
    assert!(bench.harness.state().of_model().is_some_and(|m| m.recent == [17]));
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
    bench.harness.event(Event::Copy);
    bench.harness.run_steps(2);
    assert_eq!(bench.notices(), ["The picture is in the clipboard."]);
}

/// A window that is slow to draw gets letters and Enter at once.
#[test]
fn letters_and_enter_in_one_frame_are_that_class() {
    let mut bench = Bench::new(&settings(STEPS));
    bench.harness.get_by_label("Search classes").focus();
    bench.harness.step();
    let enter = Event::Key {
        key: Key::Enter,
        physical_key: None,
        pressed: true,
        repeat: false,
        modifiers: Modifiers::NONE,
    };
    // Events that the harness queues have a frame each.
    bench.harness.input_mut().events.extend([Event::Text("fruit".into()), enter]);
    bench.harness.step();
    assert_eq!(bench.harness.state().preferences().form.classes, [17]);
    bench.until("a picture in the making", |app| app.queue().running().is_some());
}

#[test]
fn the_keyboard_walks_through_the_classes() {
    let mut bench = Bench::new(&settings(STEPS));
    // Letters typed anywhere go into the search.
    bench.harness.get_by_label("Search classes");
    bench.harness.event(Event::Text("sea".into()));
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("sea-creature, class 32");
    assert!(bench.harness.query_by_label("fruit, class 17").is_none());
    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    bench.harness.step();
    assert_eq!(bench.harness.state().preferences().form.classes, [32]);
    bench.harness.key_press(Key::Escape);
    bench.harness.step();
    // Down twice from the first class, and add it.
    bench.harness.key_press(Key::ArrowDown);
    bench.harness.step();
    bench.harness.key_press(Key::ArrowDown);
    bench.harness.step();
    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Enter);
    bench.harness.step();
    assert_eq!(bench.harness.state().preferences().form.classes, [32, 2]);
    // A misspelt class is answered.
    bench.harness.event(Event::Text("frut".into()));
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Did you mean fruit?").click();
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("fruit, class 17").click();
    bench.harness.step();
    assert_eq!(bench.harness.state().preferences().form.classes, [17]);
    bench.harness.get_by_label("Give fruit a star").click();
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Take the star from fruit");
}

#[test]
fn jobs_queue_move_and_stop_after_the_step_in_hand() {
    let mut bench = Bench::new(&settings(400));
    generate(&mut bench, "heart");
    generate(&mut bench, "bird");
    generate(&mut bench, "flower");
    bench.until("a step", |app| app.queue().running().is_some());
    let waiting = |bench: &Bench| -> Vec<String> {
        bench.harness.state().queue().waiting().map(|job| job.name.clone()).collect()
    };
    assert_eq!(waiting(&bench), ["bird", "flower"]);
    bench.harness.get_by_label("Move flower up").click();
    bench.harness.step();
    assert_eq!(waiting(&bench), ["flower", "bird"]);
    bench.harness.step();
    bench.harness.get_by_label("Remove bird").click();
    bench.harness.step();
    assert_eq!(waiting(&bench), ["flower"]);
    bench.harness.get_by_label("Stop all").click();
    bench.harness.step();
    bench.idle();
    assert!(bench.harness.state().gallery().entries().is_empty());
    // The engine is as good as new, and finished pictures of a stopped job are kept.
    let mut bench = Bench::new(&settings(STEPS));
    bench.harness.get_by_label("Search classes").type_text("heart");
    bench.harness.step();
    let count = bench.harness.get_by_role_and_label(Role::Slider, "Count");
    count.set_value_accesskit(64.0);
    bench.harness.step();
    bench.harness.key_press(Key::Enter);
    bench.until("two pictures", |app| app.gallery().entries().len() >= 2);
    let job = bench.harness.state().queue().running().map(|job| job.images.len());
    assert_eq!(job, Some(64));
    bench.harness.get_by_label("Stop").click();
    bench.idle();
    let made = bench.harness.state().gallery().entries().len();
    assert!((2..64).contains(&made), "{made}");
    let seeds: Vec<u64> = (0..made).map(|at| origin(&bench, at).spec.seed).collect();
    assert_eq!(seeds, (0..made as u64).rev().map(|k| 7 + k).collect::<Vec<_>>());
}

#[test]
fn the_gallery_shows_compares_deletes_and_varies() {
    let mut bench = Bench::new(&settings(STEPS));
    generate(&mut bench, "smiley");
    bench.idle();
    bench.harness.get_by_label("Another seed").click();
    bench.idle();
    let (latest, first) = (origin(&bench, 0), origin(&bench, 1));
    assert_eq!((latest.spec.class, first.spec.seed), (first.spec.class, 7));
    assert_ne!(latest.spec.seed, first.spec.seed);

    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Num2);
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("2 pictures");
    bench.harness.get_by_label("Show smiley, seed 7").click();
    bench.harness.step();
    bench.harness.step();
    let shown = bench.harness.state().gallery().entries()[1].id;
    assert_eq!(bench.harness.state().view(), View::Picture(shown));
    // Looking at a picture does not change the current settings; a wish does.
    let mut preferences = bench.harness.state().preferences().clone();
    bench.harness.get_by_label("Use seed").click();
    bench.harness.step();
    preferences.form.seed = 7;
    assert_eq!(bench.harness.state().preferences().form, preferences.form);
    bench.harness.get_by_label("Compare with").click();
    bench.harness.step();
    bench.harness.step();
    let other = format!("smiley, seed {}", latest.spec.seed);
    bench.harness.get_by_label(&other).click();
    bench.harness.step();
    bench.harness.step();
    assert!(matches!(bench.harness.state().view(), View::Compare(..)));
    bench.harness.get_by_label("Back").click();
    bench.harness.step();

    let file = bench.pictures().join("smiley-36-7.png");
    let content = std::fs::read(&file).expect("it is saved");
    bench.harness.step();
    bench.harness.get_by_label("Show smiley, seed 7").click();
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Delete").click();
    bench.harness.step();
    assert!(!file.exists());
    assert_eq!(bench.harness.state().gallery().entries().len(), 1);
    bench.harness.step();
    bench.harness.get_by_label("Undo").click();
    bench.harness.step();
    assert_eq!(std::fs::read(&file).expect("it is back"), content);
    assert_eq!(origin(&bench, 1).spec.seed, 7);
}

#[test]
fn pictures_of_earlier_sessions_are_in_the_gallery() {
    let mut first = Bench::new(&settings(STEPS));
    generate(&mut first, "bug");
    first.idle();
    let pictures = first.pictures();
    std::fs::write(pictures.join("broken.png"), b"no picture").expect("written");
    let mut later = Bench::built(&settings(STEPS), sized([1180.0, 780.0]), |start| {
        start.output = Some(pictures.clone());
    });
    later.until("listed", |app| app.gallery().entries().len() == 2);
    later.harness.key_press_modifiers(Modifiers::COMMAND, Key::Num2);
    later.until("read", |app| {
        let read = |entry: &tintype_desktop::gallery::Entry| {
            entry.origin.is_some() || entry.trouble.is_some()
        };
        app.gallery().entries().iter().all(read)
    });
    later.harness.get_by_label("Show bug, seed 7");
    later.harness.get_by_label("Show broken.png");
}

#[test]
fn a_dropped_picture_brings_its_settings() {
    let mut bench = Bench::new(&settings(STEPS));
    generate(&mut bench, "clock");
    bench.idle();
    let picture = bench.pictures().join("clock-8-7.png");
    let mut other = Bench::new(&settings(50));
    other.drop_files(&[&picture]);
    other.until("taken over", |app| !app.notices().shown().is_empty());
    let app = other.harness.state();
    assert_eq!(app.preferences().form.classes, [8]);
    assert_eq!((app.preferences().form.seed, app.preferences().form.seed_locked), (7, true));
    assert_eq!(app.settings().map(|settings| settings.steps), Some(STEPS));
    assert!(other.notices()[0].contains("settings, class and seed"));
}

#[test]
fn dropped_weights_open_or_say_why_not() {
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let network = models.join("hidit.safetensors");
    let vae = models.join("vae-decoder.safetensors");
    let mut bench = Bench::new(&settings(STEPS));
    bench.drop_files(&[&network]);
    bench.until("told", |app| !app.notices().shown().is_empty());
    assert!(bench.notices()[0].contains("“Autoencoder…”"), "{:?}", bench.notices());
    assert!(bench.harness.state().model().is_none());
    bench.drop_files(&[&vae]);
    bench.until("open", |app| app.model().is_some());
    assert_eq!(bench.harness.state().model().map(|m| m.name.as_str()), Some("hidit.safetensors"));
    assert!(bench.notices().is_empty(), "the trouble is over: {:?}", bench.notices());
    generate(&mut bench, "fruit");
    bench.idle();
    assert_eq!(bench.harness.state().gallery().entries().len(), 1);
    bench.drop_files(&[&models.join("README.md")]);
    bench.until("told", |app| !app.notices().shown().is_empty());
    assert!(bench.harness.state().model().is_some(), "the model is still there");
}

/// A small HDiT: its classes have no names, its picture comes without latents.
#[test]
fn a_model_of_pixels_develops_too() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = root.join("tests/goldens/hdit_denoiser.safetensors");
    let mut weights = tintype::weights::open(&golden).expect("it opens");
    let own = |name: String| name.strip_prefix("w.").map(String::from);
    weights.tensors =
        weights.tensors.into_iter().filter_map(|(name, view)| Some((own(name)?, view))).collect();
    weights.metadata.retain(|key, _| key == "config");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hdit.safetensors");
    let bytes = tintype::weights::write_safetensors(&weights.tensors, &weights.metadata);
    std::fs::write(&path, bytes.expect("it is written")).expect("written");
    let mut bench = Bench::new(&settings(STEPS));
    bench.drop_files(&[&path]);
    bench.until("open", |app| app.model().is_some_and(|m| m.name == "hdit.safetensors"));
    let before = bench.harness.state().settings();
    generate(&mut bench, "2");
    bench.idle();
    let origin = origin(&bench, 0);
    assert_eq!((origin.spec.class, Some(origin.settings)), (Some(2), before));
    assert!(bench.harness.query_by_label("Compare with the decoded latent").is_none());
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

#[test]
fn a_locked_folder_is_told_and_the_picture_is_kept() {
    let mut bench = Bench::built(&settings(STEPS), sized([1180.0, 780.0]), |start| {
        // A file where the folder should be cannot be written into, even by an administrator.
        std::fs::write(&start.pictures, b"").expect("written");
    });
    generate(&mut bench, "dish");
    bench.idle();
    assert!(bench.notices()[0].contains("not saved"), "{:?}", bench.notices());
    bench.harness.get_by_label("Choose a folder…");
    bench.harness.get_by_role_and_label(Role::Image, "dish, seed 7");
    assert!(bench.harness.state().gallery().entries()[0].path.is_none());
    // Once the way is free, the picture is saved after all.
    std::fs::remove_file(bench.pictures()).expect("removed");
    let ctx = bench.harness.ctx.clone();
    bench.harness.state_mut().act(tintype_desktop::action::Action::DefaultFolder, &ctx);
    assert!(bench.pictures().join("dish-13-7.png").exists());
}

#[test]
fn a_damaged_settings_file_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("settings.json");
    std::fs::write(&path, "not JSON").expect("written");
    let bench = Bench::built(&settings(STEPS), sized([1180.0, 780.0]), |start| {
        start.preferences = path.clone();
        start.notice = Some("The app was started again.".into());
        // There is no catalogue in it.
        start.environment = Some(environment(folder.path()));
    });
    // Last, since more messages push the first ones out.
    let told = bench.notices();
    let parts = ["was started again", "list of models", "could not be read"];
    assert!(told.len() >= parts.len(), "{told:?}");
    for (notice, part) in told.iter().zip(parts) {
        assert!(notice.contains(part), "{told:?}");
    }
    bench.harness.get_by_label("Generate");
    assert!(folder.path().join("settings.damaged.json").exists());
}

#[test]
fn an_unknown_device_is_told_and_another_can_be_chosen() {
    let mut bench = Bench::built(&settings(STEPS), sized([1180.0, 780.0]), |start| {
        start.device = Some("wgpu:77".into());
    });
    bench.until("told", |app| !app.notices().shown().is_empty());
    assert!(bench.notices()[0].contains("no wgpu:77 device"), "{:?}", bench.notices());
    assert!(!bench.notices()[0].contains("--device"), "{:?}", bench.notices());
    let ctx = bench.harness.ctx.clone();
    let cpu = tintype_desktop::action::Action::Device("cpu".into());
    bench.harness.state_mut().act(cpu, &ctx);
    generate(&mut bench, "fruit");
    bench.idle();
    assert_eq!(origin(&bench, 0).device, "cpu");
}

#[test]
fn the_smallest_window_at_twice_the_density_has_room_for_everything() {
    let size = [760.0, 480.0];
    let builder = sized(size).with_pixels_per_point(2.0);
    let mut bench = Bench::built(&settings(400), builder, |_| {});
    generate(&mut bench, "heart");
    generate(&mut bench, "bird");
    bench.until("at work", |app| app.queue().running().is_some());
    let window = eframe::egui::Rect::from_min_size(eframe::egui::Pos2::ZERO, size.into());
    let names =
        ["Generate", "Surprise me", "Stop", "Stop all", "Remove bird", "Search classes", "Keys"];
    for name in names {
        let rect = bench.harness.get_by_label(name).rect();
        assert!(window.contains_rect(rect), "{name} is at {rect}");
    }
    bench.harness.get_by_label("Stop all").click();
    bench.idle();
}

/// A window's device that was made for drawing alone lacks what networks need.
#[test]
fn a_gpu_computes_beside_a_window_that_draws_modestly() {
    let mut settings = settings(STEPS);
    settings["choice"]["device"] = "wgpu".into();
    let mut bench = Bench::built(&settings, sized([1180.0, 780.0]).wgpu(), |_| {});
    bench.until("loaded", |app| app.ready().is_some());
    let ready = bench.harness.state().ready().expect("loaded").clone();
    assert!(ready.device.starts_with("wgpu") && !ready.shared, "{ready:?}");
    generate(&mut bench, "fruit");
    bench.idle();
    assert_eq!(origin(&bench, 0).device, ready.device);
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

/// Sampler and steps come together, and stay alone.
#[test]
fn a_quality_sets_sampler_and_steps() {
    let mut bench = Bench::new(&settings(STEPS));
    let current = |bench: &Bench| {
        let app = bench.harness.state();
        let settings = app.settings().expect("a model");
        (app.quality(), settings.sampler, settings.steps)
    };
    assert_eq!(current(&bench), (None, Sampler::EulerMaruyama, STEPS));
    bench.harness.get_by_label("Draft, 8 steps").click();
    bench.harness.run_steps(2);
    assert_eq!(current(&bench), (Some(Quality::Draft), Sampler::UniPc, 8));
    bench.harness.get_by_role_and_label(Role::Slider, "Steps").set_value_accesskit(2.0);
    bench.harness.run_steps(2);
    assert_eq!(current(&bench), (None, Sampler::UniPc, 2));
    // How long a picture takes is known after the first.
    assert!(bench.harness.query_by_label_contains(", about ").is_none());
    generate(&mut bench, "fruit");
    bench.idle();
    bench.harness.get_by_label_contains("Draft, 8 steps, about ");
    bench.harness.get_by_label_contains("Good, 16 steps, about ").click();
    bench.harness.run_steps(2);
    assert_eq!(current(&bench), (Some(Quality::Good), Sampler::UniPc, 16));
    bench.harness.get_by_label_contains("Best, ").click();
    bench.harness.run_steps(2);
    let app = bench.harness.state();
    let (defaults, settings) =
        (app.model().expect("a model").defaults, app.settings().expect("a model"));
    assert_eq!(current(&bench), (Some(Quality::Best), defaults.sampler, defaults.steps));
    assert_eq!(settings.guidance.scale, 2.0, "guidance is no matter of time");
}

#[test]
fn what_was_set_is_remembered() {
    let mut bench = Bench::new(&settings(STEPS));
    bench.harness.get_by_role_and_label(Role::Slider, "Steps").set_value_accesskit(12.0);
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Generate").click();
    bench.harness.step();
    assert!(bench.notices()[0].starts_with("Pick a class first"));
    let file = bench.folder.path().join("settings.json");
    let mut app = bench.harness.into_state();
    eframe::App::on_exit(&mut app);
    let (preferences, trouble) = Preferences::load(&file, false).expect("it can be read");
    assert_eq!(trouble, None);
    let steps = preferences.models.values().next().and_then(|m| m.settings).map(|s| s.steps);
    assert_eq!(steps, Some(12));
}
