//! How far a download is: bytes, rate and time left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tintype::generate::bytes;
use tintype_download::State;

use crate::text;

/// The rate is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(5);
/// A shorter time tells no rate.
const SHORTEST: Duration = Duration::from_millis(500);

/// How far the files of a model are.
#[derive(Debug, Default)]
pub struct Progress {
    files: Vec<FileProgress>,
    meter: Meter,
}

#[derive(Debug, Default)]
struct FileProgress {
    done: u64,
    total: Option<u64>,
    doing: Doing,
}

/// What is done for a file.
#[derive(Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    Asking,
    /// Another program downloads it.
    Elsewhere,
    Checking,
    Receiving,
    Waiting {
        until: Instant,
        problem: String,
    },
}

impl Progress {
    /// Of files with these sizes, where they are known.
    pub fn of(sizes: &[Option<u64>]) -> Self {
        let file = |total: &Option<u64>| FileProgress { total: *total, ..FileProgress::default() };
        Self { files: sizes.iter().map(file).collect(), meter: Meter::default() }
    }

    /// Notes what is done for a file.
    pub fn note(&mut self, file: usize, state: State, now: Instant) {
        let Some(file) = self.files.get_mut(file) else { return };
        file.doing = match state {
            State::Asking => Doing::Asking,
            State::Locked => Doing::Elsewhere,
            State::Checking { done } => {
                file.done = done;
                Doing::Checking
            }
            State::Receiving { done, total } => {
                // What an earlier download has left did not arrive now.
                let goes_on = matches!(file.doing, Doing::Receiving);
                let arrived = if goes_on { done.saturating_sub(file.done) } else { 0 };
                self.meter.arrived(arrived, now);
                (file.done, file.total) = (done, total.or(file.total));
                Doing::Receiving
            }
            State::Waiting { seconds, problem } => {
                Doing::Waiting { until: now + Duration::from_secs(seconds), problem }
            }
        };
    }

    /// Bytes that are here.
    pub fn done(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.done))
    }

    /// Bytes of all files, where they are known.
    pub fn total(&self) -> Option<u64> {
        self.files.iter().try_fold(0, |sum: u64, file| Some(sum.saturating_add(file.total?)))
    }

    /// How much of all is here, 0 to 1.
    pub fn share(&self) -> Option<f32> {
        let total = self.total().filter(|total| *total > 0)?;
        Some((self.done() as f64 / total as f64).min(1.0) as f32)
    }

    /// Bytes a second.
    pub fn rate(&self, now: Instant) -> Option<f64> {
        self.meter.rate(now)
    }

    /// Seconds until all is here, if it goes on like this.
    pub fn left(&self, now: Instant) -> Option<f64> {
        let rate = self.rate(now).filter(|rate| *rate >= 1.0)?;
        Some(self.total()?.saturating_sub(self.done()) as f64 / rate)
    }

    /// Bytes here and in all: "1.2 GiB of 2.7 GiB".
    pub fn amount(&self) -> String {
        match self.total() {
            Some(total) => format!("{} of {}", bytes(self.done()), bytes(total)),
            None => bytes(self.done()),
        }
    }

    /// All in a line: "1.2 GiB of 2.7 GiB · 25.3 MiB/s · 58 s left".
    pub fn words(&self, now: Instant) -> String {
        let is_any = |is: fn(&Doing) -> bool| self.files.iter().any(|file| is(&file.doing));
        let mut parts = vec![self.amount()];
        if is_any(|doing| matches!(doing, Doing::Receiving)) {
            parts.extend(self.rate(now).map(|rate| format!("{}/s", bytes(rate as u64))));
            parts.extend(self.left(now).map(|left| format!("{} left", text::duration(left))));
        } else if is_any(|doing| matches!(doing, Doing::Checking)) {
            parts.push("checking what is here".into());
        } else if is_any(|doing| matches!(doing, Doing::Elsewhere)) {
            parts.push("another program downloads it".into());
        } else if is_any(|doing| matches!(doing, Doing::Asking)) {
            parts.push("asking".into());
        }
        let waiting = self.files.iter().find_map(|file| match &file.doing {
            Doing::Waiting { until, problem } => Some((until, problem)),
            _ => None,
        });
        if let Some((until, problem)) = waiting {
            let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
            parts.push(format!("{problem}, again in {seconds} s"));
        }
        parts.join(" · ")
    }
}

/// Bytes that arrived, over time.
#[derive(Debug, Default)]
struct Meter {
    /// When, and how many had arrived by then.
    arrivals: VecDeque<(Instant, u64)>,
    sum: u64,
}

impl Meter {
    fn arrived(&mut self, bytes: u64, now: Instant) {
        self.sum = self.sum.saturating_add(bytes);
        self.arrivals.push_back((now, self.sum));
        // One that is older than the window begins it.
        while self.arrivals.get(1).is_some_and(|(at, _)| is_old(*at, now)) {
            self.arrivals.pop_front();
        }
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        let begins_window = self.arrivals.iter().rev().find(|(at, _)| is_old(*at, now));
        let (from, before) = begins_window.or(self.arrivals.front())?;
        let time = now.saturating_duration_since(*from);
        (time >= SHORTEST).then(|| (self.sum - before) as f64 / time.as_secs_f64())
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn receiving(done: u64) -> State {
        State::Receiving { done: done * MIB, total: Some(100 * MIB) }
    }

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut progress = Progress::of(&[None]);
        progress.note(0, receiving(10), start);
        assert_eq!(progress.rate(after(start, 0.2)), None, "too early");
        progress.note(0, receiving(12), after(start, 1.0));
        assert_eq!(progress.rate(after(start, 1.0)), Some(2.0 * MIB as f64));
        assert_eq!(progress.left(after(start, 1.0)), Some(44.0));
        assert_eq!(
            progress.words(after(start, 1.0)),
            "12.0 MiB of 100.0 MiB · 2.0 MiB/s · 44 s left"
        );
        for second in 2..=20u64 {
            progress.note(0, receiving(12 + 4 * (second - 1)), after(start, second as f64));
        }
        let rate = progress.rate(after(start, 20.0));
        assert_eq!(rate, Some(4.0 * MIB as f64), "the slow beginning is forgotten");
        assert_eq!(progress.rate(after(start, 60.0)), Some(0.0), "nothing arrives any more");
        assert_eq!(progress.left(after(start, 60.0)), None);
    }

    #[test]
    fn what_was_here_before_is_no_arrival() {
        let start = Instant::now();
        let mut progress = Progress::of(&[Some(100 * MIB)]);
        progress.note(0, State::Asking, start);
        assert_eq!(progress.words(start), "0.0 KiB of 100.0 MiB · asking");
        progress.note(0, State::Checking { done: 30 * MIB }, start);
        assert_eq!(progress.words(start), "30.0 MiB of 100.0 MiB · checking what is here");
        progress.note(0, receiving(80), start);
        progress.note(0, receiving(81), after(start, 1.0));
        assert_eq!(progress.rate(after(start, 1.0)), Some(MIB as f64));
        assert_eq!(progress.share(), Some(0.81));
    }

    #[test]
    fn a_wait_counts_down() {
        let start = Instant::now();
        let mut progress = Progress::of(&[None, Some(MIB)]);
        let problem = "too many requests (429)".to_string();
        progress.note(0, State::Waiting { seconds: 56, problem }, start);
        let words = progress.words(after(start, 1.0));
        assert_eq!(words, "0.0 KiB · too many requests (429), again in 55 s");
        assert_eq!((progress.total(), progress.share()), (None, None), "one size is unknown");
    }
}
