//! Networks, statistics and labels, loaded and ready to generate.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use super::request::Request;
use super::{Event, GenerateError, Picture};
use crate::device::state_device;
use crate::image::{Rounding, to_rgb};
use crate::labels::Labels;
use crate::model::hdit::HDiT;
use crate::model::hidit::HiDiT;
use crate::model::lightningdit::LightningDiT;
use crate::model::sit::SiT;
use crate::model::vavae::{VaeConfig, VaeDecoder};
use crate::sampler::{State, Stop};
use crate::weights::{Architecture, Report, Weights, WeightsError, detect, load, vae_config};

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
    /// A part is missing or belongs to another network.
    #[error("{0}")]
    Parts(String),
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

/// Everything that is needed to generate.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) network: Network,
    pub(super) architecture: Architecture,
    pub(super) decoder: Option<(VaeConfig, VaeDecoder)>,
    pub(super) stats: Option<LatentStats>,
    pub(super) device: Device,
    pub(super) state_device: Device,
    pub(super) precision: FloatDType,
    labels: Labels,
    reports: Vec<(String, Report)>,
}

impl Pipeline {
    /// Loads networks in the given precision. The autoencoder always runs in float32.
    pub fn load(
        parts: Parts<'_>,
        precision: FloatDType,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let architecture = detect(parts.model)?;
        let mut reports = Vec::new();
        let network = load_network(&architecture, parts.model, precision, device, &mut reports)?;
        let decoder = match parts.vae {
            Some(weights) => Some(load_decoder(weights, device, &mut reports)?),
            None => None,
        };
        let stats = match parts.stats {
            Some(weights) => Some(LatentStats::from_weights(weights)?),
            None => None,
        };
        let labels = Labels::of(parts.model, architecture.num_classes());
        let pipeline = Self {
            network,
            decoder,
            stats,
            device: device.clone(),
            state_device: state_device(device),
            precision,
            labels,
            reports,
            architecture,
        };
        pipeline.check_parts()?;
        Ok(pipeline)
    }

    /// Latent models need an autoencoder of their channel count and image size.
    fn check_parts(&self) -> Result<(), LoadError> {
        let parts = |message: String| Err(LoadError::Parts(message));
        let Some(channels) = self.latent_channels() else { return Ok(()) };
        let Some((vae, _)) = &self.decoder else {
            return parts(format!(
                "{} works on latents and needs an autoencoder; pass its file with --vae",
                self.architecture.name()
            ));
        };
        if vae.latent_channels() != channels {
            return parts(format!(
                "the network has {channels} latent channels and the autoencoder {}; they do not belong together",
                vae.latent_channels()
            ));
        }
        if let Architecture::HiDiT(c) = &self.architecture
            && c.sit.input_size * vae.downsampling() != c.image
        {
            return parts(format!(
                "the network makes images of {} pixels and the autoencoder of {}; they do not belong together",
                c.image,
                c.sit.input_size * vae.downsampling()
            ));
        }
        match &self.stats {
            Some(stats) if stats.mean.len() != channels || stats.std.len() != channels => parts(
                format!("the latent statistics are of {} channels, not {channels}", stats.mean.len()),
            ),
            None if matches!(self.architecture, Architecture::LightningDiT(_)) => parts(
                "LightningDiT needs the statistics of its latents; pass latents_stats.pt with --stats".into(),
            ),
            _ => Ok(()),
        }
    }

    /// What the network is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The classes it knows.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How each file fitted, by file name.
    pub fn reports(&self) -> &[(String, Report)] {
        &self.reports
    }

    /// Width and height of the pictures.
    pub fn image_size(&self) -> [usize; 2] {
        match &self.architecture {
            Architecture::HiDiT(c) => [c.image; 2],
            Architecture::HDiT(c) => [c.input_size[1], c.input_size[0]],
            Architecture::SiT(_) | Architecture::LightningDiT(_) => {
                let [_, h, w] = self.state_shape();
                let f = self.decoder.as_ref().map_or(1, |(vae, _)| vae.downsampling());
                [w * f, h * f]
            }
        }
    }

    /// Makes the pictures of a request and tells what happens; `on_event` may cancel.
    ///
    /// Pictures of one request are computed together; split a large one for less memory. A
    /// picture does not depend on which others are made with it.
    pub async fn generate(
        &self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> Result<(), Stop>,
    ) -> Result<(), GenerateError> {
        request.validate(&self.architecture)?;
        let (image, latent) = match &self.network {
            Network::HiDiT(network) => {
                super::hybrid::generate(self, network, request, on_event).await?
            }
            _ => {
                let state = super::run::generate(self, request, on_event).await?;
                match self.latent_channels() {
                    Some(_) => (self.decode(state).await?, None),
                    None => (state, None),
                }
            }
        };
        let rounding = match self.architecture {
            Architecture::LightningDiT(_) => Rounding::Up,
            _ => Rounding::Half,
        };
        let images = to_rgb(&read(image).await?, rounding);
        let mut latents = match latent {
            Some(latent) => to_rgb(&read(latent).await?, rounding).into_iter().map(Some).collect(),
            None => vec![None; images.len()],
        };
        for (index, image) in images.into_iter().enumerate() {
            let latent = latents[index].take();
            let spec = request.images[index];
            on_event(Event::Image(Picture { index, spec, image, latent }))?;
        }
        Ok(())
    }

