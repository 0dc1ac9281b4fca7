//! The discriminator of an autoencoder's training with its optimizer: a PatchGAN that learns by the hinge loss.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::shaders::StepGuard;
use tintype::weights::{
    Flat, Weights, Which, flat, flat_gradients, load, open, snapshot, take_flat, with_flat,
};

use super::adamw::{AdamW, AdamWConfig, Group, guard, norm};
use super::checkpoint::TensorFile;
use super::comm::{Comm, CommError};
use super::diffusion::fresh;
use super::init::DISCRIMINATOR;
use crate::network::patchgan::{PatchGan, PatchGanConfig, hinge_loss};

/// The file with the moments of its optimizer.
const OPTIMIZER: &str = "optimizer-discriminator.safetensors";

/// What the names of its weights begin with among those of a trainer.
const WEIGHTS: &str = "discriminator.";

/// Outputs of a discriminator pass.
#[derive(Debug)]
pub struct DiscriminatorPass {
    /// Hinge loss, `[1]`, unweighted.
    pub loss: Tensor<1>,
    /// Mean logits of real images and reconstructions.
    pub logits: [Tensor<1>; 2],
    /// Gradients of the discriminator.
    pub gradients: Flat,
    /// The discriminator with batch statistics updated by both.
    pub discriminator: PatchGan,
}

/// The discriminator's half of a step: real images, then reconstructions, which are off the graph.
///
/// # Shapes
///
/// * `images`, `reconstruction`: `[B, 3, H, W]`
/// * returns the loss and the mean logits, `[1]` each
///
/// # Panics
///
/// If the images are too small for the discriminator.
pub fn discriminator_pass(
    discriminator: &PatchGan,
    images: Tensor<4>,
    reconstruction: Tensor<4>,
) -> DiscriminatorPass {
    let (real, next) = discriminator.train_forward(images, false);
    let (fake, next) = next.train_forward(Tensor::from_inner(reconstruction), false);
    let logits = [real.clone().mean().inner(), fake.clone().mean().inner()];
    let loss = hinge_loss(real, fake);
    let gradients = flat_gradients(discriminator, &loss.backward());
    DiscriminatorPass { loss: loss.inner(), logits, gradients, discriminator: next }
}

/// What a discriminator will learn from a batch, over all devices.
#[derive(Debug)]
pub struct Lesson {
    /// Loss, mean logits and the gradients' norm by name.
    pub values: Vec<(String, f64)>,
    /// Whether a rank was asked to stop.
    pub stop: bool,
    gradients: Flat,
    guard: StepGuard,
    network: PatchGan,
}

impl Lesson {
    /// The lesson of real images and of reconstructions, as [`discriminator_pass`] takes them. All ranks call it.
    ///
    /// * `max_norm`: its gradients are clipped to
    ///
    /// # Shapes
    ///
    /// * `images`, `reconstruction`: `[B, 3, H, W]` in −1…1
    ///
    /// # Errors
    ///
    /// If another rank cannot be reached.
    ///
    /// # Panics
    ///
    /// If the images are too small for the discriminator.
    pub fn new(
        discriminator: &PatchGan,
        images: Tensor<4>,
        reconstruction: Tensor<4>,
        comm: &Comm,
        max_norm: Option<f64>,
    ) -> Result<Self, CommError> {
        let pass = discriminator_pass(discriminator, images, reconstruction);
        let [real, fake] = pass.logits;
        let losses = vec![("disc_loss", pass.loss), ("logits_real", real), ("logits_fake", fake)];
        let (mut values, stop) = comm.mean_losses(losses)?;
        let gradients = comm.mean(pass.gradients)?;
        let guard = guard(&gradients, None, max_norm);
        values.push(("disc_grad_norm".into(), norm(&guard.read())));
        Ok(Self { values, stop, gradients, guard, network: pass.discriminator })
    }

    /// Whether all of it is finite; the same on all ranks.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|(_, value)| value.is_finite())
    }
}

/// A discriminator and its optimizer.
#[derive(Clone, Debug)]
pub struct Adversary {
    /// The discriminator.
    pub network: PatchGan,
    optimizer: AdamW,
}

impl Adversary {
    /// A discriminator that has learned nothing yet.
    pub fn new(network: PatchGan, optimizer: AdamWConfig) -> Self {
        Self { network, optimizer: AdamW::new(optimizer, |_| Group::PLAIN) }
    }

    /// One optimizer step.
    pub fn learn(&mut self, lesson: Lesson, lr: f64) {
        let Lesson { gradients, guard, mut network, .. } = lesson;
        let parameters = take_flat(&mut network);
        let parameters = self.optimizer.update(parameters, gradients, &guard, &mut [], lr);
        self.network = with_flat(network, &parameters);
    }

    /// Its files of a checkpoint.
    pub fn files(&self) -> [TensorFile; 2] {
        let format = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let network = snapshot(&self.network);
        let (moments, metadata) = (self.optimizer.to_tensors(), self.optimizer.metadata());
        [
            TensorFile { name: DISCRIMINATOR, tensors: network, metadata: format },
            TensorFile { name: OPTIMIZER, tensors: moments, metadata },
        ]
    }

    /// Its weights, `[n]` a name, which begins with `discriminator.`.
    pub fn weights(&self, which: Which) -> Flat {
        let named = |(name, value)| (format!("{WEIGHTS}{name}"), value);
        flat(&self.network, which).into_iter().map(named).collect()
    }

    /// Takes those of [`weights`](Self::weights) among others.
    pub fn set_weights(&mut self, weights: &Flat) {
        let own = weights.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix(WEIGHTS)?.to_string(), value.clone()))
        });
        self.network = with_flat(self.network.clone(), &own.collect());
    }

    /// The norm that its gradients are clipped to.
    pub fn max_norm(&self) -> Option<f64> {
        self.optimizer.config.max_grad_norm
    }

    /// Takes the discriminator of a file.
    ///
    /// # Errors
    ///
    /// If a tensor is missing, has another shape, cannot be read or is not finite.
    pub fn take(&mut self, weights: &Weights, device: &Device) -> Result<()> {
        let network = self.network.clone();
        self.network = load(network, weights, FloatDType::F32, device)?.network;
        Ok(())
    }

    /// Restores both from a checkpoint.
    ///
    /// # Errors
    ///
    /// If a file is missing, cannot be read or does not fit.
    pub fn restore(&mut self, checkpoint: &Path, device: &Device) -> Result<()> {
        self.take(&open(&checkpoint.join(DISCRIMINATOR))?, device)?;
        let parameters = flat(&self.network, Which::Trainable);
        let history = open(&checkpoint.join(OPTIMIZER))?;
        Ok(self.optimizer.restore(&history, &parameters, &device.clone().inner())?)
    }
}

/// An untrained PatchGAN of three layers, the first of so many channels.
///
/// # Errors
///
/// If there are none.
pub fn fresh_discriminator(channels: usize, seed: u64, device: &Device) -> Result<PatchGan> {
    ensure!(channels > 0, "loss.disc_channels must be at least 1");
    let config = PatchGanConfig { ndf: channels, ..PatchGanConfig::VAVAE };
    fresh(|device| Ok::<_, std::convert::Infallible>(config.init(device)), seed, device)
}
