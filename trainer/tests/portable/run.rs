//! A little run: its data, its configuration, and what it has done.

use std::process::Command;

use serde_json::Value;

use crate::common::names;
use crate::images::write_zip;
use crate::place::{Place, read};
use crate::runs::hdit;

const STORE: &str = "Datensatz ö";
const CONFIG: &str = "Rezept ü.toml";
/// The run's folder.
pub const RUN: &str = "Lauf ß";

/// Prepares 24 images of these classes, and writes the configuration of a tiny HDiT of them.
///
/// * `every`: steps between checkpoints
/// * `more`: more lines of the table `run`
pub fn begin(place: &Place, classes: &[&str], every: u64, more: &str) {
    write_zip(&place.path("Bilder ö.zip"), classes, 24 / classes.len());
    place.succeeds(&["prepare", "Bilder ö.zip", "--out", STORE, "--size", "16"]);
    let config = hdit("", more)
        .replace("images = \"store\"", &format!("images = \"{STORE}\""))
        .replace("num_classes = 3", &format!("num_classes = {}", classes.len()))
        .replace("checkpoint_every = 2", &format!("checkpoint_every = {every}"));
    place.write(CONFIG, config);
}

/// The command that trains up to a step.
pub fn training(place: &Place, steps: u64) -> Command {
    let steps = steps.to_string();
    place.command(&["train", CONFIG, "--out", RUN, "--device", "cpu", "--quiet", "--steps", &steps])
}

/// Trains up to a step; what that says.
pub fn train(place: &Place, steps: u64) -> String {
    let output = training(place, steps).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    errors
}

/// Names of the checkpoints.
pub fn checkpoints(place: &Place) -> Vec<String> {
    names(&place.path(RUN).join("checkpoints"))
}

/// The log as it is.
pub fn log(place: &Place) -> Vec<u8> {
    read(&place.path(RUN).join("log.jsonl"))
}

/// The steps that the log has a loss of.
pub fn logged_steps(place: &Place) -> Vec<u64> {
    let text = String::from_utf8(log(place)).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let steps = lines.filter(|line| line["loss"].is_number());
    steps.map(|line| line["step"].as_u64().expect("a step")).collect()
}
