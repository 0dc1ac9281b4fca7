//! VA-VAE's training (`vavae` §5–7; LDM's `LPIPSWithDiscriminator`): reconstruction and perceptual
//! loss, KL, PatchGAN and vision-foundation alignment, the last two weighed by gradients.
//!
//! The weights are ratios of gradients at the last convolutions of decoder and encoder. So the
//! graph is cut there, and at the latent and the reconstruction; gradients are carried across the
//! cuts, and each part is differentiated only as often as a weight needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn; // the derive names it
use tintype::burn::module::{AutodiffModule, Initializer, Module, Param};
use tintype::burn::tensor::module::conv2d;
use tintype::burn::tensor::ops::ConvOptions;
use tintype::burn::tensor::{Device, FloatDType, Gradients, Tensor};
use tintype::image::{Rgb, Rounding, to_rgb};
use tintype::model::vavae::{Posterior, VaeConfig, VaeDecoder, VaeEncoder};
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::{
    Flat, TensorView, Weights, Which, flat, flat_gradients, load, open, snapshot, with_flat,
};

use super::adamw::{AdamW, AdamWConfig, Group};
use super::checkpoint::TensorFile;
use super::comm::Comm;
use super::diffusion::fresh;
use super::host::Values;
use super::order::{Order, Place};
use super::prefetch::Prefetch;
use super::recompute::add;
use super::system::{Report, System};
use super::teacher::Teacher;
use crate::data::store::ImageStore;
use crate::loss::vf::{Margins, alignment};
use crate::network::lpips::Lpips;
use crate::network::patchgan::{PatchGan, PatchGanConfig, generator_loss, hinge_loss};

/// The settings of the losses; names are those of VA-VAE's YAML.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeLoss {
    /// Step from which the discriminator counts. As in the reference, steps of **both** optimizers
    /// are counted, two a batch.
    pub disc_start: u64,
    /// Weight of the adversarial loss, times its adaptive weight; 0 trains no discriminator.
    pub disc_weight: f64,
    /// Channels of the discriminator's first layer.
    pub disc_channels: usize,
    /// Weight of the divergence from N(0, 1).
    pub kl_weight: f64,
    /// Weight of LPIPS.
    pub perceptual_weight: f64,
    /// Weight of the alignment, times its adaptive weight.
    pub vf_weight: f64,
    /// Whether the alignment's weight adapts.
    pub adaptive_vf: bool,
    /// Slack of the alignment's similarity matrices.
    pub distmat_margin: f64,
    /// Slack of the alignment's cosines.
    pub cos_margin: f64,
    /// Side of random crops of larger images; 0 takes images whole.
    pub crop: usize,
}

impl Default for VaeLoss {
    fn default() -> Self {
        Self {
            disc_start: 5001,
            disc_weight: 0.5,
            disc_channels: 64,
            kl_weight: 1e-6,
            perceptual_weight: 1.0,
            vf_weight: 0.5,
            adaptive_vf: true,
            distmat_margin: 0.0,
            cos_margin: 0.0,
            crop: 0,
        }
    }
}

/// The 1×1 convolution, without bias, from latents to the teacher's features.
#[derive(Module, Debug)]
pub struct LinearProj {
    linear_proj: Projection,
}

#[derive(Module, Debug)]
struct Projection {
    /// `[features, C, 1, 1]`
    weight: Param<Tensor<4>>,
}

impl LinearProj {
    /// From `channels` to `features`, PyTorch's default start.
    pub fn new(channels: usize, features: usize, device: &Device) -> Self {
        let a = 1.0 / (channels as f64).sqrt();
        let weight = Initializer::Uniform { min: -a, max: a };
        Self { linear_proj: Projection { weight: weight.init([features, channels, 1, 1], device) } }
    }

    /// `[B, C, h, w]` → `[B, features, h, w]`
    pub fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        conv2d(z, self.linear_proj.weight.val(), None, options)
    }
}

/// Everything that learns.
#[derive(Clone, Debug)]
pub struct Networks {
    /// Image to moments.
    pub encoder: VaeEncoder,
    /// Latent to image.
    pub decoder: VaeDecoder,
    /// Latent to the teacher's features, where there is a teacher.
    pub proj: Option<LinearProj>,
    /// Real or not.
    pub discriminator: PatchGan,
}

