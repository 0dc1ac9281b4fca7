//! The options of k-diffusion's samplers.

use serde::{Deserialize, Serialize};

use super::sampler::Sampler;
use super::setting::{InvalidSetting, Problem, Setting};
use super::time_grid::TimeGrid;
use crate::model::Process;
use crate::sampler::karras::{Churn, Stochastic};

/// Options of denoisers' samplers (HDiT), under the names of k-diffusion; what is absent is its default. Levels
/// and ρ are also those of a flow's [`TimeGrid::Karras`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KarrasOptions {
    /// Share of the SDE's noise in ancestral and SDE samplers: 0 is deterministic, 1 the full SDE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Factor on added noise, 0 or more; 1 leaves it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s_noise: Option<f64>,
    /// Churn of Euler, Heun and DPM-2, 0 (none) or more, shared out over the steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s_churn: Option<f64>,
    /// Lowest noise level σ with churn, 0 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s_tmin: Option<f64>,
    /// Highest noise level σ with churn, 0 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s_tmax: Option<f64>,
    /// ρ of the noise levels, 0.1 to 100: the larger, the more of them are low. 7 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// Lowest noise level σ above 0, 0.0001 or more; the network's, or 0.002 of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Highest noise level σ, above the lowest; the network's, or 80 of a flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
}

impl KarrasOptions {
    /// All defaults.
    pub const NONE: Self = Self {
        eta: None,
        s_noise: None,
        s_churn: None,
        s_tmin: None,
        s_tmax: None,
        rho: None,
        sigma_min: None,
        sigma_max: None,
    };

    /// Whether all are defaults, which requests leave out.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// These options, and `others` where they are absent.
    pub fn or(self, others: Self) -> Self {
        Self {
            eta: self.eta.or(others.eta),
            s_noise: self.s_noise.or(others.s_noise),
            s_churn: self.s_churn.or(others.s_churn),
            s_tmin: self.s_tmin.or(others.s_tmin),
            s_tmax: self.s_tmax.or(others.s_tmax),
            rho: self.rho.or(others.rho),
            sigma_min: self.sigma_min.or(others.sigma_min),
            sigma_max: self.sigma_max.or(others.sigma_max),
        }
    }

    /// Churn of Euler, Heun and DPM-2.
    pub(crate) fn churn(&self) -> Churn {
        let default = Churn::default();
        Churn {
            s_churn: self.s_churn.unwrap_or(default.s_churn),
            s_tmin: self.s_tmin.unwrap_or(default.s_tmin),
            s_tmax: self.s_tmax.unwrap_or(default.s_tmax),
            s_noise: self.s_noise.unwrap_or(default.s_noise),
        }
    }

    /// Noise of ancestral and SDE samplers, whose own η is `eta`.
    pub(crate) fn stochastic(&self, eta: f64) -> Stochastic {
        Stochastic { eta: self.eta.unwrap_or(eta), s_noise: self.s_noise.unwrap_or(1.0) }
    }

    /// ρ of the noise levels.
    pub(crate) fn rho(&self) -> f64 {
        self.rho.unwrap_or(7.0)
    }

    /// Lowest and highest noise level: of a flow Karras et al.'s, in σ/α.
    pub(crate) fn levels(&self, process: Process) -> [f64; 2] {
        let [min, max] = match process {
            Process::Denoiser { sigma_min, sigma_max } => [sigma_min, sigma_max],
            _ => [0.002, 80.0],
        };
        [self.sigma_min.unwrap_or(min), self.sigma_max.unwrap_or(max)]
    }

    /// Checks ranges, and that the sampler of this process uses what is set.
    pub(crate) fn validate(
        &self,
        process: Process,
        network: &'static str,
        sampler: Sampler,
        times: TimeGrid,
    ) -> Result<(), InvalidSetting> {
        let denoises = matches!(process, Process::Denoiser { .. });
        let spaced = times == TimeGrid::Karras;
        for (setting, value) in self.given() {
            setting.check(value)?;
            let spacing = matches!(setting, Setting::Rho | Setting::SigmaMin | Setting::SigmaMax);
            if !(denoises || spaced && spacing) {
                return Err(setting.invalid(match spacing {
                    true => Problem::NotOfTimes { times: times.name() },
                    false => Problem::NotOf { network },
                }));
            }
            if denoises && !sampler.takes(setting) {
                return Err(setting.invalid(Problem::NotOfSampler { sampler: sampler.name() }));
            }
        }
        let [low, high] = self.levels(process);
        if (self.sigma_min.is_some() || self.sigma_max.is_some()) && low >= high {
            let setting =
                if self.sigma_min.is_some() { Setting::SigmaMin } else { Setting::SigmaMax };
            return Err(setting.invalid(Problem::NotAnInterval { low, high }));
        }
        Ok(())
    }

