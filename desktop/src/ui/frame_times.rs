//! How long the window takes from one frame to the next.

use std::fmt;
use std::time::{Duration, Instant};

/// Times between frames.
#[derive(Debug, Default)]
pub struct FrameTimes {
    last: Option<Instant>,
    times: Vec<Duration>,
}

/// Frames before this are spent on fonts and shaders.
const WARM_UP: usize = 30;

impl FrameTimes {
    /// A frame begins.
    pub fn frame(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.times.push(now - last);
        }
    }

    /// The time that a share of the frames stays below, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut times: Vec<_> = self.times.iter().skip(WARM_UP).collect();
        times.sort();
        let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for FrameTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, worst] = [0.5, 0.99, 1.0].map(|share| self.quantile(share));
        let count = self.times.len().saturating_sub(WARM_UP);
        write!(
            f,
            "{count} frames: median {half:.1} ms, 99th percentile {most:.1} ms, longest {worst:.1} ms"
        )
    }
}
