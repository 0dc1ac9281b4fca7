//! Options of the samplers, which `generate` and `sample` share.

use anyhow::{Context, Result};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Sampler, Settings};
use tintype::weights::Architecture;

/// How pictures are made.
#[derive(Debug, clap::Args)]
pub struct SamplingArgs {
    /// Steps of the sampler
    #[arg(long)]
    pub steps: Option<usize>,
    /// euler, euler-maruyama, heun, dopri5; for HDiT also dpmpp-2m, dpmpp-3m-sde and others
    #[arg(long)]
    pub sampler: Option<String>,
    /// Strength of classifier-free guidance; 1 is none
    #[arg(long)]
    pub cfg: Option<f64>,
    /// Guide only between these times (1 is noise, 0 the picture)
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"])]
    pub cfg_interval: Option<Vec<f64>>,
    /// Guide only the first channels (LightningDiT's published numbers use 3)
    #[arg(long, value_name = "K")]
    pub cfg_channels: Option<usize>,
    /// LightningDiT's time shift
    #[arg(long)]
    pub shift: Option<f64>,
    /// Time below which Hi-DiT's pixels take part, 0 to 1 [default: the network's own]
    #[arg(long)]
    pub tau: Option<f64>,
}

impl SamplingArgs {
    /// The authors' defaults for a network with what the command line says otherwise.
    pub fn settings(&self, architecture: &Architecture) -> Result<Settings> {
        let mut settings = Settings::default_for(architecture);
        if let Some(name) = &self.sampler {
            settings.sampler = Sampler::from_name(name).with_context(|| {
                let names: Vec<_> =
                    Sampler::FLOW.iter().chain(&Sampler::KARRAS).map(|s| s.name()).collect();
                format!("--sampler {name} is unknown; there are {}", names.join(", "))
            })?;
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
