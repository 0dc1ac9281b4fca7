//! Steps and solver together, by what a picture is for.

use super::{Sampler, Settings};
use crate::model::Architecture;

/// How much time a picture is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// To see what comes: 8 steps of a solver of few steps.
    Draft,
    /// To look at: 16 steps of it.
    Good,
    /// As the authors of the network sample.
    Best,
}

impl Quality {
    /// Every quality, the fastest first.
    pub const ALL: [Self; 3] = [Self::Draft, Self::Good, Self::Best];

    /// The solvers of few steps, the closest to the solution first (docs/performance.md): UniPC of flows,
    /// DPM-Solver++(2M) of denoisers.
    const SOLVERS: [Sampler; 2] = [Sampler::UniPc, Sampler::DpmPp2m];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Good => "good",
            Self::Best => "best",
        }
    }

    /// The steps; `None` for the authors' own.
    pub const fn steps(self) -> Option<usize> {
        match self {
            Self::Draft => Some(8),
            Self::Good => Some(16),
            Self::Best => None,
        }
    }

    /// Settings with these steps and their solver. Those of a network that no such solver fits stay.
    pub fn apply(self, settings: Settings, architecture: &Architecture) -> Settings {
        let fitting = architecture.samplers();
        let solver = Self::SOLVERS.into_iter().find(|solver| fitting.contains(solver));
        match (self.steps(), solver) {
            (Some(steps), Some(sampler)) => Settings { sampler, steps, ..settings },
            _ => settings,
        }
    }
}
