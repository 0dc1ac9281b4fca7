//! Sampling options shared by `generate`, `compare` and `sample`.

use anyhow::Result;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Sampler, Settings};
use tintype::model::Architecture;
use tintype::settings::{self, KarrasOptions, Problem, Setting, TimeGrid};

use super::face::help;
use super::numbers::whole;

/// Sampling options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SamplingArgs {
    #[arg(long, help = help(Setting::Steps), value_parser = whole(Setting::Steps), allow_negative_numbers = true)]
    pub steps: Option<usize>,
    #[arg(long, help = samplers())]
    pub sampler: Option<String>,
    #[arg(long, value_name = "SCALE", help = help(Setting::GuidanceScale), allow_negative_numbers = true)]
    pub cfg: Option<f64>,
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"], help = help(Setting::GuidanceInterval), allow_negative_numbers = true)]
    pub cfg_interval: Option<Vec<f64>>,
    #[arg(long, value_name = "K", help = help(Setting::GuidanceChannels), value_parser = whole(Setting::GuidanceChannels), allow_negative_numbers = true)]
    pub cfg_channels: Option<usize>,
    #[arg(long, help = help(Setting::TimeShift), allow_negative_numbers = true)]
    pub shift: Option<f64>,
    #[arg(long, value_name = "GRID", help = help(Setting::Times))]
    pub times: Option<String>,
    #[arg(long, value_name = "COSINE", help = help(Setting::GuidanceAgreement), allow_negative_numbers = true)]
    pub cfg_adaptive: Option<f64>,
    #[command(flatten)]
    pub karras: KarrasArgs,
    #[arg(long, help = format!("{} [default: the network's own]", help(Setting::GateTime)), allow_negative_numbers = true)]
    pub tau: Option<f64>,
}

/// The library's [`settings::Quality`] by name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Quality {
    Draft,
    Good,
    Best,
}

impl Quality {
    fn of_library(self) -> settings::Quality {
        match self {
            Self::Draft => settings::Quality::Draft,
            Self::Good => settings::Quality::Good,
            Self::Best => settings::Quality::Best,
        }
    }
}

/// Options of k-diffusion's samplers, under its names.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KarrasArgs {
    #[arg(long, help = help(Setting::Eta), allow_negative_numbers = true)]
    pub eta: Option<f64>,
    #[arg(long, help = help(Setting::NoiseScale), allow_negative_numbers = true)]
    pub s_noise: Option<f64>,
    #[arg(long, help = help(Setting::Churn), allow_negative_numbers = true)]
    pub s_churn: Option<f64>,
    #[arg(long, help = help(Setting::ChurnMin), allow_negative_numbers = true)]
    pub s_tmin: Option<f64>,
    #[arg(long, help = help(Setting::ChurnMax), allow_negative_numbers = true)]
    pub s_tmax: Option<f64>,
    #[arg(long, help = help(Setting::Rho), allow_negative_numbers = true)]
    pub rho: Option<f64>,
    #[arg(long, help = help(Setting::SigmaMin), allow_negative_numbers = true)]
    pub sigma_min: Option<f64>,
    #[arg(long, help = help(Setting::SigmaMax), allow_negative_numbers = true)]
    pub sigma_max: Option<f64>,
}

impl KarrasArgs {
    fn options(&self) -> KarrasOptions {
        let Self { eta, s_noise, s_churn, s_tmin, s_tmax, rho, sigma_min, sigma_max } = *self;
        KarrasOptions { eta, s_noise, s_churn, s_tmin, s_tmax, rho, sigma_min, sigma_max }
    }
}

fn samplers() -> String {
    let names =
        |samplers: &[Sampler]| samplers.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    let mut others = Sampler::FLOW.to_vec();
    others.retain(|sampler| !Sampler::HYBRID.contains(sampler));
    let mut not_of_jit = Sampler::FLOW.to_vec();
    not_of_jit.retain(|sampler| !Sampler::FLOW_ODE.contains(sampler));
    format!(
        "Sampler: {} (Hi-DiT); also {} (SiT, LightningDiT, DiT-DH; JiT all but {}); {} (HDiT); {} (iMF, pMF)",
        names(&Sampler::HYBRID),
        names(&others),
        names(&not_of_jit),
        names(&Sampler::KARRAS),
        names(&Sampler::MEAN_FLOW)
    )
}

impl SamplingArgs {
    /// Checks what no network has to be known for: names, and the ranges of numbers.
    ///
    /// # Errors
    ///
    /// If there is no sampler or no grid of the name, or a number is out of range.
    pub fn check(&self) -> Result<()> {
        self.sampler.as_deref().map(Sampler::from_name).transpose()?;
        self.times.as_deref().map(TimeGrid::from_name).transpose()?;
        let numbers = [
            (Setting::Steps, self.steps.map(|steps| steps as f64)),
            (Setting::GuidanceScale, self.cfg),
            (Setting::GuidanceChannels, self.cfg_channels.map(|channels| channels as f64)),
            (Setting::TimeShift, self.shift),
            (Setting::GuidanceAgreement, self.cfg_adaptive),
            (Setting::GateTime, self.tau),
        ];
        let numbers = numbers.into_iter().filter_map(|(setting, value)| Some((setting, value?)));
        let karras = self.karras.options();
        for (setting, value) in numbers.chain(karras.given()) {
            setting.check(value)?;
        }
        match self.cfg_interval.as_deref() {
            Some(&[low, high]) if low.is_nan() || high.is_nan() || low > high => {
                Err(Setting::GuidanceInterval.invalid(Problem::NotAnInterval { low, high }).into())
            }
            _ => Ok(()),
        }
    }

    /// Settings of a network: what is given, and where that is silent its authors'.
    ///
    /// * `published`: the authors', where the model is published and says so
    /// * `quality`: steps and sampler in their place
    ///
    /// # Errors
    ///
    /// As [`settings`](Self::settings).
    pub fn of_network(
        &self,
        network: &Architecture,
        published: Option<Settings>,
        quality: Option<Quality>,
    ) -> Result<Settings> {
        let usual = published.unwrap_or_else(|| network.default_settings());
        let usual = quality.map_or(usual, |quality| quality.of_library().apply(usual, network));
        self.settings(usual)
    }

    /// Settings, overridden by the command line.
    ///
    /// # Errors
    ///
    /// If there is no sampler or no grid of the name, or the sampler has no use for a time shift.
    pub fn settings(&self, mut settings: Settings) -> Result<Settings> {
        if let Some(name) = &self.sampler {
            settings.sampler = Sampler::from_name(name)?;
        }
        settings.steps = self.steps.unwrap_or(settings.steps);
        if let Some(name) = &self.times {
            settings.times = TimeGrid::from_name(name)?;
        }
        settings.agreement = self.cfg_adaptive.or(settings.agreement);
        settings.karras = self.karras.options().or(settings.karras);
        settings.tau = self.tau;
        let interval = self.cfg_interval.as_deref().and_then(|i| Some((*i.first()?, *i.get(1)?)));
        let (low, high) = interval.unwrap_or((settings.guidance.low, settings.guidance.high));
        settings.guidance = Guidance {
            scale: self.cfg.unwrap_or(settings.guidance.scale),
            low,
            high,
            channels: self.cfg_channels.or(settings.guidance.channels),
        };
        Ok(settings.with_shift(self.shift)?)
    }
}