    /// The options that are set, with their values.
    pub fn given(&self) -> impl Iterator<Item = (Setting, f64)> {
        let all = [
            (Setting::Eta, self.eta),
            (Setting::NoiseScale, self.s_noise),
            (Setting::Churn, self.s_churn),
            (Setting::ChurnMin, self.s_tmin),
            (Setting::ChurnMax, self.s_tmax),
            (Setting::Rho, self.rho),
            (Setting::SigmaMin, self.sigma_min),
            (Setting::SigmaMax, self.sigma_max),
        ];
        all.into_iter().filter_map(|(setting, value)| Some((setting, value?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Clock;

    const DENOISER: Process = Process::Denoiser { sigma_min: 0.01, sigma_max: 80.0 };

    fn refused(
        options: KarrasOptions,
        process: Process,
        sampler: Sampler,
        times: TimeGrid,
    ) -> Option<String> {
        let result = options.validate(process, "Net", sampler, times);
        result.err().map(|error| error.to_string())
    }

    #[test]
    fn options_that_nothing_uses_are_refused() {
        let on = |options, sampler| refused(options, DENOISER, sampler, TimeGrid::Uniform);
        let eta = KarrasOptions { eta: Some(0.5), ..KarrasOptions::NONE };
        assert_eq!(on(eta, Sampler::DpmPp3mSde), None);
        assert_eq!(on(eta, Sampler::Heun).as_deref(), Some("η does not apply to heun"));
        let churn = KarrasOptions { s_churn: Some(10.0), ..KarrasOptions::NONE };
        assert_eq!(on(churn, Sampler::Heun), None);
        assert!(on(churn, Sampler::DpmPp2m).is_some());
        let rho = KarrasOptions { rho: Some(3.0), ..KarrasOptions::NONE };
        assert_eq!(on(rho, Sampler::DpmPp2m), None);
        assert!(on(rho, Sampler::DpmAdaptive).is_some());
        let flow = Process::Flow(Clock::NoiseAtOne);
        assert_eq!(refused(rho, flow, Sampler::Euler, TimeGrid::Karras), None);
        let uniform = refused(rho, flow, Sampler::Euler, TimeGrid::Uniform);
        assert_eq!(uniform.as_deref(), Some("ρ does not apply to uniform times"));
        let network = refused(eta, flow, Sampler::Euler, TimeGrid::Karras);
        assert_eq!(network.as_deref(), Some("η does not apply to Net"));
    }

    #[test]
    fn levels_are_in_order() {
        let levels = |sigma_min, sigma_max| {
            let options = KarrasOptions { sigma_min, sigma_max, ..KarrasOptions::NONE };
            refused(options, DENOISER, Sampler::Euler, TimeGrid::Uniform)
        };
        assert_eq!(levels(Some(0.1), Some(10.0)), None);
        assert_eq!(levels(Some(90.0), None).as_deref(), Some("σ_min 90 80 is not an interval"));
        assert_eq!(
            levels(None, Some(0.005)).as_deref(),
            Some("σ_max 0.01 0.005 is not an interval")
        );
        assert!(levels(Some(0.0), None).is_some());
    }

    #[test]
    fn defaults_are_left_out() {
        assert_eq!(serde_json::to_string(&KarrasOptions::NONE).expect("JSON"), "{}");
        assert_eq!(
            serde_json::from_str::<KarrasOptions>("{}").expect("options"),
            KarrasOptions::NONE
        );
        let some = KarrasOptions { rho: Some(3.0), ..KarrasOptions::NONE };
        assert_eq!(serde_json::to_string(&some).expect("JSON"), "{\"rho\":3.0}");
    }
}