impl Networks {
    /// The first weights of a seed.
    pub fn fresh(
        config: &VaeConfig,
        loss: &VaeLoss,
        features: Option<usize>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let gan = PatchGanConfig { ndf: loss.disc_channels, ..PatchGanConfig::VAVAE };
        type Never = std::convert::Infallible;
        let c = config.latent_channels();
        Ok(Self {
            encoder: fresh(|d| config.init_encoder(d), seed, device)?,
            decoder: fresh(|d| config.init_decoder(d), seed.wrapping_add(1), device)?,
            proj: match features {
                Some(f) => {
                    let init = |d: &Device| Ok::<_, Never>(LinearProj::new(c, f, d));
                    Some(fresh(init, seed.wrapping_add(2), device)?)
                }
                None => None,
            },
            discriminator: fresh(|d| Ok::<_, Never>(gan.init(d)), seed.wrapping_add(3), device)?,
        })
    }

    fn autoencoder_values(&self, which: Which) -> Flat {
        let mut all = flat(&self.encoder, which);
        all.extend(flat(&self.decoder, which));
        all.extend(self.proj.iter().flat_map(|proj| flat(proj, which)));
        all
    }

    fn with_autoencoder(self, values: &Flat) -> Self {
        Self {
            encoder: with_flat(self.encoder, values),
            decoder: with_flat(self.decoder, values),
            proj: self.proj.map(|proj| with_flat(proj, values)),
            discriminator: self.discriminator,
        }
    }

    fn autoencoder_gradients(&self, gradients: &Gradients) -> Flat {
        let mut all = flat_gradients(&self.encoder, gradients);
        all.extend(flat_gradients(&self.decoder, gradients));
        all.extend(self.proj.iter().flat_map(|proj| flat_gradients(proj, gradients)));
        all
    }

    fn autoencoder_tensors(&self) -> BTreeMap<String, TensorView> {
        let mut all = snapshot(&self.encoder);
        all.extend(snapshot(&self.decoder));
        all.extend(self.proj.iter().flat_map(snapshot));
        all
    }
}

/// A perceptual distance of two batches of images, `[B, 1, 1, 1]`.
pub type Perceptual<'a> = &'a dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>;

/// What a pass sees, `[B, …]` each.
pub struct Inputs<'a> {
    /// Images in −1…1.
    pub images: Tensor<4>,
    /// Noise of the posterior sample.
    pub eps: Tensor<4>,
    /// The teacher's features.
    pub features: Option<Tensor<4>>,
    /// LPIPS or what stands for it.
    pub perceptual: Option<Perceptual<'a>>,
}

/// What a generator pass gives.
#[derive(Debug)]
pub struct GeneratorPass {
    /// Losses and weights by name.
    pub values: Vec<(&'static str, Tensor<1>)>,
    /// Gradients of the autoencoder and the projection.
    pub gradients: Flat,
    /// The posterior sample.
    pub z: Tensor<4>,
    /// The projected sample.
    pub projected: Option<Tensor<4>>,
    /// The reconstruction, off the graph.
    pub reconstruction: Tensor<4>,
    /// The discriminator after it saw the reconstruction.
    pub discriminator: PatchGan,
}

/// A tensor as the beginning of a new graph.
fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.inner()).require_grad()
}

fn of<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Tensor<D> {
    x.grad(gradients).unwrap_or_else(|| x.clone().inner().zeros_like())
}

fn norm<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.square().sum().sqrt()
}

/// `w·clamp(‖a‖/(‖b‖ + 1e-4), 0, max)`, off the graph.
fn adaptive<const D: usize>(a: Tensor<D>, b: Tensor<D>, w: f64, max: f64) -> Tensor<1> {
    (norm(a) / (norm(b) + 1e-4)).clamp(0.0, max) * w
}

/// A scalar off the graph, to multiply a tensor on it.
fn scalar<const D: usize>(x: &Tensor<1>) -> Tensor<D> {
    Tensor::from_inner(x.clone().reshape([1; D]))
}

