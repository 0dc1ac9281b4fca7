//! From files to networks.

use burn::tensor::{Device, FloatDType};

use super::bytes;
use crate::model::hdit::HDiT;
use crate::model::hidit::HiDiT;
use crate::model::lightningdit::LightningDiT;
use crate::model::sit::SiT;
use crate::model::vavae::{VaeConfig, VaeDecoder};
use crate::setting::InvalidSetting;
use crate::weights::{Architecture, Part, Report, Weights, WeightsError, load, vae_config};

/// What a pipeline is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The generating network.
    pub model: &'a Weights,
    /// The autoencoder; pixel models need none.
    pub vae: Option<&'a Weights>,
    /// Statistics of the latents, where the network does not hold them (LightningDiT, e2e VAEs).
    pub stats: Option<&'a Weights>,
}

/// Why a pipeline cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A latent model without its autoencoder.
    #[error("{0} works on latents and needs an autoencoder")]
    NoVae(&'static str),
    /// LightningDiT without the statistics of its latents.
    #[error("LightningDiT needs the statistics of its latents, latents_stats.pt")]
    NoStats,
    /// Files of different models.
    #[error("{0}; they do not belong together")]
    IncompatibleParts(String),
    /// The device does not compute in this precision.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// It does not fit in memory.
    #[error(
        "{file} needs {} of memory and {} is free; close other programs, use f16 or bf16, or a smaller model",
        bytes(*.needed),
        bytes(*.free)
    )]
    Memory {
        /// The network's weights.
        file: String,
        /// Bytes of its weights on the device.
        needed: u64,
        /// Bytes that are free there.
        free: u64,
    },
    /// No model was named and there is none inside.
    #[error("this program was built without the embedded model")]
    NotEmbedded,
}

impl LoadError {
    /// The file of the model that is missing, or that another one should be given as.
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Weights(error) => error.part(),
            Self::NoVae(_) => Some(Part::Autoencoder),
            Self::NoStats => Some(Part::Statistics),
            Self::NotEmbedded => Some(Part::Network),
            _ => None,
        }
    }
}

/// Mean and standard deviation of each latent channel.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentStats {
    /// Means.
    pub mean: Vec<f32>,
    /// Standard deviations.
    pub std: Vec<f32>,
}

impl LatentStats {
    /// Reads LightningDiT's `latents_stats.pt` (`mean`, `std`) or REPA-E's
    /// `<vae>-latents-stats.pt` (`latents_bias`, `latents_scale` = 1/std).
    pub fn from_weights(weights: &Weights) -> Result<Self, WeightsError> {
        let get = |name: &str| weights.tensors.get(name).map(|view| view.to_f32());
        match (get("mean"), get("std"), get("latents_bias"), get("latents_scale")) {
            (Some(mean), Some(std), _, _) => Ok(Self { mean, std }),
            (_, _, Some(mean), Some(scale)) => {
                Ok(Self { mean, std: scale.into_iter().map(|s| 1.0 / s).collect() })
            }
            _ => Err(WeightsError::Format {
                file: weights.file.clone(),
                problem: "it holds neither mean and std nor latents_bias and latents_scale".into(),
            }),
        }
    }
}

/// A loaded network.
#[derive(Debug)]
pub(super) enum Network {
    HiDiT(Box<HiDiT>),
    SiT(Box<SiT>),
    LightningDiT(Box<LightningDiT>),
    HDiT(Box<HDiT>),
}

/// Latent models need an autoencoder of their channel count and image size.
pub(super) fn check_parts(
    architecture: &Architecture,
    vae: Option<&VaeConfig>,
    stats: Option<&LatentStats>,
) -> Result<(), LoadError> {
    let incompatible = |message: String| Err(LoadError::IncompatibleParts(message));
    let Some(channels) = latent_channels(architecture) else { return Ok(()) };
    let Some(vae) = vae else {
        return Err(LoadError::NoVae(architecture.name()));
    };
    if vae.latent_channels() != channels {
        return incompatible(format!(
            "the network has {channels} latent channels and the autoencoder {}",
            vae.latent_channels()
        ));
    }
    if let Architecture::HiDiT(c) = architecture
        && c.sit.input_size * vae.downsampling() != c.image
    {
        return incompatible(format!(
            "the network makes images of {} pixels and the autoencoder of {}",
            c.image,
            c.sit.input_size * vae.downsampling()
        ));
    }
    match stats {
        Some(stats) if stats.mean.len() != channels || stats.std.len() != channels => {
            incompatible(format!(
                "the network has {channels} latent channels and the statistics {}",
                stats.mean.len()
            ))
        }
        None if matches!(architecture, Architecture::LightningDiT(_)) => Err(LoadError::NoStats),
        _ => Ok(()),
    }
}

