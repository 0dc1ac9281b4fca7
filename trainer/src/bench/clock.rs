//! Timing with warm-up; median of several rounds.

use std::time::Instant;

use tintype::burn::tensor::Device;

/// Timing parameters.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Warm-up calls, in which kernels are compiled and autotuned.
    pub warm_up: usize,
    /// Timed rounds; the median is reported.
    pub rounds: usize,
}

/// Seconds per call.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Of the median round.
    pub median: f64,
    /// Of the fastest round.
    pub fastest: f64,
    /// Of the slowest round.
    pub slowest: f64,
    /// Of the first call, including compilation.
    pub first: f64,
}

/// Minimum duration of a round in seconds; it repeats the call as often as needed.
const ROUND: f64 = 0.05;

impl Clock {
    /// Times `call`, which queues its work on `device`.
    pub fn time(&self, device: &Device, mut call: impl FnMut()) -> Timing {
        let mut seconds = |calls: usize| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            // A device that fails to synchronize also fails on its next use.
            device.sync().ok();
            start.elapsed().as_secs_f64() / calls as f64
        };
        let first = seconds(1);
        let mut once = first;
        for _ in 1..self.warm_up.max(1) {
            once = seconds(1);
        }
        let calls = (ROUND / once.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
        let mut rounds: Vec<f64> = (0..self.rounds.max(1)).map(|_| seconds(calls)).collect();
        rounds.sort_by(f64::total_cmp);
        Timing {
            median: rounds[rounds.len() / 2],
            fastest: rounds[0],
            slowest: rounds[rounds.len() - 1],
            first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_calls() {
        let clock = Clock { warm_up: 2, rounds: 3 };
        let mut calls = 0;
        let timing = clock.time(&Device::flex(), || {
            calls += 1;
            std::thread::sleep(std::time::Duration::from_millis(10));
        });
        assert!(timing.fastest >= 0.01 && timing.fastest <= timing.median);
        assert!(timing.median <= timing.slowest);
        assert!(calls >= 2 + 3, "{calls}");
    }
}
