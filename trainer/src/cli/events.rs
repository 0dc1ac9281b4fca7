//! Progress output: a progress bar, lines where there is no terminal, or JSON lines.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tintype::labels::printable;

use super::terminal::{shown, shown_json};
use crate::data::prepare::Progress;

/// The time between two lines of progress, where there is no terminal for a bar.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Reports progress of a command.
pub struct Reporter {
    bar: ProgressBar,
    json: bool,
    unit: String,
    /// When the last line of progress was due; `None` where there is a bar, or JSON.
    line: Option<Mutex<Instant>>,
}

impl Reporter {
    /// A progress bar over `steps` on standard error, or JSON lines on standard output.
    pub fn new(steps: u64, json: bool) -> Self {
        Self::counting(steps, "steps", json)
    }

    /// The same over another unit than steps.
    pub fn counting(total: u64, unit: &str, json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let style =
            format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        let lines = !json && !std::io::stderr().is_terminal();
        Self { bar, json, unit: unit.into(), line: lines.then(|| Mutex::new(Instant::now())) }
    }

    /// Sets the message of the progress bar.
    pub fn message(&self, text: String) {
        self.bar.set_message(printable(&text));
    }

    /// Sets the number of finished steps.
    pub fn position(&self, steps: u64) {
        self.bar.set_position(steps);
        if let Some(line) = self.line_at(steps, Instant::now()) {
            eprintln!("{line}");
        }
    }

    /// The line of progress, if there is no bar and it is time for one.
    fn line_at(&self, steps: u64, now: Instant) -> Option<String> {
        let mut last = self.line.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*last) < BETWEEN_LINES {
            return None;
        }
        *last = now;
        let total = self.bar.length().unwrap_or(0);
        Some(format!("{}: {steps}/{total} {}", self.bar.message(), self.unit))
    }

    /// Writes a JSON event, with `--json` only.
    pub fn event(&self, name: &str, mut fields: Value) {
        if !self.json {
            return;
        }
        let mut line = json!({ "event": name });
        if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object_mut()) {
            line.append(fields);
        }
        let _ = writeln!(std::io::stdout(), "{}", shown_json(&line.to_string()));
    }

    /// Prints a line, without `--json` only.
    pub fn line(&self, text: &str) {
        if !self.json {
            // A closed pipe must not stop the work.
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{}", shown(text));
            });
        }
    }

    /// Runs `work` in another thread while the bar follows its progress; `interrupted` cancels it.
    pub fn watch<T: Send>(
        &self,
        progress: &Progress,
        interrupted: &AtomicBool,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                if interrupted.load(Ordering::Relaxed) {
                    progress.stop.store(true, Ordering::Relaxed);
                }
                self.position(progress.images.load(Ordering::Relaxed));
                std::thread::sleep(Duration::from_millis(50));
            }
            self.finish();
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Clears the progress bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_in_a_line_every_ten_seconds_where_there_is_no_terminal() {
        let start = Instant::now();
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        let images = |json: bool| Reporter::counting(7, "images", json);
        assert_eq!(images(false).line.is_some(), !std::io::stderr().is_terminal());
        assert!(images(true).line_at(3, at(60_000)).is_none(), "events are enough");
        let reporter = Reporter { line: Some(Mutex::new(start)), ..images(false) };
        reporter.message("encoding on cpu".into());
        let lines: Vec<_> = [(1, 0), (2, 9_999), (3, 10_000), (4, 19_999), (5, 20_001)]
            .into_iter()
            .filter_map(|(steps, time)| reporter.line_at(steps, at(time)))
            .collect();
        assert_eq!(lines, ["encoding on cpu: 3/7 images", "encoding on cpu: 5/7 images"]);
    }
}
