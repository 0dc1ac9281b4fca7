//! Where the steps of a flow lie.

use serde::{Deserialize, Serialize};

use super::setting::{InvalidSetting, Problem, Setting};

/// A grid of times from noise (1) to data (0). A time shift moves the times of any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeGrid {
    /// Even in t.
    #[default]
    Uniform,
    /// Quantiles of the logit-normal distribution of mean 0 and deviation 1: wide steps at both ends.
    LogitNormal,
    /// Karras et al.'s noise levels σ/α, with [`KarrasOptions`](super::KarrasOptions): short steps at both ends.
    Karras,
}

impl TimeGrid {
    /// Every grid.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::LogitNormal, Self::Karras];

    /// The name in requests, on the command line and in PNGs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::LogitNormal => "logit-normal",
            Self::Karras => "karras",
        }
    }

    /// The grid of a name.
    ///
    /// # Errors
    ///
    /// [`Problem::Unknown`] of [`Setting::Times`], which lists all.
    pub fn from_name(name: &str) -> Result<Self, InvalidSetting> {
        Self::ALL.into_iter().find(|grid| grid.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).to_vec();
            Setting::Times.invalid(Problem::Unknown { given: name.into(), known })
        })
    }

    /// Whether it is the default, which requests leave out.
    pub(super) fn is_uniform(&self) -> bool {
        *self == Self::Uniform
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for grid in TimeGrid::ALL {
            assert_eq!(TimeGrid::from_name(grid.name()), Ok(grid));
            let json = serde_json::to_string(&grid).expect("a name");
            assert_eq!(json, format!("{:?}", grid.name()));
        }
        let error = TimeGrid::from_name("even").unwrap_err().to_string();
        assert_eq!(error, "times \"even\" is unknown; use uniform, logit-normal, karras");
    }
}
