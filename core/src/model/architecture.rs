//! What the library asks of a network: everything that is one network's own, behind two traits.
//!
//! A [`DiffusionModel`] is a configuration: what can be said before any weight is read. Its [`Untrained`] network
//! takes a checkpoint's weights and becomes a [`Network`], which predicts. A [`Family`] recognises a configuration
//! in a checkpoint.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor};

use super::InvalidConfig;
use super::hidit::HiDiT;
use crate::image::Rounding;
use crate::settings::{Sampler, Settings};
use crate::weights::{Report, Weights, WeightsError, compare, load, parameter_count};

/// Which end of a flow's clock is noise, as the network is told the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// t = 0 is data, t = 1 is noise: this library's clock. The velocity points to the noise.
    NoiseAtOne,
    /// t = 0 is noise, t = 1 is data. The velocity points to the data.
    NoiseAtZero,
}

/// How images come out of noise: what the network predicts, and what a sampler integrates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// A flow: the network predicts a velocity at time t.
    Flow(Clock),
    /// Karras et al.: the network predicts the denoised image at noise level σ.
    Denoiser {
        /// Smallest noise level.
        sigma_min: f64,
        /// Largest noise level, where sampling begins.
        sigma_max: f64,
    },
    /// Hi-DiT: a flow of latents, and of pixels too at times below the gate τ.
    Hybrid {
        /// The gate τ that it was trained with, 0 to 1.
        tau: f64,
    },
}

impl Process {
    /// Hi-DiT's gate τ.
    pub fn gate(self) -> Option<f64> {
        match self {
            Self::Hybrid { tau } => Some(tau),
            _ => None,
        }
    }

    /// Time (or noise level) at which sampling begins.
    pub fn start(self) -> f64 {
        match self {
            Self::Denoiser { sigma_max, .. } => sigma_max,
            _ => 1.0,
        }
    }
}

/// The latents that a network works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentSpace {
    /// Channels.
    pub channels: usize,
    /// Whether their statistics come in a file of their own; else the network's weights hold them.
    pub needs_statistics: bool,
}

/// A network by its configuration.
pub trait DiffusionModel: Any + Debug + Send + Sync {
    /// The name of the network, as its paper has it.
    fn name(&self) -> &'static str;

    /// The configuration as JSON.
    fn config(&self) -> serde_json::Value;

    /// Shape `[C, H, W]` of one image's state: latents, or pixels.
    fn state_shape(&self) -> [usize; 3];

    /// The latents it works on; `None` for a network on pixels.
    fn latent_space(&self) -> Option<LatentSpace>;

    /// Width and height of the images, where they do not follow from the autoencoder.
    fn image_size(&self) -> Option<[usize; 2]> {
        let [_, h, w] = self.state_shape();
        self.latent_space().is_none().then_some([w, h])
    }

    /// Number of classes; the label after the last is the null class.
    fn num_classes(&self) -> usize;

    /// The label of unconditional prediction; `None` for a network without classes.
    fn null_class(&self) -> Option<usize> {
        Some(self.num_classes()).filter(|n| *n > 0)
    }

    /// What it predicts.
    fn process(&self) -> Process;

    /// The samplers that fit it.
    fn samplers(&self) -> &'static [Sampler];

    /// What its authors sample with.
    fn default_settings(&self) -> Settings;

    /// How its authors make 8-bit images.
    fn rounding(&self) -> Rounding {
        Rounding::Half
    }

    /// The network before its weights: usually `Ok(Box::new(self.init(device)?))`. Parameters are lazy, so
    /// this computes nothing.
    ///
    /// # Errors
    ///
    /// The configuration does not describe a network.
    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig>;
}

/// A network without weights. Every [`Module`] that is a [`Network`] is one.
pub trait Untrained {
    /// Parameters as the papers count them: with position tables, without buffers.
    fn parameter_count(&self) -> usize;

    /// Compares a checkpoint with the network, by names and shapes; reads no weight.
    fn compare(&self, weights: &Weights) -> Report;

    /// Fills the network, which was made on `device`, in the given precision.
    ///
    /// # Errors
    ///
    /// Tensors that are missing, have another shape or hold a value that is not finite.
    fn load(
        self: Box<Self>,
        weights: &Weights,
        precision: FloatDType,
        device: &Device,
    ) -> Result<(Arc<dyn Network>, Report), WeightsError>;
}

impl<M: Module + Network + 'static> Untrained for M {
    fn parameter_count(&self) -> usize {
        parameter_count(self)
    }

    fn compare(&self, weights: &Weights) -> Report {
        compare(self, weights)
    }

    fn load(
        self: Box<Self>,
        weights: &Weights,
        precision: FloatDType,
        device: &Device,
    ) -> Result<(Arc<dyn Network>, Report), WeightsError> {
        let loaded = load(*self, weights, precision, device)?;
        Ok((Arc::new(loaded.network), loaded.report))
    }
}

/// A loaded network.
pub trait Network: Debug + Send + Sync {
    /// What the network predicts at a state: the velocity on its own [`Clock`], or the denoised image.
    ///
    /// * `x`: `[B, C, H, W]`, in the network's precision for flows, in float32 for denoisers
    /// * `times`: `[B]` in float32, times or noise levels
    /// * `labels`: `[B]`; ignored by a network without classes
    ///
    /// Returns `[B, C, H, W]`.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4>;

    /// Undoes the normalisation of latents `[B, C, h, w]` by statistics in the network's own weights.
    fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        z
    }

    /// The network of a [`Process::Hybrid`], for its second stream.
    fn hybrid(&self) -> Option<&HiDiT> {
        None
    }
}

/// A kind of network: how its checkpoints are recognised.
#[derive(Debug)]
pub struct Family {
    /// The name of the network.
    pub name: &'static str,
    /// Its configuration, from the checkpoint's metadata (key `config`) or from names and shapes; `None` if
    /// the tensors are not those of this family.
    pub recognize: fn(&Weights) -> Result<Option<Architecture>, WeightsError>,
}

/// A network of any kind, by its configuration.
#[derive(Clone, Debug)]
pub struct Architecture(Arc<dyn DiffusionModel>);

impl Architecture {
    /// The configuration, if it is one of this type.
    pub fn downcast<M: DiffusionModel>(&self) -> Option<&M> {
        let model: &dyn Any = &*self.0;
        model.downcast_ref()
    }
}

impl<M: DiffusionModel> From<M> for Architecture {
    fn from(model: M) -> Self {
        Self(Arc::new(model))
    }
}

impl Deref for Architecture {
    type Target = dyn DiffusionModel;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.config() == other.config()
    }
}
