//! Time that can be trusted: warm-up, several rounds long enough for the clock, medians.

use std::time::Instant;

use tintype::burn::tensor::Device;

/// How times are taken.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Calls before the first round: kernels are compiled and tuned on them.
    pub warm_up: usize,
    /// Rounds, of which the median counts.
    pub rounds: usize,
}

/// Seconds of one call.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Of the median round.
    pub median: f64,
    /// Of the fastest round.
    pub fastest: f64,
    /// Of the slowest round.
    pub slowest: f64,
    /// Of the very first call, with whatever it compiled.
    pub first: f64,
}

/// A round takes at least this long, by as many calls as that needs.
const ROUND: f64 = 0.05;

impl Clock {
    /// Times `call`, which queues its work on `device`.
    pub fn time(&self, device: &Device, mut call: impl FnMut()) -> Timing {
        let mut seconds = |calls: usize| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            // A device that cannot say that it is done fails on the next use as well.
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
