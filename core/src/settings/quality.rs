//! Steps and solver together, by what a picture is for.

use super::{Sampler, Settings};
use crate::model::Architecture;

/// How much time a picture is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// To see what comes: 8 steps of DPM-Solver++(2M).
    Draft,
    /// To look at: 16 steps of it.
    Good,
    /// As the authors of the network sample.
    Best,
}

impl Quality {
    /// Every quality, the fastest first.
    pub const ALL: [Self; 3] = [Self::Draft, Self::Good, Self::Best];

    /// The solver of few steps: of the second order, as higher ones overshoot under strong guidance
    /// (arXiv 2211.01095).
    const SOLVER: Sampler = Sampler::DpmPp2m;

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

    /// Settings with these steps and their solver. Those of a network that the solver does not fit stay.
    pub fn apply(self, settings: Settings, architecture: &Architecture) -> Settings {
        match self.steps() {
            Some(steps) if architecture.samplers().contains(&Self::SOLVER) => {
                Settings { sampler: Self::SOLVER, steps, ..settings }
            }
            _ => settings,
        }
    }
}
