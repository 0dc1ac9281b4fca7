//! Finding and loading the model that a command is about.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{DType, Device, FloatDType};
use tintype::generate::{Parts, Pipeline};
use tintype::weights::{Weights, open};

/// Options that name a model.
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

/// Options that name a model and what it samples with.
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

/// Number format of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit
    #[default]
    F32,
    /// 16-bit, for GPUs that have it
    F16,
    /// 16-bit with the range of 32, for GPUs that have it
    Bf16,
}

impl Precision {
    /// The type, if the device has it.
    pub fn on(self, device: &Device) -> Result<FloatDType> {
        let dtype = match self {
            Precision::F32 => FloatDType::F32,
            Precision::F16 => FloatDType::F16,
            Precision::Bf16 => FloatDType::BF16,
        };
        if !device.supports_dtype(DType::from(dtype)) {
            let name = format!("{self:?}").to_lowercase();
            bail!("--precision {name} is not supported by this device; use f32");
        }
        Ok(dtype)
    }
}

/// A network's weights and what goes with them.
pub struct ModelFiles {
    pub model: Weights,
    pub vae: Option<Weights>,
    pub stats: Option<Weights>,
}

impl ModelFiles {
    /// Opens the named files, or the embedded model where no model is named.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        let mut files = match &args.model {
            None => embedded()?,
            Some(path) => Self { model: open(path)?, vae: None, stats: None },
        };
        if let Some(path) = &args.config {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            files.model.metadata.insert("config".into(), text);
        }
        Ok(files)
    }

    /// [`open`](Self::open) with autoencoder and statistics, if they are named.
    pub fn with_parts(args: &PartsArgs) -> Result<Self> {
        let mut files = Self::open(&args.model)?;
        if let Some(path) = &args.vae {
            files.vae = Some(open(path)?);
        }
        if let Some(path) = &args.stats {
            files.stats = Some(open(path)?);
        }
        Ok(files)
    }

    /// Loads the networks onto a device.
    pub fn load(&self, precision: FloatDType, device: &Device) -> Result<Pipeline> {
        self.check_memory(device)?;
        let parts =
            Parts { model: &self.model, vae: self.vae.as_ref(), stats: self.stats.as_ref() };
        Ok(Pipeline::load(parts, precision, device)?)
    }

    /// Refuses a model that this machine's memory cannot hold. Devices with memory of their own
    /// answer for themselves.
    fn check_memory(&self, device: &Device) -> Result<()> {
        if *device != Device::flex() {
            return Ok(());
        }
        let count = |weights: &Weights| weights.tensors.values().map(|v| v.len()).sum::<usize>();
        let values = count(&self.model) + self.vae.as_ref().map_or(0, count);
        let needed = 4 * values as u64; // float32 on the CPU
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let available = system.available_memory();
        if available > 0 && needed > available {
            bail!(
                "{} needs {} of memory and {} is free; close other programs or use a smaller model",
                self.model.file,
                bytes(needed),
                bytes(available)
            );
        }
        Ok(())
    }
}

/// A size for people.
pub fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / (1u64 << 30) as f64),
        n if n >= 1 << 20 => format!("{:.1} MiB", n as f64 / (1u64 << 20) as f64),
        n => format!("{:.1} KiB", n as f64 / 1024.0),
    }
}

#[cfg(feature = "embedded-model")]
fn embedded() -> Result<ModelFiles> {
    const MODEL: &[u8] = include_bytes!("../../../models/emoji/hidit.safetensors");
    const DECODER: &[u8] = include_bytes!("../../../models/emoji/vae-decoder.safetensors");
    Ok(ModelFiles {
        model: Weights::from_bytes(MODEL, "the embedded emoji model")?,
        vae: Some(Weights::from_bytes(DECODER, "the embedded emoji decoder")?),
        stats: None,
    })
}

#[cfg(not(feature = "embedded-model"))]
fn embedded() -> Result<ModelFiles> {
    bail!("this program was built without the embedded model; pass one with --model")
}
