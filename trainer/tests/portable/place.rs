//! A folder as people have them, and the program in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::program;

/// Spaces, letters beyond ASCII, and one that takes two units in UTF-16.
const NAME: &str = "Tintype Prüfung für Ömer 🖼";

/// A folder in which the program runs; it goes with the test.
pub struct Place {
    path: PathBuf,
    _around: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let around = TempDir::new().expect("a folder");
        let path = around.path().join(NAME);
        std::fs::create_dir(&path).expect("a folder of this name");
        Self { path, _around: around }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The whole path of a file, to be an argument.
    pub fn argument(&self, name: &str) -> String {
        self.path(name).to_str().expect("it is Unicode").to_string()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("it is written");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(&self.path).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// What a command says that must succeed.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        text(&output.stdout) + &errors
    }
}

/// The one sentence with which a command failed.
pub fn sentence(output: &Output) -> String {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let sentences: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(sentences.len(), 1, "{errors}");
    sentences[0].to_string()
}

/// The event of a name among the lines that a command has said.
pub fn event(said: &str, name: &str) -> Value {
    let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = events.find(|event| event["event"] == name);
    found.unwrap_or_else(|| panic!("no event {name}: {said}"))
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Tells what this system does not let be tested. The standard library's macro would be silent in tests that pass.
pub fn not_tested_here(what: &str) {
    let _ = writeln!(std::io::stderr(), "not tested here: {what}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
