//! Downloads, with a bar for each, lines where there is no terminal, or JSON lines.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tintype::catalogue::File;
use tintype::generate::bytes;
use tintype::labels::printable;
use tintype_download::{DownloadError, Fetched, State};

use crate::cli::terminal::shown_json;

/// The time between two lines of a file, where there is no terminal for bars, and between two JSON lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Bars of files whose length is known, and is not.
const WITH_LENGTH: &str =
    "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}";
const WITHOUT_LENGTH: &str = "{prefix} {bytes} {bytes_per_sec} {msg}";

/// Shows the length of a file.
fn with_length(bar: &ProgressBar, length: u64) {
    if bar.length() != Some(length) {
        bar.set_length(length);
        if let Ok(style) = ProgressStyle::with_template(WITH_LENGTH) {
            bar.set_style(style);
        }
    }
}

/// What is shown of one file.
struct Shown {
    address: String,
    name: String,
    bar: ProgressBar,
    last: Mutex<Option<Instant>>,
}

/// Downloads that are shown.
pub struct Watched<'a> {
    files: &'a [&'a File],
    shown: Vec<Shown>,
    has_bars: bool,
    json: bool,
}

impl<'a> Watched<'a> {
    /// Of these files.
    pub fn new(files: &'a [&'a File], json: bool) -> Self {
        let has_bars = !json && std::io::stderr().is_terminal();
        let bars = MultiProgress::new();
        let shown = |file: &&File| {
            let bar = match has_bars {
                true => bars.add(ProgressBar::no_length()),
                false => ProgressBar::hidden(),
            };
            bar.set_prefix(printable(file.name()));
            if let Ok(style) = ProgressStyle::with_template(WITHOUT_LENGTH) {
                bar.set_style(style);
            }
            if let Some(size) = file.size() {
                with_length(&bar, size);
            }
            Shown {
                address: file.address.to_string(),
                name: file.name().into(),
                bar,
                last: Mutex::new(None),
            }
        };
        Self { files, shown: files.iter().map(shown).collect(), has_bars, json }
    }

    /// Is told what the download of a file is doing.
    pub fn watch(&self) -> impl Fn(usize, State) + Sync + '_ {
        |index, state| {
            if let Some(shown) = self.shown.get(index) {
                shown.tell(&state, self.has_bars, self.json);
            }
        }
    }

    /// Clears the bars, and tells where the files are now.
    pub fn finish(&self, results: &[Result<Fetched, DownloadError>]) {
        for shown in &self.shown {
            shown.bar.finish_and_clear();
        }
        for (file, result) in self.files.iter().zip(results) {
            match result {
                Ok(fetched) => said(file, fetched, self.json),
                Err(error) if self.json => {
                    let (address, error) = (&file.address, error.to_string());
                    let event = json!({"event": "failed", "address": address, "error": error});
                    let _ = writeln!(std::io::stdout(), "{}", shown_json(&event.to_string()));
                }
                Err(_) => {}
            }
        }
    }
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
                    with_length(&self.bar, *total);
                }
                self.bar.set_message("");
                self.bar.set_position(*done);
                self.line(*done, *total, has_bars, json);
            }
            State::Locked => {
                self.bar.set_message("another program downloads it");
                if !has_bars {
                    eprintln!("{}: another program downloads it", self.name);
                }
            }
            State::Waiting { seconds, problem } => {
                self.bar.set_message(printable(&format!("{problem}; again in {seconds} s")));
                if !has_bars {
                    eprintln!("{}: {problem}; again in {seconds} s", self.name);
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
            let event = json!({"event": "download", "address": self.address, "bytes": done, "total": total});
            let _ = writeln!(std::io::stdout(), "{}", shown_json(&event.to_string()));
        } else if !is_first {
            let of = total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
            let rate = bytes(self.bar.per_sec() as u64);
            eprintln!("{}: {}{of}, {rate}/s", self.name, bytes(done));
        }
    }
}

/// Tells where a file is now, and what it is: a digest that was not known can be pinned.
fn said(file: &File, fetched: &Fetched, json: bool) {
    if json {
        // A path need not be Unicode, but JSON is.
        let path = fetched.path.display().to_string();
        let event = json!({"event": "downloaded", "address": file.address, "path": path,
            "bytes": fetched.bytes, "sha256": fetched.sha256, "commit": fetched.commit,
            "not_asked": fetched.not_asked});
        let _ = writeln!(std::io::stdout(), "{}", shown_json(&event.to_string()));
        return;
    }
    if let Some(problem) = &fetched.not_asked {
        eprintln!("note: whether there is a newer {} is not known: {problem}", file.name());
    }
    let Some(sha256) = &fetched.sha256 else { return };
    let checked = if file.sha256.is_some() { "SHA-256 as pinned" } else { "SHA-256 " };
    let digest = if file.sha256.is_some() { "" } else { sha256.as_str() };
    let commit = fetched.commit.as_ref().map(|c| format!(", commit {c}")).unwrap_or_default();
    let size = bytes(fetched.bytes);
    eprintln!("{}: {size}, {checked}{digest}{commit}", file.address);
}
