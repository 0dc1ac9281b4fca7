//! From files to networks.

use burn::tensor::{Device, FloatDType};

use super::bytes;
use crate::model::vavae::{VaeConfig, VaeDecoder};
use crate::model::{Architecture, LatentSpace, vae_config};
use crate::settings::InvalidSetting;
use crate::weights::{Part, Report, Weights, WeightsError, load};

/// What a pipeline is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The generating network.
    pub model: &'a Weights,
    /// The autoencoder; pixel models need none.
    pub vae: Option<&'a Weights>,
    /// Statistics of the latents, where the network does not hold them (LightningDiT, REPA, e2e VAEs).
    pub stats: Option<&'a Weights>,
    /// The network of autoguidance, whose prediction takes the place of the unconditional one: a smaller or earlier
    /// one of the same kind.
    pub guide: Option<&'a Weights>,
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
    /// A network without the statistics of its latents, which its weights do not hold.
    #[error("{0} needs the statistics of its latents, latents_stats.pt")]
    NoStats(&'static str),
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
        /// Bytes of its weights on the device and of what decoding one image takes.
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
            Self::NoStats(_) => Some(Part::Statistics),
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
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`] where the file holds neither pair, or a deviation is not positive or a number
    ///   not finite
    /// * [`WeightsError::Unreadable`] where one of them is of a kind that cannot be read
    pub fn from_weights(weights: &Weights) -> Result<Self, WeightsError> {
        for tensor in ["mean", "std", "latents_bias", "latents_scale"] {
            if let Some(reason) = weights.unreadable.get(tensor) {
                return Err(WeightsError::Unreadable {
                    file: weights.file.clone(),
                    tensor: tensor.into(),
                    reason: reason.clone(),
                });
            }
        }
        let get = |name: &str| weights.tensors.get(name).map(|view| view.to_f32());
        let problem = |problem: &str| {
            Err(WeightsError::Format { file: weights.file.clone(), problem: problem.into() })
        };
        let (mean, std) = match (get("mean"), get("std"), get("latents_bias"), get("latents_scale"))
        {
            (Some(mean), Some(std), _, _) => (mean, std),
            (_, _, Some(mean), Some(scale)) => {
                (mean, scale.into_iter().map(|s| 1.0 / s).collect::<Vec<f32>>())
            }
            _ => {
                return problem("it holds neither mean and std nor latents_bias and latents_scale");
            }
        };
        if !mean.iter().chain(&std).all(|value| value.is_finite()) {
            return problem("its statistics are not finite");
        }
        if std.iter().any(|std| *std <= 0.0) {
            return problem("a standard deviation of its statistics is not positive");
        }
        Ok(Self { mean, std })
    }
}

/// The statistics of a network's latents: those of a file; where the network has none of its own, those that the
/// autoencoder brings along, else the authors' constants for it. A network that needs a file of them takes an
/// autoencoder's only where it states them by channel.
pub(super) fn statistics(
    architecture: &Architecture,
    vae: Option<&VaeConfig>,
    parts: Parts<'_>,
) -> Result<Option<LatentStats>, WeightsError> {
    if let Some(weights) = parts.stats {
        return LatentStats::from_weights(weights).map(Some);
    }
    if let (Some(config), Some(weights)) = (vae, parts.vae) {
        let has_constant = architecture.latent_scale(config).is_some();
        let needs_file =
            architecture.latent_space().is_some_and(|latents| latents.needs_statistics);
        let by_channel =
            ["latents_mean", "latents_std"].iter().all(|key| weights.metadata.contains_key(*key));
        if has_constant || needs_file && by_channel {
            let found = LatentStats::of_autoencoder(weights, config.latent_channels())?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    let constant = |vae: &VaeConfig| {
        let (scale, channels) = (architecture.latent_scale(vae)?, vae.latent_channels());
        let std = vec![(1.0 / scale) as f32; channels];
        Some(LatentStats { mean: vec![0.0; channels], std })
    };
    Ok(vae.and_then(constant))
}

/// Latent models need an autoencoder of their channel count and image size.
pub(super) fn check_parts(
    architecture: &Architecture,
    vae: Option<&VaeConfig>,
    stats: Option<&LatentStats>,
) -> Result<(), LoadError> {
    let incompatible = |message: String| Err(LoadError::IncompatibleParts(message));
    let Some(LatentSpace { channels, needs_statistics }) = architecture.latent_space() else {
        return Ok(());
    };
    let Some(vae) = vae else {
        return Err(LoadError::NoVae(architecture.name()));
    };
    if vae.latent_channels() != channels {
        return incompatible(format!(
            "the network has {channels} latent channels and the autoencoder {}",
            vae.latent_channels()
        ));
    }
    let [_, height, width] =
        architecture.state_shape().map(|side| side.saturating_mul(vae.downsampling()));
    if let Some(image) = architecture.image_size().filter(|image| *image != [width, height]) {
        return incompatible(format!(
            "the network makes images of {} pixels and the autoencoder of {width}",
            image[0]
        ));
    }
    match stats {
        Some(stats) if stats.mean.len() != channels || stats.std.len() != channels => {
            incompatible(format!(
                "the network has {channels} latent channels and the statistics {}",
                stats.mean.len()
            ))
        }
        None if needs_statistics => Err(LoadError::NoStats(architecture.name())),
        _ => Ok(()),
    }
}

/// Width and height of the images.
pub(super) fn image_size(architecture: &Architecture, vae: Option<&VaeConfig>) -> [usize; 2] {
    architecture.image_size().unwrap_or_else(|| {
        let [_, h, w] = architecture.state_shape();
        let f = vae.map_or(1, VaeConfig::downsampling);
        [w * f, h * f]
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
