//! A checkpoint becomes a safetensors file, also over one that is open.

use std::fs::File;
use std::io::Read;

use tintype::weights::{Weights, open};

use crate::common::names;
use crate::place::{Place, not_tested_here, read, sentence};

/// A tiny checkpoint of a training. It is a part of this program, as that may see other folders than its compiler.
const CHECKPOINT: &[u8] = include_bytes!("../../../tests/goldens/pt/lightningdit_train.pt");
const SOURCE: &str = "Prüfling von Ömer.pt";
const OUT: &str = "Gewichte ß.safetensors";

#[test]
fn a_file_is_replaced_when_asked() {
    let place = Place::new();
    place.write(SOURCE, CHECKPOINT);
    place.succeeds(&["convert", SOURCE, OUT]);
    let first = read(&place.path(OUT));
    assert_whole(&first);

    let refusal = sentence(&place.run(&["convert", SOURCE, OUT, "--dtype", "f16"]));
    assert!(refusal.contains("exists") && refusal.contains("--force"), "{refusal}");
    assert!(read(&place.path(OUT)) == first, "it was replaced without --force");

    let (source, out) = (place.argument(SOURCE), place.argument(OUT));
    place.succeeds(&["convert", &source, &out, "--dtype", "f16", "--force"]);
    let second = read(&place.path(OUT));
    assert_whole(&second);
    assert!(second.len() < first.len(), "{} of {} bytes", second.len(), first.len());
    assert_eq!(names(&place.path(".")), [OUT, SOURCE]);
}

#[test]
fn a_file_that_is_open_is_replaced_or_left_whole() {
    let place = Place::new();
    place.write(SOURCE, CHECKPOINT);
    place.succeeds(&["convert", SOURCE, OUT]);

    let before = read(&place.path(OUT));
    let first = before.clone();
    let mut held = File::open(place.path(OUT)).expect("it opens");
    replaces_or_refuses(&place, SOURCE, "f16", "a file that is open");
    let mut still = Vec::new();
    held.read_to_end(&mut still).expect("it is read");
    assert!(still == before, "who has it open reads the old file to its end");
    drop(held);

    // As `generate` has it open.
    let mapped = open(&place.path(OUT)).expect("it opens");
    replaces_or_refuses(&place, SOURCE, "bf16", "a file that is mapped");
    drop(mapped);

    // To another type than it has, whichever of these was refused.
    let dtype = if read(&place.path(OUT)) == first { "f16" } else { "f32" };
    replaces_or_refuses(&place, OUT, dtype, "a file that is read itself");
}

/// Converts to [`OUT`], which somebody has open: there is the new file afterwards, or the old one and a sentence.
fn replaces_or_refuses(place: &Place, source: &str, dtype: &str, what: &str) {
    let before = read(&place.path(OUT));
    let output = place.run(&["convert", source, OUT, "--dtype", dtype, "--force"]);
    let after = read(&place.path(OUT));
    assert_whole(&after);
    if output.status.success() {
        assert!(after != before, "{what} was not replaced");
    } else {
        let refusal = sentence(&output);
        if cfg!(unix) {
            panic!("{what} was not replaced: {refusal}");
        }
        assert!(after == before, "{what} was replaced, and that was called an error: {refusal}");
        assert!(refusal.contains(OUT), "{what}: {refusal}");
        not_tested_here(&format!("replacing {what} ({refusal})"));
    }
    assert_eq!(names(&place.path(".")), [OUT, SOURCE], "{what}: something was left");
}

fn assert_whole(safetensors: &[u8]) {
    let weights = Weights::from_bytes(safetensors.to_vec(), OUT).expect("it is whole");
    assert_eq!(weights.metadata["section"], "ema");
    assert!(weights.tensors.contains_key("blocks.0.attn.qkv.weight"));
}
