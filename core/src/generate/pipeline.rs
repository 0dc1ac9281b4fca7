//! Networks, statistics and labels, loaded and ready to generate.

use std::sync::{Arc, Mutex};

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use super::GenerateError;
use super::decoding::decode;
use super::guide::{Guide, guide_of};
use super::latent_stats::LatentStats;
use super::load::{LoadError, Parts, check_parts, image_size, load_decoder, statistics};
use super::replay::{Inputs, Replay};
use super::second_half::SecondHalf;
use crate::device::state_dtype;
use crate::image::{Rgb, Rounding, to_rgb};
use crate::labels::Labels;
use crate::model::{Architecture, Autoencoder, Decoder, Network, detect};
use crate::precision::Precision;
use crate::sampler::{State, Stop, read_finite};
use crate::weights::{Report, WeightsError};

/// Everything that is needed to generate.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) network: Arc<dyn Network>,
    pub(super) architecture: Architecture,
    pub(super) decoder: Option<(Autoencoder, Decoder)>,
    pub(super) guide: Option<Guide>,
    pub(super) second_half: Option<SecondHalf>,
    pub(super) stats: Option<LatentStats>,
    pub(super) device: Device,
    pub(super) precision: FloatDType,
    replay: Mutex<Replay>,
    labels: Labels,
    reports: Vec<(String, Report)>,
}

impl Pipeline {
    /// Loads networks in the given precision. The autoencoder always runs in float32.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Weights`] where the network or its configuration is unknown, tensors do not
    ///   fit, or a weight is not finite or cannot be read
    /// * [`LoadError::NoVae`] and [`LoadError::NoStats`] where a latent model lacks its autoencoder
    ///   or its statistics
    /// * [`LoadError::IncompatibleParts`] where the files are of different models, or the guide is a network of
    ///   another kind
    pub fn load(
        parts: Parts<'_>,
        precision: FloatDType,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let architecture = detect(parts.model)?;
        let guiding = guide_of(&architecture, parts)?;
        let untrained = architecture.untrained(device).map_err(WeightsError::Config)?;
        let (network, report) = untrained.load(parts.model, precision, device)?;
        let mut reports = vec![(parts.model.file.clone(), report)];
        let decoder = match parts.vae {
            Some(weights) => Some(load_decoder(weights, device, &mut reports)?),
            None => None,
        };
        let autoencoder = decoder.as_ref().map(|(config, _)| config);
        let stats = statistics(&architecture, autoencoder, parts)?;
        check_parts(&architecture, autoencoder, stats.as_ref())?;
        let guide = match (guiding, parts.guide) {
            (Some(guiding), Some(weights)) => {
                let (guide, report) = Guide::load(guiding, weights, precision, device)?;
                reports.push((weights.file.clone(), report));
                Some(guide)
            }
            _ => None,
        };
        let labels = Labels::of(parts.model, architecture.num_classes());
        Ok(Self {
            network,
            decoder,
            guide,
            second_half: None,
            stats,
            device: device.clone(),
            precision,
            replay: Mutex::default(),
            labels,
            reports,
            architecture,
        })
    }

    /// What the network is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// What the network of autoguidance is, where there is one.
    pub fn guide(&self) -> Option<&Architecture> {
        self.guide.as_ref().map(|guide| &guide.architecture)
    }

    /// The classes it knows.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The time, 0 to 1 (noise), below which a Hi-DiT's pixel stream is active; `None` for other networks.
    pub fn gate(&self) -> Option<f64> {
        self.architecture.process().gate()
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
        image_size(&self.architecture, self.decoder.as_ref().map(|(config, _)| config))
    }

    /// Reads images in −1…1 back and makes bytes of them as the authors do.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, C, H, W]`
    ///
    /// # Errors
    ///
    /// * [`Stop::NotFinite`] where a value is NaN or infinite
    /// * [`Stop::Device`] where the device cannot be read
    pub async fn pictures(&self, images: Tensor<4>) -> Result<Vec<Rgb>, Stop> {
        Ok(to_rgb(&read_finite(images).await?, self.rounding()))
    }

