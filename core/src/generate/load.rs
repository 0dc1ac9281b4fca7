//! From files to networks.

use burn::tensor::{Device, FloatDType};

use super::bytes;
use super::latent_stats::LatentStats;
use crate::model::{Architecture, Autoencoder, Decoder, LatentSpace, autoencoder_config};
use crate::settings::InvalidSetting;
use crate::weights::{Part, Report, Weights, WeightsError, load};

/// What a pipeline is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The generating network.
    pub model: &'a Weights,
    /// The autoencoder; pixel models need none.
    pub vae: Option<&'a Weights>,
    /// Statistics of the latents, where the network does not hold them (LightningDiT, DiT-DH, REPA, e2e VAEs).
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
    #[error("{0} needs the statistics of its latents, such as latents_stats.pt or stat.pt")]
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

/// The statistics of a network's latents: those of a file; where the network has none of its own, those that the
/// autoencoder brings along, else the authors' constants for it. A network that needs a file of them takes an
/// autoencoder's only where it states them by channel.
pub(super) fn statistics(
    architecture: &Architecture,
    autoencoder: Option<&Autoencoder>,
    parts: Parts<'_>,
) -> Result<Option<LatentStats>, WeightsError> {
    if let Some(weights) = parts.stats {
        return LatentStats::from_weights(weights).map(Some);
    }
    let (Some(Autoencoder::Vae(config)), Some(weights)) = (autoencoder, parts.vae) else {
        return Ok(None);
    };
    let scale = architecture.latent_scale(config);
    let needs_file = architecture.latent_space().is_some_and(|latents| latents.needs_statistics);
    let by_channel =
        ["latents_mean", "latents_std"].iter().all(|key| weights.metadata.contains_key(*key));
    let channels = config.latent_channels();
    if scale.is_some() || needs_file && by_channel {
        let found = LatentStats::of_autoencoder(weights, channels)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    let constant = |scale: f64| {
        LatentStats::of_channels(vec![0.0; channels], vec![(1.0 / scale) as f32; channels])
    };
    Ok(scale.map(constant))
}

/// Latent models need an autoencoder of their channels, their latents' size and their images', and statistics of such
/// latents.
pub(super) fn check_parts(
    architecture: &Architecture,
    autoencoder: Option<&Autoencoder>,
    stats: Option<&LatentStats>,
) -> Result<(), LoadError> {
    let incompatible = |message: String| Err(LoadError::IncompatibleParts(message));
    let Some(LatentSpace { channels, needs_statistics }) = architecture.latent_space() else {
        return Ok(());
    };
    let Some(autoencoder) = autoencoder else {
        return Err(LoadError::NoVae(architecture.name()));
    };
    if autoencoder.latent_channels() != channels {
        return incompatible(format!(
            "the network has {channels} latent channels and the autoencoder {}",
            autoencoder.latent_channels()
        ));
    }
    let [_, h, w] = architecture.state_shape();
    if let Some([rows, columns]) = autoencoder.grid().filter(|grid| *grid != [h, w]) {
        return incompatible(format!(
            "the network's latents are {w} by {h} and those of the autoencoder {columns} by {rows}"
        ));
    }
    let [width, height] = [w, h].map(|side| side.saturating_mul(autoencoder.downsampling()));
    if let Some(image) = architecture.image_size().filter(|image| *image != [width, height]) {
        return incompatible(format!(
            "the network makes images of {} pixels and the autoencoder of {width}",
            image[0]
        ));
    }
    match stats {
        Some(stats) if stats.shape[0] != channels => incompatible(format!(
            "the network has {channels} latent channels and the statistics {}",
            stats.shape[0]
        )),
        Some(stats) if !stats.fits([channels, h, w]) => incompatible(format!(
            "the network's latents are {w} by {h} and those of the statistics {} by {}",
            stats.shape[2], stats.shape[1]
        )),
        None if needs_statistics => Err(LoadError::NoStats(architecture.name())),
        _ => Ok(()),
    }
}

/// Width and height of the images.
pub(super) fn image_size(
    architecture: &Architecture,
    autoencoder: Option<&Autoencoder>,
) -> [usize; 2] {
    architecture.image_size().unwrap_or_else(|| {
        let [_, h, w] = architecture.state_shape();
        let f = autoencoder.map_or(1, Autoencoder::downsampling);
        [w * f, h * f]
    })
}

pub(super) fn load_decoder(
    weights: &Weights,
    device: &Device,
    reports: &mut Vec<(String, Report)>,
) -> Result<(Autoencoder, Decoder), LoadError> {
    let config = autoencoder_config(weights)?;
    let network = config.init_decoder(device).map_err(WeightsError::Config)?;
    let half = config.decoder_part(weights.clone());
    let loaded = load(network, &half, FloatDType::F32, device)?;
    reports.push((weights.file.clone(), loaded.report));
    Ok((config, loaded.network))
}
