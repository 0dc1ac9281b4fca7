//! Generator passes and their gradients.
//!
//! The weights of the adversarial and of the alignment loss are ratios of gradients at the last
//! convolutions of decoder and encoder. So the graph is cut there, and at the latent and the
//! reconstruction; gradients are carried across the cuts, and each part is differentiated only as
//! often as a weight needs.

use tintype::burn::tensor::Tensor;
use tintype::model::vavae::Posterior;
use tintype::weights::{Flat, flat_gradients};

use super::{Networks, VaeLoss};
use crate::loss::vf::{Margins, alignment};
use crate::network::lpips::Perceptual;
use crate::network::patchgan::{PatchGan, generator_loss};
use crate::train::cuts::{gradient_at, leaf, ratio_of_norms};
use crate::train::recompute::add;

/// Inputs of a generator pass, `[B, …]` each.
pub struct Inputs<'a> {
    /// Images in −1…1.
    pub images: Tensor<4>,
    /// Noise of the posterior sample.
    pub eps: Tensor<4>,
    /// The teacher's features.
    pub features: Option<Tensor<4>>,
    /// LPIPS or another perceptual distance.
    pub perceptual: Option<Perceptual<'a>>,
}

/// Outputs of a generator pass.
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
    /// The discriminator with batch statistics updated by the reconstruction.
    pub discriminator: PatchGan,
}

/// `w·clamp(‖a‖/(‖b‖ + 1e-4), 0, max)`, off the graph.
///
/// # Shapes
///
/// * `a`, `b`: any
/// * returns `[1]`
pub fn adaptive<const D: usize>(a: Tensor<D>, b: Tensor<D>, w: f64, max: f64) -> Tensor<1> {
    ratio_of_norms(a, b, 1e-4, max) * w
}

/// A scalar off the graph, to multiply a tensor on it.
fn scalar<const D: usize>(x: &Tensor<1>) -> Tensor<D> {
    Tensor::from_inner(x.clone().reshape([1; D]))
}

/// The generator's half of a step, `step` counted as the reference does.
///
/// # Shapes
///
/// * `inputs`: images `[B, 3, H, W]`, noise `[B, C, h, w]`, features `[B, features, h, w]`
/// * returns the posterior sample `[B, C, h, w]` and the reconstruction `[B, 3, H, W]`
///
/// # Panics
///
/// If the inputs do not fit the networks or each other.
pub fn generator_pass(
    networks: &Networks,
    discriminator: &PatchGan,
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
    let nll = rec * (-loss.logvar).exp() + loss.logvar * pixels;
    let nll_gradients = nll.backward();
    let of_nll = gradient_at(&image, &nll_gradients);

    // The adversarial loss and its weight.
    let mut discriminator = discriminator.clone();
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
        let gradient = gradient_at(&image, &value.backward());
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
    // The gradient of `objective` at z; the decoder's gradients are accumulated on the way.
    let mut through_decoder = |image: Tensor<4>, z: &Tensor<4>, gradient: Tensor<4>| {
        let graph = (image * Tensor::from_inner(gradient)).sum().backward();
        add(&mut gradients, flat_gradients(&networks.decoder, &graph));
        gradient_at(z, &graph)
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
    let of_h = gradient_at(&h, &piece);
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
