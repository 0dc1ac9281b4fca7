//! A run goes on where it ended, also while somebody reads its files.

use std::fs::File;
use std::io::Read;

use tintype::weights::open;

use crate::images::CLASSES;
use crate::place::{Place, read};
use crate::run::{self, RUN};
use crate::runs::values;

#[test]
fn a_run_goes_on_and_is_a_model() {
    let place = Place::new();
    run::begin(&place, &CLASSES, 5, "");
    run::train(&place, 10);
    assert_eq!(run::checkpoints(&place), ["00000005", "00000010"]);
    let before = run::log(&place);
    run::train(&place, 15);
    assert_eq!(run::checkpoints(&place), ["00000010", "00000015"]);
    assert!(run::log(&place).starts_with(&before), "the first steps were not made again");
    assert_eq!(run::logged_steps(&place), (1..=15).collect::<Vec<_>>());

    let model = place.argument(RUN);
    let options = ["--steps", "2", "--device", "cpu", "--out", "Bild ß.png"];
    place.succeeds(&[&["generate", "Äpfel", "--model", &model][..], &options].concat());
    let picture = image::load_from_memory(&read(&place.path("Bild ß.png"))).expect("a PNG");
    assert_eq!((picture.width(), picture.height()), (16, 16));
}

#[test]
fn a_run_ends_while_its_log_and_its_checkpoint_are_open() {
    let place = Place::new();
    run::begin(&place, &CLASSES, 2, "keep_last = 1");
    run::train(&place, 4);
    assert_eq!(run::checkpoints(&place), ["00000004"]);

    // One is open as an editor has it, the other as `generate` does.
    let checkpoint = place.path(RUN).join("checkpoints").join("00000004");
    let mut held = File::open(place.path(RUN).join("log.jsonl")).expect("it opens");
    let (file, logged) = (checkpoint.join("model.safetensors"), run::log(&place));
    let (mut weights, saved) = (File::open(&file).expect("it opens"), read(&file));
    let mapped = open(&checkpoint.join("ema.safetensors")).expect("it opens");
    let averaged = values(&mapped);
    let said = run::train(&place, 8);
    let checkpoints = run::checkpoints(&place);
    assert_eq!(checkpoints.last().map(String::as_str), Some("00000008"));
    // Elsewhere a folder stays while a file in it is open.
    assert!(!cfg!(unix) || checkpoints.len() == 1, "{checkpoints:?}: {said}");
    let mut still = Vec::new();
    held.read_to_end(&mut still).expect("it is read");
    let goes_on = still.starts_with(&logged) && still == run::log(&place);
    assert!(goes_on, "who has the log open reads on in it");
    still.clear();
    weights.read_to_end(&mut still).expect("it is read");
    assert!(still == saved, "who has a checkpoint open reads it to its end");
    assert_eq!(values(&mapped), averaged);
    drop((held, weights, mapped));

    // What could not be deleted is deleted later.
    run::train(&place, 10);
    assert_eq!(run::checkpoints(&place), ["00000010"], "{said}");
    assert_eq!(run::logged_steps(&place), (1..=10).collect::<Vec<_>>());
}
