//! Model options.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tintype::generate::ModelPaths;
use tintype::weights::{Rename, Weights, open, open_average, renamed};

use super::numbers::at_least;

/// Model options.
#[derive(Debug, Default, clap::Args)]
pub struct ModelArgs {
    /// Model: the name of a published one (`tintype models`), an address (hub:OWNER/REPO/PATH[@REVISION],
    /// https://…), or the path of a checkpoint: .safetensors, .pt, .ckpt, a shard index or a folder
    /// [default: the embedded emoji model]
    #[arg(long, value_name = "NAME|FILE")]
    pub model: Option<PathBuf>,
    /// Model configuration, if the checkpoint does not contain it: k-diffusion's JSON, LightningDiT's
    /// or RAE's YAML, or this program's JSON
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub average: AverageArgs,
    #[command(flatten)]
    pub names: NamesArgs,
}

/// Which weights of a training checkpoint are taken.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct AverageArgs {
    /// Which of the averages (EMA) that the checkpoint or training run holds, counted from 1 [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    pub ema: Option<usize>,
}

impl AverageArgs {
    /// Opens a checkpoint, with the average that was asked for.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or has no such average.
    pub fn open(self, path: &Path) -> Result<Weights> {
        Ok(match self.ema {
            Some(number) => open_average(path, number)?,
            None => open(path)?,
        })
    }
}

/// Names of tensors.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NamesArgs {
    /// Table of tensor names, if the checkpoint has others than its network here: a text with lines
    /// OLD -> NEW (see `tintype info`)
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,
}

impl NamesArgs {
    /// Gives an opened checkpoint the names of the table; says which of its rules were of no use.
    ///
    /// # Errors
    ///
    /// If the table cannot be read, or two tensors would have one name.
    pub fn apply(&self, weights: Weights) -> Result<Weights> {
        let table = self.names.as_deref().map(Rename::open).transpose()?;
        let mut names = table.unwrap_or_default();
        let weights = renamed(weights, &mut names)?;
        if let Some(note) = names.note() {
            eprintln!("note: {note}");
        }
        Ok(weights)
    }
}

/// Options of a model, its autoencoder, its latent statistics and its guide.
#[derive(Debug, Default, clap::Args)]
pub struct PartsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Autoencoder of a latent model: a published one's name, an address, or the path of its checkpoint or of a
    /// folder with it [default: the published model's]
    #[arg(long, value_name = "NAME|FILE")]
    pub vae: Option<PathBuf>,
    /// Latent statistics: a published autoencoder's name, an address, or a path (latents_stats.pt,
    /// *-latents-stats.pt, stat.pt) [default: the published model's]
    #[arg(long, value_name = "NAME|FILE")]
    pub stats: Option<PathBuf>,
    /// Network of autoguidance: a smaller or earlier one of the same kind, whose prediction takes the place of the
    /// unconditional one. A published model's name (its guide, else its network), an address, or the path of a
    /// checkpoint [default: the published model's, if it has one]
    #[arg(long, value_name = "NAME|FILE")]
    pub guide: Option<PathBuf>,
}

impl ModelArgs {
    /// Paths of the network alone.
    pub fn paths(&self) -> ModelPaths {
        ModelPaths {
            model: self.model.clone(),
            average: self.average.ema,
            config: self.config.clone(),
            names: self.names.names.clone(),
            ..Default::default()
        }
    }
}

impl PartsArgs {
    /// All paths.
    pub fn paths(&self) -> ModelPaths {
        ModelPaths {
            vae: self.vae.clone(),
            stats: self.stats.clone(),
            guide: self.guide.clone(),
            ..self.model.paths()
        }
    }
}