/// The generator's half of a step, `step` counted as the reference does.
pub fn generator_pass(
    networks: &Networks,
    inputs: Inputs<'_>,
    loss: &VaeLoss,
    step: u64,
) -> GeneratorPass {
    let Inputs { images, eps, features, perceptual } = inputs;
    let b = images.dims()[0] as f64;
    let adversarial = loss.disc_weight > 0.0 && step >= loss.disc_start;
    // Four pieces, cut at h (before the encoder's last convolution), z and the reconstruction.
    let h_graph = networks.encoder.features(images.clone());
    let h = leaf(h_graph.clone());
    let latent = || {
        let posterior = Posterior::from_moments(networks.encoder.moments_of_features(h.clone()));
        (posterior.sample(eps.clone()), posterior)
    };
    let z = leaf(latent().0);
    let f_graph = networks.decoder.features(z.clone());
    let image_graph = networks.decoder.image_of_features(f_graph.clone());
    let image = leaf(image_graph.clone());

    // Reconstruction: sums over everything but the batch.
    let difference = (images.clone() - image.clone()).abs();
    let mut rec = difference.clone().sum() * (1.0 / b);
    let pixels = difference.dims()[1..].iter().product::<usize>() as f64;
    let mut values = vec![];
    if let Some(perceptual) = perceptual {
        let distance = perceptual(images.clone(), image.clone());
        rec = rec + distance.clone().sum() * (loss.perceptual_weight * pixels / b);
        values.push(("perceptual", distance.mean().inner()));
    }
    let nll = rec;
    let nll_gradients = nll.backward();
    let of_nll = of(&image, &nll_gradients);

    // The discriminator's opinion and its weight.
    let mut discriminator = networks.discriminator.clone();
    let (mut g, mut of_g, mut d_weight) = (None, None, None);
    let last = |gradient: &Tensor<4>| {
        // Through the last convolution alone.
        let image = networks.decoder.image_of_features(leaf(f_graph.clone()));
        let gradients = (image * Tensor::from_inner(gradient.clone())).sum().backward();
        let name = "decoder.conv_out.weight";
        flat_gradients(&networks.decoder, &gradients).remove(name).expect("it has a last layer")
    };
    if loss.disc_weight > 0.0 {
        let (logits, next) = discriminator.train_forward(image.clone(), false);
        let value = generator_loss(logits);
        let gradient = of(&image, &value.backward());
        let weight = adaptive(last(&of_nll), last(&gradient), loss.disc_weight, 1e4);
        // Not counted before its start, though its weight is computed.
        of_g = adversarial.then(|| gradient * weight.clone().reshape([1; 4]));
        (g, d_weight, discriminator) = (Some(value.inner()), Some(weight), next);
    }

    // Alignment and its weight, at the encoder's last convolution.
    let mut gradients = Flat::new();
    let (mut vf, mut vf_weight, mut projected) = (None, None, None);
    let align = |z: Tensor<4>| {
        let (proj, features) = (networks.proj.as_ref()?, features.clone()?);
        let projected = proj.forward(z);
        let margins = Margins { distmat: loss.distmat_margin, cos: loss.cos_margin };
        let terms = alignment(projected.clone(), features, margins);
        Some((terms.distmat + terms.cos, projected))
    };
    // The gradient of `objective` at z, with the decoder's own gathered on the way.
    let mut through_decoder = |image: Tensor<4>, z: &Tensor<4>, gradient: Tensor<4>| {
        let graph = (image * Tensor::from_inner(gradient)).sum().backward();
        add(&mut gradients, flat_gradients(&networks.decoder, &graph));
        of(z, &graph)
    };
    let of_z = if features.is_some() && networks.proj.is_some() {
        let of_z = through_decoder(image_graph, &z, of_nll);
        let encoder_last = |objective: Tensor<1>| {
            let name = "encoder.conv_out.weight";
            flat_gradients(&networks.encoder, &objective.backward()).remove(name)
        };
        let (sample, _) = latent();
        let nll_last = encoder_last((sample * Tensor::from_inner(of_z.clone())).sum());
        let (sample, _) = latent();
        if let Some((value, p)) = align(sample) {
            let weight = match (loss.adaptive_vf, nll_last, encoder_last(value.clone())) {
                (true, Some(a), Some(b)) => adaptive(a, b, loss.vf_weight, 1e8),
                _ => value.clone().inner().zeros_like() + loss.vf_weight,
            };
            vf = Some(value.inner());
            vf_weight = Some(weight);
            projected = Some(p.inner());
        }
        match of_g {
            // A second pass through the decoder: the first one's graph is used up.
            Some(of_g) => {
                let z = leaf(z.clone());
                let image = networks.decoder.decode(z.clone());
                of_z + through_decoder(image, &z, of_g)
            }
            None => of_z,
        }
    } else {
        let of_image = match of_g {
            Some(of_g) => of_nll + of_g,
            None => of_nll,
        };
        through_decoder(image_graph, &z, of_image)
    };

    // The latent's piece and the encoder, for everything at once.
    let (sample, posterior) = latent();
    let kl = posterior.kl().sum() * (1.0 / b);
    let mut rest = (sample.clone() * Tensor::from_inner(of_z)).sum() + kl.clone() * loss.kl_weight;
    if let (Some(weight), Some((value, _))) = (&vf_weight, align(sample.clone())) {
        rest = rest + value * scalar::<1>(weight);
    }
    let piece = rest.backward();
    add(&mut gradients, networks.autoencoder_gradients(&piece));
    let of_h = of(&h, &piece);
    let encoder = (h_graph * Tensor::from_inner(of_h)).sum().backward();
    add(&mut gradients, flat_gradients(&networks.encoder, &encoder));

    let (nll, kl) = (nll.inner(), kl.inner());
    let mut total = nll.clone() + kl.clone() * loss.kl_weight;
    values.extend([("l1", difference.mean().inner()), ("nll", nll), ("kl", kl)]);
    if let (Some(g), Some(weight)) = (g, d_weight) {
        if adversarial {
            total = total + weight.clone() * g.clone();
        }
        values.extend([("g", g), ("d_weight", weight)]);
    }
    if let (Some(vf), Some(weight)) = (vf, vf_weight) {
        total = total + vf.clone() * weight.clone();
        values.extend([("vf", vf), ("vf_weight", weight)]);
    }
    values.insert(0, ("loss", total));
    GeneratorPass {
        values,
        gradients,
        z: sample.inner(),
        projected,
        reconstruction: image.inner(),
        discriminator,
    }
}

