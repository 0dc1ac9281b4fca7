//! The samplers by name.

use serde::{Deserialize, Serialize};

use super::setting::{InvalidSetting, Problem, Setting};

/// A way from noise to an image. One name may be of two solvers: [`Self::DpmPp2m`] is DPM-Solver++(2M) of flows
/// and of denoisers, each in its own variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
#[allow(missing_docs)] // the names are the field's own, see `crate::sampler`
pub enum Sampler {
    Euler,
    Heun,
    EulerMaruyama,
    Dopri5,
    EulerAncestral,
    Dpm2,
    Dpm2Ancestral,
    Lms,
    DpmFast,
    DpmAdaptive,
    DpmPp2sAncestral,
    DpmPpSde,
    DpmPp2m,
    DpmPp2mSde,
    DpmPp3mSde,
    MeanFlow,
    DpmPp3m,
    DpmPp2s,
    UniPc,
}

impl From<Sampler> for &'static str {
    fn from(sampler: Sampler) -> Self {
        sampler.name()
    }
}

impl TryFrom<String> for Sampler {
    type Error = InvalidSetting;

    fn try_from(name: String) -> Result<Self, InvalidSetting> {
        Self::from_name(&name)
    }
}

impl Sampler {
    /// Those of flow models with one stream (SiT, LightningDiT, DiT-DH).
    pub const FLOW: [Self; 8] = [
        Self::Euler,
        Self::Heun,
        Self::EulerMaruyama,
        Self::Dopri5,
        Self::DpmPp2m,
        Self::DpmPp3m,
        Self::DpmPp2s,
        Self::UniPc,
    ];
    /// Those of flows whose noise need not have a standard deviation of 1 (JiT), for which the score that
    /// [`Self::EulerMaruyama`] makes of a velocity would be another one.
    pub const FLOW_ODE: [Self; 7] = [
        Self::Euler,
        Self::Heun,
        Self::Dopri5,
        Self::DpmPp2m,
        Self::DpmPp3m,
        Self::DpmPp2s,
        Self::UniPc,
    ];
    /// Those of Hi-DiT.
    pub const HYBRID: [Self; 7] = [
        Self::Euler,
        Self::Heun,
        Self::EulerMaruyama,
        Self::DpmPp2m,
        Self::DpmPp3m,
        Self::DpmPp2s,
        Self::UniPc,
    ];
    /// Those of denoisers (HDiT).
    pub const KARRAS: [Self; 13] = [
        Self::Euler,
        Self::Heun,
        Self::EulerAncestral,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Lms,
        Self::DpmFast,
        Self::DpmAdaptive,
        Self::DpmPp2sAncestral,
        Self::DpmPpSde,
        Self::DpmPp2m,
        Self::DpmPp2mSde,
        Self::DpmPp3mSde,
    ];
    /// That of networks of average velocities (iMF, pMF).
    pub const MEAN_FLOW: [Self; 1] = [Self::MeanFlow];

    /// The name in requests, on the command line and in PNGs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::Heun => "heun",
            Self::EulerMaruyama => "euler-maruyama",
            Self::Dopri5 => "dopri5",
            Self::EulerAncestral => "euler-ancestral",
            Self::Dpm2 => "dpm-2",
            Self::Dpm2Ancestral => "dpm-2-ancestral",
            Self::Lms => "lms",
            Self::DpmFast => "dpm-fast",
            Self::DpmAdaptive => "dpm-adaptive",
            Self::DpmPp2sAncestral => "dpmpp-2s-ancestral",
            Self::DpmPpSde => "dpmpp-sde",
            Self::DpmPp2m => "dpmpp-2m",
            Self::DpmPp2mSde => "dpmpp-2m-sde",
            Self::DpmPp3mSde => "dpmpp-3m-sde",
            Self::MeanFlow => "mean-flow",
            Self::DpmPp3m => "dpmpp-3m",
            Self::DpmPp2s => "dpmpp-2s",
            Self::UniPc => "unipc",
        }
    }

    /// Every sampler, those of flow models first.
    pub fn all() -> Vec<Self> {
        let karras = Self::KARRAS.into_iter().filter(|s| !Self::FLOW.contains(s));
        Self::FLOW.into_iter().chain(karras).chain(Self::MEAN_FLOW).collect()
    }

    /// The sampler of a name.
    ///
    /// # Errors
    ///
    /// [`Problem::Unknown`] of [`Setting::Sampler`], which lists all.
    pub fn from_name(name: &str) -> Result<Self, InvalidSetting> {
        let all = Self::all();
        all.iter().copied().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let known = all.iter().map(|s| s.name()).collect();
            Setting::Sampler.invalid(Problem::Unknown { given: name.into(), known })
        })
    }

    /// Whether it chooses its steps itself, by its error. Images are then made one at a time, as each needs
    /// steps of its own.
    pub const fn is_adaptive(self) -> bool {
        matches!(self, Self::Dopri5 | Self::DpmAdaptive)
    }

    /// Whether a flow's steps lie where the settings put them. [`Self::EulerMaruyama`] has times of its own, and
    /// [`Self::Dopri5`] chooses them.
    pub const fn takes_times(self) -> bool {
        !matches!(self, Self::EulerMaruyama | Self::Dopri5)
    }

    /// Whether it draws noise on the way, as it does by default.
    pub const fn is_stochastic(self) -> bool {
        matches!(
            self,
            Self::EulerMaruyama
                | Self::EulerAncestral
                | Self::Dpm2Ancestral
                | Self::DpmPp2sAncestral
                | Self::DpmPpSde
                | Self::DpmPp2mSde
                | Self::DpmPp3mSde
        )
    }

    /// Evaluations of the network that a step takes, but for the first or the last one of some samplers; `None` where
    /// it chooses its steps.
    pub const fn evaluations(self) -> Option<usize> {
        match self {
            Self::Heun
            | Self::Dpm2
            | Self::Dpm2Ancestral
            | Self::DpmPp2sAncestral
            | Self::DpmPpSde
            | Self::DpmPp2s => Some(2),
            _ if self.is_adaptive() => None,
            _ => Some(1),
        }
    }

    /// Whether one of [`KarrasOptions`](super::KarrasOptions) acts on it, as a sampler of denoisers.
    pub(super) const fn takes(self, option: Setting) -> bool {
        let churned = matches!(self, Self::Euler | Self::Heun | Self::Dpm2);
        let spaced = !matches!(self, Self::DpmFast | Self::DpmAdaptive);
        let noised = self.is_stochastic() || !spaced;
        match option {
            Setting::Eta => noised,
            Setting::NoiseScale => noised || churned,
            Setting::Churn | Setting::ChurnMin | Setting::ChurnMax => churned,
            Setting::Rho => spaced,
            _ => true,
        }
    }

    /// The fewest steps that it takes.
    pub const fn least_steps(self) -> usize {
        match self {
            Self::EulerMaruyama => 2,
            Self::DpmFast => 3,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let all = Sampler::all();
        assert_eq!(all.len(), 19);
        for sampler in all {
            assert_eq!(Sampler::from_name(sampler.name()), Ok(sampler));
            let json = serde_json::to_string(&sampler).expect("a name");
            assert_eq!(json, format!("{:?}", sampler.name()));
            assert_eq!(serde_json::from_str::<Sampler>(&json).expect("a name"), sampler);
        }
        let error = Sampler::from_name("magic").unwrap_err().to_string();
        assert!(error.starts_with("sampler \"magic\" is unknown; use euler, heun"), "{error}");
    }
}