    /// Decodes latents in normalised space: `[B, C, h, w]` → `[B, 3, H, W]`, float32 on the
    /// network's device.
    pub async fn decode(&self, z: State) -> Result<State, Stop> {
        let z = self.to_device(z, FloatDType::F32).await?;
        let z = match (&self.stats, &self.network) {
            (Some(stats), _) => self.denormalize(z, stats),
            (None, Network::HiDiT(network)) => network.sit.bn.denormalize(z),
            (None, Network::SiT(network)) => network.bn.denormalize(z),
            (None, _) => z,
        };
        match &self.decoder {
            Some((_, decoder)) => Ok(decoder.decode(z)),
            None => Ok(z),
        }
    }

    fn denormalize(&self, z: Tensor<4>, stats: &LatentStats) -> Tensor<4> {
        let row = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [1, values.len(), 1, 1]);
            Tensor::<4>::from_data(data, &self.device)
        };
        z * row(&stats.std) + row(&stats.mean)
    }

    /// Latent channels, where the network works on latents.
    pub(super) fn latent_channels(&self) -> Option<usize> {
        match &self.architecture {
            Architecture::HiDiT(c) => Some(c.sit.in_channels),
            Architecture::SiT(c) => Some(c.in_channels),
            Architecture::LightningDiT(c) => Some(c.in_channels),
            Architecture::HDiT(_) => None,
        }
    }

    /// Shape of one image's state.
    pub(super) fn state_shape(&self) -> [usize; 3] {
        match &self.architecture {
            Architecture::HiDiT(c) => [c.sit.in_channels, c.sit.input_size, c.sit.input_size],
            Architecture::SiT(c) => [c.in_channels, c.input_size, c.input_size],
            Architecture::LightningDiT(c) => [c.in_channels, c.input_size, c.input_size],
            Architecture::HDiT(c) => [c.input_channels, c.input_size[0], c.input_size[1]],
        }
    }

    /// A state as the network wants it.
    pub(super) async fn to_device(
        &self,
        x: State,
        precision: FloatDType,
    ) -> Result<Tensor<4>, Stop> {
        if x.device() == self.device {
            return Ok(x.cast(precision));
        }
        let data = read(x.cast(FloatDType::F32)).await?;
        Ok(Tensor::<4>::from_data(data, &self.device).cast(precision))
    }

    /// A prediction as the sampler wants it.
    pub(super) async fn to_state(&self, x: Tensor<4>) -> Result<State, Stop> {
        if self.device == self.state_device {
            return Ok(x.cast(FloatDType::F64));
        }
        let data = read(x.cast(FloatDType::F32)).await?;
        Ok(Tensor::<4>::from_data(data, &self.state_device).cast(FloatDType::F64))
    }

    /// One time for every sample, `[n]` in float32.
    pub(super) fn times(&self, t: f64, n: usize) -> Tensor<1> {
        let data = TensorData::new(vec![t as f32; n], [n]);
        Tensor::from_data(data, (&self.device, burn::tensor::DType::F32))
    }

    /// Labels of a batch and, behind them, as many null labels where guidance wants both.
    pub(super) fn labels_tensor(&self, classes: &[Option<usize>], guided: bool) -> Tensor<1, Int> {
        let null = self.architecture.num_classes();
        let mut values: Vec<i32> = classes.iter().map(|c| c.unwrap_or(null) as i32).collect();
        if guided {
            values.extend(std::iter::repeat_n(null as i32, classes.len()));
        }
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &self.device)
    }
}

/// Reads a tensor back without blocking, in float32.
pub(super) async fn read(x: Tensor<4>) -> Result<TensorData, Stop> {
    let failed = |e| Stop::Device(format!("{e:?}"));
    Ok(x.cast(FloatDType::F32).into_data_async().await.map_err(failed)?.convert::<f32>())
}

fn load_network(
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

fn load_decoder(
    weights: &Weights,
    device: &Device,
    reports: &mut Vec<(String, Report)>,
) -> Result<(VaeConfig, VaeDecoder), LoadError> {
    let config = vae_config(weights)?;
    let network = config.init_decoder(device).map_err(WeightsError::Config)?;
    let encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let half = weights.clone().filtered(|name| !encoder(name));
    let loaded = load(network, &half, FloatDType::F32, device)?;
    reports.push((weights.file.clone(), loaded.report));
    Ok((config, loaded.network))
}
