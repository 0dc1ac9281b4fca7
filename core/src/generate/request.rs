//! What somebody asks for; serialises into every picture.

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance::Guidance;
use crate::weights::Architecture;

/// A way from noise to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the names are the field's own, see `crate::sampler`
pub enum Sampler {
    Euler,
    Heun,
    EulerMaruyama,
    Dopri5,
    EulerAncestral,
    #[serde(rename = "dpm-2")]
    Dpm2,
    #[serde(rename = "dpm-2-ancestral")]
    Dpm2Ancestral,
    Lms,
    DpmFast,
    DpmAdaptive,
    #[serde(rename = "dpmpp-2s-ancestral")]
    DpmPp2sAncestral,
    #[serde(rename = "dpmpp-sde")]
    DpmPpSde,
    #[serde(rename = "dpmpp-2m")]
    DpmPp2m,
    #[serde(rename = "dpmpp-2m-sde")]
    DpmPp2mSde,
    #[serde(rename = "dpmpp-3m-sde")]
    DpmPp3mSde,
}

impl Sampler {
    /// Those of flow models with one stream (SiT, LightningDiT).
    pub const FLOW: [Self; 4] = [Self::Euler, Self::Heun, Self::EulerMaruyama, Self::Dopri5];
    /// Those of Hi-DiT.
    pub const HYBRID: [Self; 2] = [Self::Euler, Self::EulerMaruyama];
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

    /// The samplers of a network.
    pub fn of(architecture: &Architecture) -> &'static [Self] {
        match architecture {
            Architecture::HiDiT(_) => &Self::HYBRID,
            Architecture::SiT(_) | Architecture::LightningDiT(_) => &Self::FLOW,
            Architecture::HDiT(_) => &Self::KARRAS,
        }
    }

    /// The name that the command line and the request use.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }

    /// The sampler of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.into())).ok()
    }
}

/// How pictures are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The sampler.
    pub sampler: Sampler,
    /// Its steps.
    pub steps: usize,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// LightningDiT's time shift; 0 for none.
    #[serde(default)]
    pub shift: f64,
    /// Another time for a Hi-DiT's gate than the one it was trained with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// Whether a Hi-DiT also decodes its latent, for comparison.
    #[serde(default)]
    pub keep_latent: bool,
}

/// One picture of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The class; absent for none (the null class, or a model without classes).
    pub class: Option<usize>,
    /// The seed.
    pub seed: u64,
    /// The number of the picture under this seed.
    #[serde(default)]
    pub index: u64,
}

/// Pictures that are made together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// How.
    pub settings: Settings,
    /// Which.
    pub images: Vec<ImageSpec>,
}

/// A request that makes no sense; the message names the option.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidRequest(pub String);

impl Settings {
    /// What the authors of a network sample with.
    pub fn default_for(architecture: &Architecture) -> Self {
        let (sampler, steps, guidance, shift) = match architecture {
            // hidit.md: 50 steps, SDE; strength as measured for the shipped model
            Architecture::HiDiT(c) => {
                let scale = if c.sit.num_classes == 1000 { 2.4 } else { 2.0 };
                (Sampler::EulerMaruyama, 50, Guidance::new(scale), 0.0)
            }
            Architecture::SiT(_) => {
                let guidance = Guidance { high: 0.73, ..Guidance::new(2.4) };
                (Sampler::EulerMaruyama, 250, guidance, 0.0)
            }
            Architecture::LightningDiT(_) => {
                // The interval starts at 0.125 on the authors' clock.
                let guidance = Guidance { high: 0.875, channels: Some(3), ..Guidance::new(6.7) };
                (Sampler::Euler, 249, guidance, 0.3)
            }
            Architecture::HDiT(c) => {
                let scale = if c.num_classes > 0 { 1.3 } else { 1.0 };
                (Sampler::DpmPp3mSde, 50, Guidance { high: f64::MAX, ..Guidance::new(scale) }, 0.0)
            }
        };
        Self { sampler, steps, guidance, shift, tau: None, keep_latent: false }
    }

    /// Checks the settings against a network.
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidRequest> {
        let invalid = |message: String| Err(InvalidRequest(message));
        let Guidance { scale, low, high, channels } = self.guidance;
        if self.steps == 0 || self.steps > 10_000 {
            return invalid(format!("--steps {} is not between 1 and 10000", self.steps));
        }
        if self.steps < 2 && self.sampler == Sampler::EulerMaruyama {
            return invalid("--steps 1 is too few for euler-maruyama; use euler".into());
        }
        if self.steps < 3 && self.sampler == Sampler::DpmFast {
            return invalid("--steps must be at least 3 for dpm-fast".into());
        }
        if !scale.is_finite() || scale < 0.0 {
            return invalid(format!("--cfg {scale} is not a number from 0 upwards"));
        }
        if low.is_nan() || high.is_nan() || low > high {
            return invalid(format!("--cfg-interval {low} {high} is not an interval"));
        }
        if channels == Some(0) {
            return invalid("--cfg-channels must be at least 1".into());
        }
        if !self.shift.is_finite() || self.shift < 0.0 {
            return invalid(format!("--shift {} is not a number from 0 upwards", self.shift));
        }
        match (self.tau, architecture) {
            (Some(tau), _) if !(0.0..=1.0).contains(&tau) => {
                return invalid(format!("--tau {tau} is not between 0 and 1"));
            }
            (Some(_), Architecture::HiDiT(_)) | (None, _) => {}
            (Some(_), other) => {
                return invalid(format!("--tau is Hi-DiT's; {} has no gate", other.name()));
            }
        }
        let samplers = Sampler::of(architecture);
        if !samplers.contains(&self.sampler) {
            let names: Vec<_> = samplers.iter().map(|s| s.name()).collect();
            return invalid(format!(
                "--sampler {} does not fit {}; use {}",
                self.sampler.name(),
                architecture.name(),
                names.join(", ")
            ));
        }
        Ok(())
    }
}

impl Request {
    /// Checks the request against a network.
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidRequest> {
        self.settings.validate(architecture)?;
        if self.images.is_empty() {
            return Err(InvalidRequest(
                "there is nothing to make; --count must be positive".into(),
            ));
        }
        let classes = architecture.num_classes();
        match self.images.iter().filter_map(|i| i.class).find(|&class| class > classes) {
            Some(class) => Err(InvalidRequest(format!(
                "class {class} does not exist; they run from 0 to {}",
                classes.saturating_sub(1)
            ))),
            None => Ok(()),
        }
    }
}
