//! What somebody asks for; serialises into every picture.

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance::Guidance;
use crate::setting::{InvalidSetting, Problem, Setting};
use crate::weights::Architecture;

/// A way from noise to an image.
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
        }
    }

    /// Every sampler, those of flow models first.
    pub fn all() -> Vec<Self> {
        let flow = Self::FLOW.into_iter();
        flow.chain(Self::KARRAS.into_iter().filter(|s| !Self::FLOW.contains(s))).collect()
    }

    /// The sampler of a name.
    ///
    /// # Errors
    /// [`Problem::Unknown`] of [`Setting::Sampler`], which lists all.
    pub fn from_name(name: &str) -> Result<Self, InvalidSetting> {
        let all = Self::all();
        all.iter().copied().find(|sampler| sampler.name() == name).ok_or_else(|| {
            let known = all.iter().map(|s| s.name()).collect();
            Setting::Sampler.invalid(Problem::Unknown { given: name.into(), known })
        })
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
    ///
    /// # Errors
    /// The first setting that is out of range or does not apply to the network.
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidSetting> {
        let Guidance { scale, low, high, channels } = self.guidance;
        Setting::Steps.check(self.steps as f64)?;
        let sampler = self.sampler.name();
        if self.steps < self.sampler.least_steps() {
            let (steps, least) = (self.steps, self.sampler.least_steps());
            return Err(Setting::Steps.invalid(Problem::TooFewSteps { steps, sampler, least }));
        }
        Setting::GuidanceScale.check(scale)?;
        if low.is_nan() || high.is_nan() || low > high {
            return Err(Setting::GuidanceInterval.invalid(Problem::NotAnInterval { low, high }));
        }
        if let Some(channels) = channels {
            Setting::GuidanceChannels.check(channels as f64)?;
        }
        Setting::TimeShift.check(self.shift)?;
        if let Some(tau) = self.tau {
            Setting::GateTime.check(tau)?;
            if !matches!(architecture, Architecture::HiDiT(_)) {
                let network = architecture.name();
                return Err(Setting::GateTime.invalid(Problem::NotOf { network }));
            }
        }
        let fitting = Sampler::of(architecture);
        if !fitting.contains(&self.sampler) {
            return Err(Setting::Sampler.invalid(Problem::Unfit {
                sampler,
                network: architecture.name(),
                fitting: fitting.iter().map(|s| s.name()).collect(),
            }));
        }
        Ok(())
    }
}

impl Request {
    /// Checks the request against a network.
    ///
    /// # Errors
    /// A request without images, a class that does not exist, or an invalid setting.
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidSetting> {
        self.settings.validate(architecture)?;
        Setting::Count.check(self.images.len() as f64)?;
        let count = architecture.num_classes();
        match self.images.iter().filter_map(|i| i.class).find(|&class| class > count) {
            Some(class) => Err(Setting::Class.invalid(Problem::NoSuchClass { class, count })),
            None => Ok(()),
        }
    }
}
