//! How long the window takes from one frame to the next while pictures develop.

use std::fmt;
use std::time::{Duration, Instant};

/// Times between frames.
#[derive(Debug, Default)]
pub struct FrameTimes {
    last: Option<Instant>,
    times: Vec<Duration>,
}

impl FrameTimes {
    /// A frame begins; it counts if the one before it was `developing`, too.
    pub fn frame(&mut self, developing: bool) {
        let now = Instant::now();
        if let Some(last) = std::mem::replace(&mut self.last, developing.then_some(now)) {
            self.times.push(now - last);
        }
    }

    /// The time that a share of the frames stays below, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort();
        let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for FrameTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, worst] = [0.5, 0.99, 1.0].map(|share| self.quantile(share));
        let count = self.times.len();
        write!(
            f,
            "{count} frames: median {half:.1} ms, 99th percentile {most:.1} ms, longest {worst:.1} ms"
        )
    }
}
