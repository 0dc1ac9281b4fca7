//! Sampling options shared by `generate` and `sample`.

use anyhow::Result;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Sampler, Settings};
use tintype::model::Architecture;
use tintype::settings::Setting;

use super::face::help;
use super::numbers::whole;

/// Sampling options.
#[derive(Debug, clap::Args)]
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
    #[arg(long, help = format!("{} [default: the network's own]", help(Setting::GateTime)), allow_negative_numbers = true)]
    pub tau: Option<f64>,
}

fn samplers() -> String {
    let names =
        |samplers: &[Sampler]| samplers.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    let mut others = Sampler::FLOW.to_vec();
    others.retain(|sampler| !Sampler::HYBRID.contains(sampler));
    format!(
        "Sampler: {} (Hi-DiT); also {} (SiT, LightningDiT); {} (HDiT)",
        names(&Sampler::HYBRID),
        names(&others),
        names(&Sampler::KARRAS)
    )
}

impl SamplingArgs {
    /// The published model's settings, else the architecture's default settings, overridden by the command line.
    ///
    /// # Errors
    ///
    /// If there is no sampler of the name.
    pub fn settings(
        &self,
        architecture: &Architecture,
        published: Option<Settings>,
    ) -> Result<Settings> {
        let mut settings = published.unwrap_or_else(|| architecture.default_settings());
        if let Some(name) = &self.sampler {
            settings.sampler = Sampler::from_name(name)?;
        }
        settings.steps = self.steps.unwrap_or(settings.steps);
        settings.shift = self.shift.unwrap_or(settings.shift);
        settings.tau = self.tau;
        let interval = self.cfg_interval.as_deref().and_then(|i| Some((*i.first()?, *i.get(1)?)));
        let (low, high) = interval.unwrap_or((settings.guidance.low, settings.guidance.high));
        settings.guidance = Guidance {
            scale: self.cfg.unwrap_or(settings.guidance.scale),
            low,
            high,
            channels: self.cfg_channels.or(settings.guidance.channels),
        };
        Ok(settings)
    }
}
