//! Progress output: a progress bar, lines where there is no terminal, or JSON lines.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

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
        self.bar.set_message(text);
    }

    /// Sets the number of finished steps.
    pub fn position(&self, steps: u64) {
        self.bar.set_position(steps);
        let Some(line) = &self.line else { return };
        let mut last = line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= BETWEEN_LINES {
            *last = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            let (message, unit) = (self.bar.message(), &self.unit);
            let _ = writeln!(std::io::stderr(), "{message}: {steps}/{total} {unit}");
        }
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
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Prints a line, without `--json` only.
    pub fn line(&self, text: &str) {
        if !self.json {
            // A closed pipe must not stop the work.
            self.bar.suspend(|| {
                let _ = writeln!(std::io::stdout(), "{text}");
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
