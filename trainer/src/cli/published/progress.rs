//! Downloads, with a bar for each, lines where there is no terminal, or JSON lines.

use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tintype::catalogue::File;
use tintype::generate::bytes;
use tintype_download::{DownloadError, Downloader, Fetched, State};

/// The time between two lines of a file, where there is no terminal for bars, and between two JSON lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// What is shown of one file.
struct Shown {
    name: String,
    bar: ProgressBar,
    last: Mutex<Option<Instant>>,
}

/// Fetches files and reports how far they are. The results have the order of the files.
pub fn fetch(
    downloader: &Downloader,
    files: &[&File],
    stop: &AtomicBool,
    json: bool,
) -> Vec<Result<Fetched, DownloadError>> {
    let has_bars = !json && std::io::stderr().is_terminal();
    let bars = MultiProgress::new();
    let shown: Vec<Shown> = files
        .iter()
        .map(|file| {
            let bar =
                if has_bars { bars.add(ProgressBar::no_length()) } else { ProgressBar::hidden() };
            let template =
                "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(file.name().to_string());
            bar.set_length(file.size().unwrap_or(0));
            Shown { name: file.name().into(), bar, last: Mutex::new(None) }
        })
        .collect();
    let watch = |index: usize, state: State| {
        if let Some(shown) = shown.get(index) {
            shown.tell(&state, has_bars, json);
        }
    };
    let results = downloader.fetch_all(files, &watch, stop);
    for shown in &shown {
        shown.bar.finish_and_clear();
    }
    for (file, result) in files.iter().zip(&results) {
        if let Ok(fetched) = result {
            said(file, fetched, json);
        }
    }
    results
}

impl Shown {
    fn tell(&self, state: &State, has_bars: bool, json: bool) {
        match state {
            State::Asking => self.bar.set_message("asking"),
            State::Checking { done } => {
                self.bar.set_message("checking what is there");
                self.bar.set_position(*done);
            }
            State::Receiving { done, total } => {
                if let Some(total) = total {
                    self.bar.set_length(*total);
                }
                self.bar.set_message("");
                self.bar.set_position(*done);
                self.line(*done, *total, has_bars, json);
            }
            State::Waiting { seconds, problem } => {
                self.bar.set_message(format!("{problem}; again in {seconds} s"));
                if !has_bars {
                    let _ = writeln!(
                        std::io::stderr(),
                        "{}: {problem}; again in {seconds} s",
                        self.name
                    );
                }
            }
        }
    }

    /// A line of progress, where it is time for one.
    fn line(&self, done: u64, total: Option<u64>, has_bars: bool, json: bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if has_bars || last.is_some_and(|last| last.elapsed() < BETWEEN_LINES) {
            return;
        }
        let is_first = last.replace(Instant::now()).is_none();
        if json {
            let event =
                json!({"event": "download", "file": self.name, "bytes": done, "total": total});
            let _ = writeln!(std::io::stdout(), "{event}");
        } else if !is_first {
            let of = total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            let rate = bytes(self.bar.per_sec() as u64);
            let _ = writeln!(std::io::stderr(), "{}: {}{of}, {rate}/s", self.name, bytes(done));
        }
    }
}

/// Tells where a file is now, and what it is: a digest that was not known can be pinned.
fn said(file: &File, fetched: &Fetched, json: bool) {
    if json {
        let event = json!({"event": "downloaded", "address": file.address, "path": fetched.path,
            "bytes": fetched.bytes, "sha256": fetched.sha256, "commit": fetched.commit});
        let _ = writeln!(std::io::stdout(), "{event}");
        return;
    }
    let mut err = std::io::stderr();
    if let Some(problem) = &fetched.not_asked {
        let _ =
            writeln!(err, "note: whether there is a newer {} is not known: {problem}", file.name());
    }
    let Some(sha256) = &fetched.sha256 else { return };
    let checked = if file.sha256.is_some() { "SHA-256 as pinned" } else { "SHA-256 " };
    let digest = if file.sha256.is_some() { "" } else { sha256.as_str() };
    let commit = fetched.commit.as_ref().map(|c| format!(", commit {c}")).unwrap_or_default();
    let size = bytes(fetched.bytes);
    let _ = writeln!(err, "{}: {size}, {checked}{digest}{commit}", file.address);
}
