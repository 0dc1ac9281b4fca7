//! How images are sampled: what can be set, with its names and ranges, and the settings of a request.

mod sampler;
pub mod seed;
mod setting;

use serde::{Deserialize, Serialize};

pub use sampler::Sampler;
pub use setting::{InvalidSetting, Problem, Range, Setting};

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
    /// LightningDiT's time shift s, 0 or more; 0 for none. On its clock (0 is noise) times become
    /// `s·t/(1 + (s − 1)·t)`, so that below 1 more of them lie near the noise. Of flows with one stream
    /// only, and not of [`Sampler::EulerMaruyama`].
    #[serde(default)]
    pub shift: f64,
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
        Self { sampler, steps, guidance, shift: 0.0, tau: None, keep_latent: false }
    }
}
