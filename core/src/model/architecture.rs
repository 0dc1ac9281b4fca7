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
use super::meanflow::MeanFlow;
use super::vavae::VaeConfig;
use crate::diffusion::guidance::Interval;
use crate::image::Rounding;
use crate::settings::{Sampler, Settings};
use crate::weights::{
    Report, Weights, WeightsError, compare, layout_in_order, load_for_inference,
    memory_for_inference, parameter_count,
};

/// Which end of a flow's clock is noise, as the network is told the time, which runs in 0…1.
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
        /// Smallest noise level σ, positive, for data in −1…1.
        sigma_min: f64,
        /// Largest noise level, where sampling begins; above `sigma_min`.
        sigma_max: f64,
    },
    /// Hi-DiT: a flow of latents on [`Clock::NoiseAtOne`], and of pixels too at times below the gate τ.
    Hybrid {
        /// The gate τ that it was trained with, 0 to 1 on [`Clock::NoiseAtOne`], which is the flow's clock.
        tau: f64,
    },
    /// iMF and pMF: the network predicts the average velocity of a flow on [`Clock::NoiseAtOne`] over a span of
    /// times, and guidance is one of its inputs.
    MeanFlow,
}

impl Process {
    /// Hi-DiT's gate τ.
    pub fn gate(self) -> Option<f64> {
        match self {
            Self::Hybrid { tau } => Some(tau),
            _ => None,
        }
    }

    /// Where sampling begins: time 1 on this library's clock (1 is noise), or the noise level `sigma_max`.
    pub fn start(self) -> f64 {
        match self {
            Self::Denoiser { sigma_max, .. } => sigma_max,
            _ => 1.0,
        }
    }

    /// The smallest guidance scale: 0, which leaves the class out, or 1 where guidance is an input of the network,
    /// which was trained with no other.
    pub fn least_guidance(self) -> f64 {
        match self {
            Self::MeanFlow => 1.0,
            _ => 0.0,
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

    /// The factor of an autoencoder's latents that the authors train with where no statistics are
    /// given, so that the latents have a standard deviation of about 1; their mean is taken for 0.
    /// `None` where statistics are needed or the weights hold them.
    fn latent_scale(&self, _autoencoder: &VaeConfig) -> Option<f64> {
        None
    }

    /// Number of classes; the label after the last is the null class, where there is one.
    fn num_classes(&self) -> usize;

    /// The label of unconditional prediction; `None` for a network without classes, and for one that was
    /// trained without class dropout.
    fn null_class(&self) -> Option<usize> {
        Some(self.num_classes()).filter(|n| *n > 0)
    }

    /// Whether it predicts with a class only, because it was trained without class dropout.
    fn needs_class(&self) -> bool {
        self.num_classes() > 0 && self.null_class().is_none()
    }

    /// What it predicts.
    fn process(&self) -> Process;

    /// Standard deviation of the noise at a flow's time 1, positive.
    fn noise_scale(&self) -> f64 {
        1.0
    }

    /// Where the last step of a flow ends, on this library's clock and before a time shift: above 0 where the authors
    /// stop early.
    fn last_time(&self) -> f64 {
        0.0
    }

    /// The time on this library's clock that a velocity `(z − x̂)/max(t, floor)` was divided by at least, of a flow
    /// whose network estimates the image x̂; 0 for others.
    fn time_floor(&self) -> f64 {
        0.0
    }

    /// Whether the ends of the guidance interval belong to it, and which evaluations ask.
    fn interval(&self) -> Interval {
        Interval::Closed
    }

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
    /// [`InvalidConfig`] if the configuration does not describe a network.
    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig>;
}

/// A network without weights. Every [`Module`] that is a [`Network`] is one.
pub trait Untrained {
    /// Parameters as the papers count them: with position tables, without buffers.
    fn parameter_count(&self) -> usize;

    /// The authors' name and the shape of every tensor, in the network's order.
    fn layout(&self) -> Vec<(String, Vec<usize>)>;

    /// Compares a checkpoint with the network, by names and shapes; reads no weight.
    fn compare(&self, weights: &Weights) -> Report;

    /// Bytes that the parameters take once [`load`](Self::load) has filled the network; reads no weight.
    fn memory(&self, weights: &Weights, precision: FloatDType, device: &Device) -> usize;

    /// Fills the network, which was made on `device`, in the given precision, for inference
    /// ([`load_for_inference`]).
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Mismatch`] if tensors are missing or have another shape
    /// * [`WeightsError::NotFinite`] if a weight is NaN or infinite
    /// * [`WeightsError::Io`] if the file cannot be read
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

    fn layout(&self) -> Vec<(String, Vec<usize>)> {
        layout_in_order(self)
    }

    fn compare(&self, weights: &Weights) -> Report {
        compare(self, weights)
    }

    fn memory(&self, weights: &Weights, precision: FloatDType, device: &Device) -> usize {
        memory_for_inference(self, weights, precision, device)
    }

    fn load(
        self: Box<Self>,
        weights: &Weights,
        precision: FloatDType,
        device: &Device,
    ) -> Result<(Arc<dyn Network>, Report), WeightsError> {
        let loaded = load_for_inference(*self, weights, precision, device)?;
        Ok((Arc::new(loaded.network), loaded.report))
    }
}

/// A loaded network.
pub trait Network: Debug + Send + Sync {
    /// What the network predicts at a state: the velocity on its own [`Clock`], or the denoised
    /// image.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`, in the network's precision for flows; in float32 for denoisers, and where there is a
    ///   [`time_floor`](DiffusionModel::time_floor)
    /// * `times`: `[B]` in float32, times on its own clock or noise levels
    /// * `labels`: `[B]`, each a class or the null class; ignored by a network without classes
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4>;

    /// Undoes the normalisation of latents by statistics in the network's own weights.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns the same
    fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        z
    }

    /// The network of a [`Process::Hybrid`], for its second stream.
    fn hybrid(&self) -> Option<&HiDiT> {
        None
    }

    /// The network of a [`Process::MeanFlow`], for steps over a span of times. It predicts the velocity at one time
    /// without guidance.
    fn mean_flow(&self) -> Option<Arc<dyn MeanFlow>> {
        None
    }
}

/// A kind of network: how its checkpoints are recognised.
#[derive(Debug)]
pub struct Family {
    /// The name of the network.
    pub name: &'static str,
    /// Its configuration, from the checkpoint's metadata (key `config`) or from names and shapes; `None` if
    /// the tensors are not those of this family. Fails where they are, but tell of no network.
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