/// Latent channels, where the network works on latents.
pub(super) fn latent_channels(architecture: &Architecture) -> Option<usize> {
    match architecture {
        Architecture::HiDiT(c) => Some(c.sit.in_channels),
        Architecture::SiT(c) => Some(c.in_channels),
        Architecture::LightningDiT(c) => Some(c.in_channels),
        Architecture::HDiT(_) => None,
    }
}

/// Shape of one image's state.
pub(super) fn state_shape(architecture: &Architecture) -> [usize; 3] {
    match architecture {
        Architecture::HiDiT(c) => [c.sit.in_channels, c.sit.input_size, c.sit.input_size],
        Architecture::SiT(c) => [c.in_channels, c.input_size, c.input_size],
        Architecture::LightningDiT(c) => [c.in_channels, c.input_size, c.input_size],
        Architecture::HDiT(c) => [c.input_channels, c.input_size[0], c.input_size[1]],
    }
}

/// Width and height of the pictures.
pub(super) fn image_size(architecture: &Architecture, vae: Option<&VaeConfig>) -> [usize; 2] {
    let [_, h, w] = state_shape(architecture);
    match architecture {
        Architecture::HiDiT(c) => [c.image; 2],
        Architecture::HDiT(_) => [w, h],
        Architecture::SiT(_) | Architecture::LightningDiT(_) => {
            let f = vae.map_or(1, VaeConfig::downsampling);
            [w * f, h * f]
        }
    }
}

pub(super) fn load_network(
    architecture: &Architecture,
    weights: &Weights,
    precision: FloatDType,
    device: &Device,
    reports: &mut Vec<(String, Report)>,
) -> Result<Network, LoadError> {
    let config = |e| LoadError::Weights(WeightsError::Config(e));
    let mut note = |report: Report| reports.push((weights.file.clone(), report));
    Ok(match architecture {
        Architecture::HiDiT(c) => {
            let loaded = load(c.init(device).map_err(config)?, weights, precision, device)?;
            note(loaded.report);
            Network::HiDiT(Box::new(loaded.network))
        }
        Architecture::SiT(c) => {
            let loaded = load(c.init(device).map_err(config)?, weights, precision, device)?;
            note(loaded.report);
            Network::SiT(Box::new(loaded.network))
        }
        Architecture::LightningDiT(c) => {
            let loaded = load(c.init(device).map_err(config)?, weights, precision, device)?;
            note(loaded.report);
            Network::LightningDiT(Box::new(loaded.network))
        }
        Architecture::HDiT(c) => {
            let loaded = load(c.init(device).map_err(config)?, weights, precision, device)?;
            note(loaded.report);
            Network::HDiT(Box::new(loaded.network))
        }
    })
}

pub(super) fn load_decoder(
    weights: &Weights,
    device: &Device,
    reports: &mut Vec<(String, Report)>,
) -> Result<(VaeConfig, VaeDecoder), LoadError> {
    let config = vae_config(weights)?;
    let network = config.init_decoder(device).map_err(WeightsError::Config)?;
    let half = weights.clone().filtered(is_decoder);
    let loaded = load(network, &half, FloatDType::F32, device)?;
    reports.push((weights.file.clone(), loaded.report));
    Ok((config, loaded.network))
}

/// Whether a tensor of an autoencoder belongs to its decoder.
pub(super) fn is_decoder(name: &str) -> bool {
    !name.starts_with("encoder.") && !name.starts_with("quant_conv.")
}