/// What a discriminator pass gives.
#[derive(Debug)]
pub struct DiscriminatorPass {
    /// Hinge loss, `[1]`; not yet multiplied by anything.
    pub loss: Tensor<1>,
    /// Mean logits of real images and reconstructions.
    pub logits: [Tensor<1>; 2],
    /// Gradients of the discriminator.
    pub gradients: Flat,
    /// The discriminator after it saw both.
    pub discriminator: PatchGan,
}

/// The discriminator's half of a step: real images, then the reconstructions of the generator's.
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

/// The networks that judge, each only where its files are given.
#[derive(Default)]
pub struct Judges {
    /// LPIPS; without it the loss is L1 alone.
    pub lpips: Option<Lpips>,
    /// The vision-foundation teacher; without it latents are not aligned.
    pub teacher: Option<Teacher>,
}

/// The autoencoder in training on one device.
pub struct VaeTraining {
    model: VaeConfig,
    loss: VaeLoss,
    networks: Networks,
    optimizers: [AdamW; 2],
    judges: Judges,
    images: Arc<ImageStore>,
    order: Arc<Order>,
    batch: usize,
    seed: u64,
    comm: Comm,
    device: Device,
    batches: Option<Prefetch<HostBatch>>,
}

struct HostBatch {
    images: Values<4>,
    eps: Values<4>,
    /// 8-bit planes for the teacher.
    bytes: Vec<u8>,
}

impl VaeTraining {
    /// Takes networks as they start.
    pub fn new(
        (model, loss): (VaeConfig, VaeLoss),
        networks: Networks,
        judges: Judges,
        optimizer: AdamWConfig,
        (images, order): (Arc<ImageStore>, Order),
        (batch, seed): (usize, u64),
        comm: Comm,
        device: &Device,
    ) -> Result<Self> {
        let side = if loss.crop > 0 { loss.crop } else { images.side() };
        ensure!(side <= images.side(), "loss.crop is larger than the images");
        ensure!(
            side.is_multiple_of(model.downsampling()),
            "images of {side} pixels do not divide by the autoencoder's {}",
            model.downsampling()
        );
        // Three halvings and two more 4×4 convolutions must leave a logit.
        ensure!(
            side >= 24 || loss.disc_weight == 0.0,
            "images of {side} pixels are too small for the discriminator, which needs 24; set loss.disc_weight = 0"
        );
        if judges.teacher.is_some() {
            ensure!(
                side / model.downsampling() == 16,
                "the teacher has 16×16 features and the latents of images of {side} pixels are {0}×{0}",
                side / model.downsampling()
            );
        }
        let adam = AdamW::new(optimizer, |_| Group::PLAIN);
        Ok(Self {
            model,
            loss,
            networks,
            optimizers: [adam.clone(), adam],
            judges,
            images,
            order: Arc::new(order),
            batch,
            seed,
            comm,
            device: device.clone(),
            batches: None,
        })
    }

