//! Options that name a model.

use std::path::PathBuf;

use tintype::generate::ModelPaths;

/// Options that name a network.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Weights of the network: .safetensors, .pt, .ckpt, a shard index or a folder
    /// [default: the emoji model inside the program]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Configuration of the network, where the weights do not hold it: k-diffusion's JSON,
    /// LightningDiT's YAML, or this program's JSON
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options that name a network and what it samples with.
#[derive(Debug, clap::Args)]
pub struct PartsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Autoencoder of a latent model
    #[arg(long, value_name = "FILE")]
    pub vae: Option<PathBuf>,
    /// Statistics of the latents (latents_stats.pt, *-latents-stats.pt)
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

impl ModelArgs {
    /// The files without autoencoder and statistics.
    pub fn paths(&self) -> ModelPaths {
        ModelPaths { model: self.model.clone(), config: self.config.clone(), ..Default::default() }
    }
}

impl PartsArgs {
    /// All files.
    pub fn paths(&self) -> ModelPaths {
        ModelPaths { vae: self.vae.clone(), stats: self.stats.clone(), ..self.model.paths() }
    }
}
