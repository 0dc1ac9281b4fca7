//! Texts in strangers' files are shown, and are no commands to the terminal.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tintype::weights::{TensorView, write_safetensors};

use crate::{run, text};

/// Whether a terminal would do something else with a text than to show it in lines.
fn commands(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}')
}

#[test]
fn what_a_checkpoint_says_is_escaped() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let author = "\u{1b}]0;title\u{7}\u{7f}\u{9b}2J\nfit       all of it".to_string();
    let metadata = BTreeMap::from([("author\u{1b}[8m".to_string(), author)]);
    let value = TensorView::from_f32(vec![1], &[0.5]).expect("one value");
    let tensors = BTreeMap::from([("a\u{202e}\u{1b}c".to_string(), value)]);
    let file = path("a\u{9b}1m.safetensors");
    std::fs::write(&file, write_safetensors(&tensors, &metadata).expect("it writes")).expect("it");
    let told = run(&["info", &file]);
    let (said, errors) = (text(&told.stdout), text(&told.stderr));
    assert!(told.status.success(), "{errors}");
    assert!(!commands(&said) && !commands(&errors), "{said:?} {errors:?}");
    let shown = "author\\u{1b}[8m \\u{1b}]0;title\\u{7}\\u{7f}\\u{9b}2J\\nfit       all of it";
    assert!(said.lines().any(|line| line == shown), "{said}");

    let json = run(&["info", "--json", &file]);
    let json = text(&json.stdout);
    assert!(!commands(&json) && json.contains("a\\u009b1m.safetensors"), "{json:?}");
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["file"], file.as_str());
}

#[test]
fn an_error_is_escaped() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("a\u{9b}1m\u{202e}.pt").display().to_string();
    std::fs::write(&file, "no checkpoint").expect("it is written");
    let told = run(&["info", &file]);
    let errors = text(&told.stderr);
    assert!(!told.status.success(), "{}", text(&told.stdout));
    assert!(!commands(&errors) && errors.contains("a\\u{9b}1m\\u{202e}.pt: "), "{errors:?}");
}
