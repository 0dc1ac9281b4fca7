//! Trouble that does not end a run: told the first time, then seldom.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Error;
use indicatif::ProgressBar;
use tintype::labels::printable;

/// The shortest time between two warnings of one kind.
const PAUSE: Duration = Duration::from_secs(600);

/// Prints warnings above a progress bar.
#[derive(Debug)]
pub struct Warnings {
    bar: ProgressBar,
    kinds: BTreeMap<&'static str, Told>,
}

impl Warnings {
    /// Warnings above this bar.
    pub fn new(bar: ProgressBar) -> Self {
        Self { bar, kinds: BTreeMap::new() }
    }

    /// Tells a sentence at any time.
    pub fn say(&self, sentence: &str) {
        // Standard error may be a file on the full disk; `eprintln` would panic.
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "warning: {}", printable(sentence));
        });
    }

    /// Tells an error, unless one of its kind was told in the last ten minutes; then it is counted.
    pub fn tell(&mut self, kind: &'static str, error: &Error) {
        let Some(silent) = self.kinds.entry(kind).or_default().now(Instant::now()) else { return };
        let count = match silent {
            0 => String::new(),
            n => format!(" ({n} more since the last warning)"),
        };
        self.say(&format!("{error:#}; the training goes on{count}"));
    }
}

/// When a kind of warning was told.
#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    silent: u64,
}

impl Told {
    /// How many were not told since the last one, if this one is to be told.
    fn now(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            self.silent += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let name = "train::warnings::tests::what_a_terminal_obeys_is_escaped";
        if let Some(said) = alone::said(name, &[]) {
            let told = "warning: a\\u{1b}[8m cannot be deleted; the training goes on\n";
            assert!(said.contains(told), "{said}");
            return;
        }
        let error = anyhow::anyhow!("a\u{1b}[8m cannot be deleted");
        Warnings::new(ProgressBar::hidden()).tell("prune", &error);
    }

    #[test]
    fn warnings_repeat_every_ten_minutes_with_a_count() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut told = Told::default();
        assert_eq!(told.now(at(0)), Some(0));
        assert_eq!(told.now(at(1)), None);
        assert_eq!(told.now(at(599)), None);
        assert_eq!(told.now(at(600)), Some(2));
        assert_eq!(told.now(at(601)), None);
        assert_eq!(told.now(at(5000)), Some(1));
    }
}
