//! Telling what happens: a progress bar for people, JSON lines for programs.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Where a command's news go.
pub struct Reporter {
    bar: ProgressBar,
    json: bool,
}

impl Reporter {
    /// A bar over `steps` on standard error, or JSON lines on standard output.
    pub fn new(steps: u64, json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(steps) };
        let style = "{msg} {wide_bar} {pos}/{len} steps, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, json }
    }

    /// What is being worked on.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Steps done so far.
    pub fn position(&self, steps: u64) {
        self.bar.set_position(steps);
    }

    /// A JSON event, for programs only.
    pub fn event(&self, name: &str, mut fields: Value) {
        if !self.json {
            return;
        }
        let mut line = json!({ "event": name });
        if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object_mut()) {
            line.append(fields);
        }
        // A reader that went away must not stop the work.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        if !self.json {
            self.bar.suspend(|| println!("{text}"));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
