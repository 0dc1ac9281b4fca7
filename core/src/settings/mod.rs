//! How images are sampled: what can be set, with its names and ranges, and the settings of a request.

mod karras_options;
mod quality;
mod sampler;
pub mod seed;
mod setting;
mod time_grid;

use serde::{Deserialize, Serialize};

pub use karras_options::KarrasOptions;
pub use quality::Quality;
pub use sampler::Sampler;
pub use setting::{InvalidSetting, Problem, Range, Setting};
pub use time_grid::TimeGrid;

use crate::diffusion::guidance::Guidance;

/// How pictures are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The sampler.
    pub sampler: Sampler,
    /// Its steps, [`Sampler::least_steps`] to 10 000. Adaptive samplers choose their own.
    pub steps: usize,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// The time shift s of a flow, 0 or more; 0 for none. On LightningDiT's clock (0 is noise) times
    /// become `s·t/(1 + (s − 1)·t)`, so that below 1 more of them lie near the noise; DiT-DH, whose clock runs the
    /// other way, shifts by 1/s. Samplers with times of their own do without ([`Sampler::takes_times`]).
    #[serde(default)]
    pub shift: f64,
    /// Where a flow's steps lie. Not of [`Sampler::EulerMaruyama`], nor of [`Sampler::Dopri5`], which chooses.
    #[serde(default, skip_serializing_if = "TimeGrid::is_uniform")]
    pub times: TimeGrid,
    /// Guidance ends for an image once its conditional and unconditional velocities point the same way: at this
    /// cosine, 0 to 1 (Castillo et al., arXiv 2312.12487, who compare estimates of the noise). A denoiser's are those
    /// of the linear flow with its estimates, `(x − D)/σ − D`. Absent for guidance to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Options of k-diffusion's samplers.
    #[serde(default, skip_serializing_if = "KarrasOptions::is_none")]
    pub karras: KarrasOptions,
    /// Another time for a Hi-DiT's gate than the one it was trained with, 0 (pixels never) to 1 (always);
    /// 1 is noise. Absent for other networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// Whether a Hi-DiT also decodes its latent, for comparison.
    #[serde(default)]
    pub keep_latent: bool,
}

impl Settings {
    /// A sampler with its steps and guidance, and everything else off.
    pub const fn new(sampler: Sampler, steps: usize, guidance: Guidance) -> Self {
        Self {
            sampler,
            steps,
            guidance,
            shift: 0.0,
            times: TimeGrid::Uniform,
            agreement: None,
            karras: KarrasOptions::NONE,
            tau: None,
            keep_latent: false,
        }
    }

    /// The settings with the time shift that was asked for; with their own where none was, which is that of the
    /// network's authors, and which a sampler with times of its own does without.
    ///
    /// # Errors
    ///
    /// [`Problem::NotOfSampler`] where such a sampler was given a shift.
    pub fn with_shift(self, given: Option<f64>) -> Result<Self, InvalidSetting> {
        match given {
            _ if self.sampler.takes_times() => {
                Ok(Self { shift: given.unwrap_or(self.shift), ..self })
            }
            Some(shift) if shift != 0.0 => {
                let sampler = self.sampler.name();
                Err(Setting::TimeShift.invalid(Problem::NotOfSampler { sampler }))
            }
            _ => Ok(Self { shift: 0.0, ..self }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_with_times_of_its_own_has_no_shift() {
        let of = |sampler| Settings { shift: 0.3, ..Settings::new(sampler, 9, Guidance::NONE) };
        let shift = |sampler, given| of(sampler).with_shift(given).map(|settings| settings.shift);
        assert_eq!(shift(Sampler::Euler, None), Ok(0.3));
        assert_eq!(shift(Sampler::Euler, Some(0.0)), Ok(0.0));
        for sampler in [Sampler::EulerMaruyama, Sampler::Dopri5] {
            assert_eq!(shift(sampler, None), Ok(0.0));
            assert_eq!(shift(sampler, Some(0.0)), Ok(0.0));
            let error = shift(sampler, Some(0.5)).expect_err("it would do nothing");
            let problem = Problem::NotOfSampler { sampler: sampler.name() };
            assert_eq!((error.setting, error.problem), (Setting::TimeShift, problem));
        }
    }

    /// Pictures of earlier versions stay readable, and new ones with usual settings are as they were.
    #[test]
    fn newer_settings_are_left_out_where_they_are_off() {
        let usual = Settings::new(Sampler::Euler, 4, Guidance::NONE);
        let text = serde_json::to_string(&usual).expect("JSON");
        let guidance = r#"{"scale":1.0,"low":0.0,"high":1.0,"channels":null}"#;
        let older = format!(
            r#"{{"sampler":"euler","steps":4,"guidance":{guidance},"shift":0.0,"keep_latent":false}}"#
        );
        assert_eq!(text, older);
        assert_eq!(serde_json::from_str::<Settings>(&older).expect("settings"), usual);
        let new = Settings {
            times: TimeGrid::Karras,
            agreement: Some(0.99),
            karras: KarrasOptions { rho: Some(3.0), ..KarrasOptions::NONE },
            ..usual
        };
        let text = serde_json::to_string(&new).expect("JSON");
        assert_eq!(serde_json::from_str::<Settings>(&text).expect("settings"), new);
    }
}
