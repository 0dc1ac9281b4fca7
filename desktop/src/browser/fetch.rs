//! Downloads, a thread each, and what those threads tell.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui;
use tintype::catalogue::File;
use tintype::generate::ModelPaths;
use tintype_download::{DownloadError, Fetched, State};

use super::library::{CacheStatus, Library};
use super::progress::Progress;
use crate::{face, text};

/// Bytes that arrive are told so often.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a thread tells.
#[derive(Debug)]
pub(super) enum Event {
    /// What of every model is on this machine.
    Stocked(Vec<(String, CacheStatus)>),
    /// A download has found out what is missing: files with these sizes.
    Begun { name: String, sizes: Vec<Option<u64>> },
    /// What is done for one of the files.
    State { name: String, file: usize, state: State },
    /// A download came to its end.
    Ended { name: String, ending: Ending },
    /// A model was removed, and so many bytes are free again; or it was not, and why.
    Removed { name: String, result: Result<u64, String> },
}

/// How a download ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All is on this machine.
    Complete,
    /// It was stopped, and what has arrived is kept.
    Stopped,
    /// Something was not fetched, and why.
    Failed(String),
}

/// A download as the window knows it.
#[derive(Debug)]
pub struct Fetch {
    /// What it is at.
    pub phase: Phase,
    /// How far it is.
    pub progress: Progress,
    /// The model that was open when it was asked for.
    pub(crate) beside: ModelPaths,
    pub(super) stop: Arc<AtomicBool>,
}

/// What a download is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Files are coming.
    Running,
    /// It was told to stop.
    Stopping,
    /// It has stopped, and can be continued.
    Paused,
    /// It has failed, and why.
    Failed(String),
}

impl Fetch {
    pub(super) fn new(beside: ModelPaths) -> Self {
        Self { phase: Phase::Running, progress: Progress::default(), beside, stop: Arc::default() }
    }

    /// Whether a thread works on it.
    pub fn is_at_work(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping)
    }

    /// Ends it; what has arrived is kept.
    pub(super) fn stop(&mut self) {
        if self.is_at_work() {
            self.stop.store(true, Ordering::Relaxed);
            self.phase = Phase::Stopping;
        }
    }
}

/// Sends events and wakes the window.
#[derive(Clone, Debug)]
pub(super) struct Tell {
    pub(super) outbox: Sender<Event>,
    pub(super) ctx: egui::Context,
}

impl Tell {
    pub(super) fn tell(&self, event: Event) {
        // A closed window hears nothing.
        let _ = self.outbox.send(event);
        self.ctx.request_repaint();
    }
}

/// Fetches what is missing of a model.
pub(super) fn run(library: &Library, name: &str, stop: &AtomicBool, tell: &Tell) {
    let work = AssertUnwindSafe(|| fetch(library, name, stop, tell));
    let ending = catch_unwind(work).unwrap_or_else(|panic| {
        let reason = text::panic_message(&*panic);
        Ending::Failed(format!("The download broke off ({reason}). Please report it."))
    });
    tell.tell(Event::Stocked(library.statuses()));
    tell.tell(Event::Ended { name: name.into(), ending });
}

fn fetch(library: &Library, name: &str, stop: &AtomicBool, tell: &Tell) -> Ending {
    let Library { catalogue, downloader } = library;
    let Some(entry) = catalogue.get(name) else { return Ending::Stopped };
    let missing = downloader.missing(catalogue, entry);
    let files: Vec<&File> = missing.into_iter().map(|(_, file)| file).collect();
    let sizes = files.iter().map(|file| file.size()).collect();
    tell.tell(Event::Begun { name: name.into(), sizes });
    let told: Vec<Told> = files.iter().map(|_| Told::default()).collect();
    let watch = |file: usize, state: State| {
        if told[file].is_due(&state, Instant::now()) {
            tell.tell(Event::State { name: name.into(), file, state });
        }
    };
    ending(downloader.complete_all(&files, &watch, stop))
}

/// A failure counts more than that the others were stopped.
fn ending(results: Vec<Result<Fetched, DownloadError>>) -> Ending {
    let errors: Vec<DownloadError> = results.into_iter().filter_map(Result::err).collect();
    let failed = errors.iter().find(|error| !matches!(error, DownloadError::Stopped));
    match failed {
        Some(error) => Ending::Failed(face::full_sentence(error)),
        None if errors.is_empty() => Ending::Complete,
        None => Ending::Stopped,
    }
}

/// When bytes of a file were last told: a fast server sends them thousands of times a second.
#[derive(Debug, Default)]
struct Told(Mutex<Option<Instant>>);

impl Told {
    /// Whether a state is to be told: bytes after a while, the last ones and everything else at once.
    fn is_due(&self, state: &State, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = match state {
            State::Asking | State::Locked | State::Waiting { .. } => {
                *last = None;
                return true;
            }
            State::Checking { .. } => false,
            State::Receiving { done, total } => *total == Some(*done),
        };
        let is_due = is_last || last.is_none_or(|at| now - at >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

/// Removes a model's own files, and what downloads of them have left.
pub(super) fn remove(library: &Library, name: &str, tell: &Tell) {
    let mut result = Ok(0);
    if let Some(entry) = library.catalogue.get(name) {
        for file in &entry.files {
            let removed = library.downloader.remove(file);
            let removed = removed.map_err(|error| face::full_sentence(&error));
            result = result.and_then(|sum| removed.map(|bytes| sum + bytes));
        }
    }
    tell.tell(Event::Stocked(library.statuses()));
    tell.tell(Event::Removed { name: name.into(), result });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_now_and_then_and_the_last_ones_always() {
        let (told, start) = (Told::default(), Instant::now());
        let receiving = |done| State::Receiving { done, total: Some(9) };
        assert!(told.is_due(&State::Asking, start));
        assert!(told.is_due(&receiving(1), start));
        assert!(!told.is_due(&receiving(2), start), "too soon");
        assert!(told.is_due(&receiving(3), start + INTERVAL));
        assert!(told.is_due(&receiving(9), start + INTERVAL), "the last ones");
        let waiting = State::Waiting { seconds: 1, problem: "x".into() };
        assert!(told.is_due(&waiting, start + INTERVAL));
        assert!(told.is_due(&receiving(4), start + INTERVAL), "what comes after a wait is news");
    }

    #[test]
    fn a_failure_counts_more_than_a_stop() {
        let stopped = || Err(DownloadError::Stopped);
        let page = || Err(DownloadError::Page { address: "https://example.org/x".into() });
        assert_eq!(ending(vec![]), Ending::Complete);
        assert_eq!(ending(vec![stopped()]), Ending::Stopped);
        let Ending::Failed(sentence) = ending(vec![stopped(), page()]) else { panic!("it failed") };
        assert!(sentence.contains("example.org"), "{sentence}");
    }
}