    /// How the authors of the network make bytes of its pictures.
    pub fn rounding(&self) -> Rounding {
        self.architecture.rounding()
    }

    /// Decodes latents in normalised space, to float32; without an autoencoder it only undoes the normalisation.
    /// As many images are decoded at once as a GPU's largest buffers take; the result is the same.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 3, H, W]`, about −1…1
    ///
    /// # Panics
    ///
    /// If C is not the number of latent channels, or `z` is on another device.
    pub fn decode(&self, z: State) -> Tensor<4> {
        let z = z.cast(FloatDType::F32);
        let z = match &self.stats {
            Some(stats) => stats.denormalize(z),
            None => self.network.denormalize(z),
        };
        match &self.decoder {
            Some((config, decoder)) => decode(config, decoder, z),
            None => z,
        }
    }

    /// Latent channels, where the network works on latents.
    pub fn latent_channels(&self) -> Option<usize> {
        self.architecture.latent_space().map(|latents| latents.channels)
    }

    /// Shape of one image's state.
    pub(super) fn state_shape(&self) -> [usize; 3] {
        self.architecture.state_shape()
    }

    /// A prediction as the sampler wants it.
    pub(super) fn to_state(&self, x: Tensor<4>) -> State {
        x.cast(state_dtype(&self.device))
    }

    /// The network of this pipeline at these inputs: of small batches, recorded where that pays. `gate` is the
    /// time of the gate that it has, where it asks it.
    pub(super) fn evaluate(
        &self,
        inputs: Inputs,
        gate: Option<f64>,
        network: impl Fn(Inputs) -> Vec<Tensor<4>> + Send + 'static,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        self.replayed(&self.replay, inputs, gate, network)
    }

    /// [`evaluate`](Self::evaluate) of a guide.
    pub(super) fn evaluate_guide(
        &self,
        guide: &Guide,
        inputs: Inputs,
        gate: Option<f64>,
        network: impl Fn(Inputs) -> Vec<Tensor<4>> + Send + 'static,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        self.replayed(&guide.replay, inputs, gate, network)
    }

    fn replayed(
        &self,
        replay: &Mutex<Replay>,
        inputs: Inputs,
        gate: Option<f64>,
        network: impl Fn(Inputs) -> Vec<Tensor<4>> + Send + 'static,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        if !Replay::is_worthwhile(&self.device, inputs.times.dims()[0]) {
            return Ok(network(inputs));
        }
        let mut replay = replay.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        replay.run(inputs, gate, network)
    }

    /// The error of a run whose values were not finite.
    pub(super) fn not_finite(&self) -> GenerateError {
        let precision = Precision::of(self.precision);
        let reaches = |wider: &Precision| wider.on(&self.device).is_ok();
        let instead = precision.wider().iter().copied().filter(reaches).collect();
        GenerateError::NotFinite { precision, instead }
    }

    /// One time for every sample, `[n]` in float32. A kernel fills it: an upload would split the commands that a GPU
    /// is handed.
    pub(super) fn times(&self, t: f64, n: usize) -> Tensor<1> {
        Tensor::full([n], t as f32, (&self.device, DType::F32))
    }

    /// Labels of a batch and, behind them, for its guided images those of the second half: null labels, or the same
    /// ones for a guide.
    pub(super) fn labels_tensor(
        &self,
        classes: &[Option<usize>],
        guided: &[usize],
    ) -> Tensor<1, Int> {
        // A network without a null class is asked for classes alone; one without classes ignores labels.
        let null = self.architecture.null_class().unwrap_or(0);
        let label = |class: &Option<usize>| class.unwrap_or(null) as i32;
        let mut values: Vec<i32> = classes.iter().map(label).collect();
        values.extend(guided.iter().map(|&image| match self.guide {
            Some(_) => label(&classes[image]),
            None => null as i32,
        }));
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &self.device)
    }
}
