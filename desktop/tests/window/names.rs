//! Names that several classes share, typed into the window.

use std::path::{Path, PathBuf};

use super::bench::{Bench, STEPS, settings};
use eframe::egui::{Event, Key, Modifiers};
use egui_kittest::kittest::Queryable;

/// A window with a small HDiT of ImageNet's classes.
fn imagenet() -> Bench {
    let mut bench = Bench::new(&settings(STEPS));
    open(&mut bench);
    bench
}

/// Its file.
pub fn file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("trainer/tests/cases/imagenet-crane.safetensors")
}

/// Opens it in a window.
pub fn open(bench: &mut Bench) {
    bench.drop_files(&[&file()]);
    bench.until("open", |app| app.model().is_some_and(|m| m.inspection.labels.len() == 1000));
}

/// Letters and Enter in one frame, as a slow window gets them.
fn type_and_enter(bench: &mut Bench, text: &str) {
    bench.harness.get_by_label("Search classes").focus();
    bench.harness.step();
    let enter = Event::Key {
        key: Key::Enter,
        physical_key: None,
        pressed: true,
        repeat: false,
        modifiers: Modifiers::NONE,
    };
    bench.harness.input_mut().events.extend([Event::Text(text.into()), enter]);
    bench.harness.step();
    bench.harness.step();
}

fn chosen(bench: &Bench) -> &[usize] {
    &bench.harness.state().preferences().form.classes
}

#[test]
fn a_shared_name_is_not_taken_for_the_first_class() {
    let mut bench = imagenet();
    type_and_enter(&mut bench, "crane");
    assert!(chosen(&bench).is_empty(), "{:?}", chosen(&bench));
    assert!(bench.harness.state().queue().is_empty());
    bench.harness.get_by_label_contains("2 classes are called “crane”");
    bench.harness.get_by_label("crane, class 134");
    bench.harness.get_by_label("crane, class 517");
    // The keyboard goes to the first and on to the second.
    for class in [134, 517] {
        bench.harness.key_press(Key::ArrowDown);
        bench.harness.step();
        bench.harness.key_press(Key::Enter);
        bench.harness.step();
        assert_eq!(chosen(&bench), [class]);
        bench.idle();
    }
    let made = bench.harness.state().gallery().entries();
    let classes: Vec<_> = made.iter().map(|e| e.origin.as_ref()?.spec.class).collect();
    assert_eq!(classes, [Some(517), Some(134)]);
    for file in ["crane-134-7.png", "crane-517-7.png"] {
        assert!(bench.pictures().join(file).exists(), "{file}");
    }
}

#[test]
fn a_first_synonym_is_taken_at_once() {
    let mut bench = imagenet();
    type_and_enter(&mut bench, "harp");
    assert_eq!(chosen(&bench), [594]);
    bench.idle();
}

#[test]
fn a_click_decides_between_classes_of_one_name() {
    let mut bench = imagenet();
    type_and_enter(&mut bench, "maillot");
    bench.harness.get_by_label("maillot, class 639").click();
    bench.harness.step();
    assert_eq!(chosen(&bench), [639]);
    bench.harness.key_press(Key::Enter);
    bench.harness.step();
    assert_eq!(chosen(&bench), [639]);
    bench.until("a picture", |app| !app.gallery().entries().is_empty());
}

#[test]
fn enter_after_a_click_means_the_chosen_class() {
    let mut bench = Bench::new(&settings(STEPS));
    bench.harness.get_by_label("Search classes").type_text("creature");
    bench.harness.run_steps(2);
    bench.harness.get_by_label("creature-face, class 11");
    bench.harness.get_by_label("sea-creature, class 32").click();
    bench.harness.run_steps(2);
    bench.harness.key_press(Key::Enter);
    bench.harness.run_steps(2);
    assert_eq!(chosen(&bench), [32]);
    // The keyboard takes over again.
    bench.harness.event(Event::Text("-f".into()));
    bench.harness.run_steps(2);
    bench.harness.key_press(Key::Enter);
    bench.harness.run_steps(2);
    assert_eq!(chosen(&bench), [11]);
}

/// The test's window panics at a letter that its fonts lack; a person's shows a box.
#[test]
fn the_help_of_the_keys_has_only_letters_that_the_fonts_have() {
    let mut bench = Bench::new(&settings(STEPS));
    bench.harness.get_by_label("Keys").click();
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Up, Down");
}