    /// Takes up the networks of another stage; the optimizers start fresh, as in the reference.
    pub fn init_from(&mut self, path: &Path) -> Result<()> {
        let weights = open(path)?;
        self.take_autoencoder(&weights, true)?;
        let beside = path.join("discriminator.safetensors");
        let discriminator = match beside.exists() {
            true => Some(open(&beside)?),
            false => with_prefix(&weights, "loss.discriminator."),
        };
        if let Some(weights) = discriminator {
            self.take_discriminator(&weights)?;
        }
        Ok(())
    }

    fn take_autoencoder(&mut self, weights: &Weights, fresh_proj: bool) -> Result<()> {
        let part = |prefixes: &[&str]| {
            let mut part = weights.clone();
            part.tensors.retain(|name, _| prefixes.iter().any(|p| name.starts_with(p)));
            part
        };
        let (networks, device) = (self.networks.clone(), &self.device);
        let encoder = part(&["encoder.", "quant_conv."]);
        self.networks.encoder = load(networks.encoder, &encoder, FloatDType::F32, device)?.network;
        let decoder = part(&["decoder.", "post_quant_conv."]);
        self.networks.decoder = load(networks.decoder, &decoder, FloatDType::F32, device)?.network;
        if let Some(proj) = networks.proj {
            let linear = part(&["linear_proj."]);
            if !(fresh_proj && linear.tensors.is_empty()) {
                self.networks.proj = Some(load(proj, &linear, FloatDType::F32, device)?.network);
            }
        }
        Ok(())
    }

    fn take_discriminator(&mut self, weights: &Weights) -> Result<()> {
        let network = self.networks.discriminator.clone();
        self.networks.discriminator =
            load(network, weights, FloatDType::F32, &self.device)?.network;
        Ok(())
    }

    fn side(&self) -> usize {
        if self.loss.crop > 0 { self.loss.crop } else { self.images.side() }
    }

    fn next_batch(&mut self, step: u64) -> Result<HostBatch> {
        if self.batches.is_none() {
            let (images, order) = (self.images.clone(), self.order.clone());
            let (batch, seed, side) = (self.batch, self.seed, self.side());
            let share = self.comm.share(batch);
            let (c, f) = (self.model.latent_channels(), self.model.downsampling());
            self.batches = Some(Prefetch::new(move |number| {
                let places = order.batch(step + number, batch, share.clone());
                Ok(collate(&images, &places, seed, side, [c, side / f, side / f]))
            }));
        }
        match &self.batches {
            Some(batches) => batches.next(),
            None => bail!("the loader did not start"),
        }
    }

    /// The mean of gradients over devices, as data-parallel PyTorch takes it.
    fn mean(&self, gradients: Flat) -> Flat {
        let share = 1.0 / self.comm.world as f64;
        match self.comm.world {
            1 => gradients,
            _ => self.comm.sum(gradients).into_iter().map(|(n, g)| (n, g * share)).collect(),
        }
    }
}

fn collate(
    images: &ImageStore,
    places: &[Place],
    seed: u64,
    side: usize,
    latent: [usize; 3],
) -> HostBatch {
    let (mut bytes, mut eps) = (Vec::new(), Vec::new());
    for place in places {
        let key = ImageKey { seed, image: place.position };
        let room = (images.side() - side + 1) as f64;
        let corner = uniforms(key, Stream::Choice, 0, 2);
        let [top, left] = [0, 1].map(|axis| (corner[axis] * room) as usize);
        let pixels = images.pixels(place.item);
        for c in 0..3 {
            for y in top..top + side {
                let row = (y * images.side() + left) * 3;
                bytes.extend(pixels[row..row + 3 * side].iter().skip(c).step_by(3));
            }
        }
        eps.extend(normals(key, Stream::Posterior, 0, latent.iter().product()));
    }
    let values = bytes.iter().map(|&v: &u8| v as f32 / 127.5 - 1.0).collect();
    let [c, h, w] = latent;
    HostBatch {
        images: Values::new(values, [places.len(), 3, side, side]),
        eps: Values::new(eps, [places.len(), c, h, w]),
        bytes,
    }
}

/// The tensors below a prefix, if there are any.
fn with_prefix(weights: &Weights, prefix: &str) -> Option<Weights> {
    let mut part = weights.clone();
    part.tensors = weights
        .tensors
        .iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_string(), view.clone())))
        .collect();
    (!part.tensors.is_empty()).then_some(part)
}

impl System for VaeTraining {
    fn step(&mut self, step: u64) -> Result<Report> {
        let batch = self.next_batch(step)?;
        let features = match &self.judges.teacher {
            Some(teacher) => {
                Some(Tensor::from_inner(teacher.feature_map(&batch.bytes, self.side())))
            }
            None => None,
        };
        let images = batch.images.tensor(&self.device);
        let perceptual = self
            .judges
            .lpips
            .as_ref()
            .map(|lpips| move |a: Tensor<4>, b: Tensor<4>| lpips.forward(a, b));
        let inputs = Inputs {
            images: images.clone(),
            eps: batch.eps.tensor(&self.device),
            features,
            perceptual: perceptual.as_ref().map(|p| p as Perceptual<'_>),
        };
        let count = 2 * step; // of both optimizers, as the reference counts
        let pass = generator_pass(&self.networks, inputs, &self.loss, count);
        let gradients = self.mean(pass.gradients);
        let (names, tensors): (Vec<_>, Vec<_>) = pass.values.into_iter().unzip();
        let numbers = Tensor::cat(tensors, 0).into_data().convert::<f32>();
        let numbers: Vec<f64> = numbers.iter::<f64>().collect();
        let numbers = self.comm.sum_numbers(&numbers);
        let world = self.comm.world as f64;
        let mut values: Vec<(String, f64)> =
            names.iter().zip(numbers).map(|(n, v)| (n.to_string(), v / world)).collect();
        let lr = self.optimizers[0].config.lr_at(step);
        let finite = values.iter().all(|(_, v)| v.is_finite());
        if finite {
            let parameters = self.networks.autoencoder_values(Which::Trainable);
            let parameters = self.optimizers[0].update(parameters, &gradients, lr);
            self.networks = self.networks.clone().with_autoencoder(&parameters);
            self.networks.discriminator = pass.discriminator;
        }
        if finite && self.loss.disc_weight > 0.0 && count + 1 >= self.loss.disc_start {
            let pass =
                discriminator_pass(&self.networks.discriminator, images, pass.reconstruction);
            let gradients = self.mean(pass.gradients);
            let parameters = flat(&pass.discriminator, Which::Trainable);
            let parameters = self.optimizers[1].update(parameters, &gradients, lr);
            self.networks.discriminator = with_flat(pass.discriminator, &parameters);
            for (name, value) in [
                ("disc_loss", pass.loss),
                ("logits_real", pass.logits[0].clone()),
                ("logits_fake", pass.logits[1].clone()),
            ] {
                let value = value.into_data().convert::<f32>().iter::<f64>().next();
                values.push((name.into(), value.unwrap_or(f64::NAN)));
            }
        }
        values.push(("lr".into(), lr));
        Ok(Report { values, skipped: !finite })
    }

    fn save(&self) -> Result<Vec<TensorFile>> {
        let format = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let file = |name, tensors| TensorFile { name, tensors, metadata: format.clone() };
        let config = serde_json::to_string(&self.model)?;
        Ok(vec![
            TensorFile {
                name: "model.safetensors",
                tensors: self.networks.autoencoder_tensors(),
                metadata: BTreeMap::from([
                    ("format".to_string(), "pt".to_string()),
                    ("config".to_string(), config),
                ]),
            },
            file("discriminator.safetensors", snapshot(&self.networks.discriminator)),
            file("optimizer.safetensors", self.optimizers[0].to_tensors()),
            file("optimizer-discriminator.safetensors", self.optimizers[1].to_tensors()),
        ])
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        self.take_autoencoder(&open(&checkpoint.join("model.safetensors"))?, false)?;
        self.take_discriminator(&open(&checkpoint.join("discriminator.safetensors"))?)?;
        let device = self.device.clone().inner();
        let parameters = self.networks.autoencoder_values(Which::Trainable);
        let history = open(&checkpoint.join("optimizer.safetensors"))?;
        self.optimizers[0].restore(&history, &parameters, &device);
        let parameters = flat(&self.networks.discriminator, Which::Trainable);
        let history = open(&checkpoint.join("optimizer-discriminator.safetensors"))?;
        self.optimizers[1].restore(&history, &parameters, &device);
        Ok(())
    }

    /// The first eight images over their reconstructions.
    fn preview(&mut self) -> Result<Option<Rgb>> {
        let n = self.images.len().min(8);
        let places: Vec<Place> = (0..n)
            .map(|i| Place { item: i * self.images.len() / n, index: i, position: i as u64 })
            .collect();
        let side = self.side();
        let batch = collate(&self.images, &places, 0, side, [1, 1, 1]);
        let images = batch.images.tensor(&self.device.clone().inner());
        let mean = self.networks.encoder.valid().encode(images.clone()).mean;
        let decoded = self.networks.decoder.valid().decode(mean);
        let mut pictures = to_rgb(&images.into_data().convert::<f32>(), Rounding::Up);
        pictures.extend(to_rgb(&decoded.into_data().convert::<f32>(), Rounding::Up));
        Ok(Some(Rgb::grid(&pictures, n, 2)))
    }

    fn architecture(&self) -> Value {
        json!({ "vae": self.model, "disc_channels": self.loss.disc_channels,
                "aligned": self.networks.proj.is_some() })
    }

    fn macs(&self) -> f64 {
        macs(&self.model, self.side())
    }
}

/// Multiply-adds of encoding and decoding one square image: convolutions and attention.
pub fn macs(config: &VaeConfig, side: usize) -> f64 {
    let conv = |side: usize, c_in: usize, c_out: usize, k: usize| {
        (side * side * c_in * c_out * k * k) as f64
    };
    let block = |side: usize, c_in: usize, c_out: usize| {
        let skip = if c_in == c_out { 0.0 } else { conv(side, c_in, c_out, 1) };
        conv(side, c_in, c_out, 3) + conv(side, c_out, c_out, 3) + skip
    };
    let attention = |side: usize, c: usize| {
        let n = (side * side) as f64;
        4.0 * conv(side, c, c, 1) + 2.0 * n * n * c as f64
    };
    let levels = config.ch_mult.len();
    let width = |l: usize| config.ch * config.ch_mult[l];
    let attends = |l: usize| config.attn_resolutions.contains(&(config.resolution >> l));
    let (inner, small) = (width(levels - 1), side >> (levels - 1));
    let mid = 2.0 * block(small, inner, inner) + attention(small, inner);
    let (z, e) = (config.z_channels, config.latent_channels());
    let mut total = conv(side, config.in_channels, config.ch, 3)
        + conv(small, inner, 2 * z, 3)
        + conv(small, 2 * z, 2 * e, 1)
        + conv(small, e, z, 1)
        + conv(small, z, inner, 3)
        + conv(side, width(0), config.out_ch, 3)
        + 2.0 * mid;
    let mut c = config.ch;
    for l in 0..levels {
        let s = side >> l;
        for _ in 0..config.num_res_blocks {
            total += block(s, c, width(l));
            c = width(l);
            total += if attends(l) { attention(s, c) } else { 0.0 };
        }
        if l + 1 < levels {
            total += conv(s / 2, c, c, 3);
        }
    }
    let mut c = inner;
    for l in (0..levels).rev() {
        let s = side >> l;
        for _ in 0..=config.num_res_blocks {
            total += block(s, c, width(l));
            c = width(l);
            total += if attends(l) { attention(s, c) } else { 0.0 };
        }
        if l > 0 {
            total += conv(2 * s, c, c, 3);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_autoencoder_costs_what_was_counted() {
        let gflop = 2.0 * macs(&VaeConfig::f16d32(), 256) / 1e9;
        assert!((gflop - (137.94 + 252.19)).abs() < 0.1, "{gflop}");
    }
}
