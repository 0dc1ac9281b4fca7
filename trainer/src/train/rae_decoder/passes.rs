//! The generator's losses and their gradients.
//!
//! The weight of the adversarial loss is a ratio of gradients at the decoder's last layer. So the graph is cut at the
//! reconstruction, the last layer alone is differentiated for the weight, and the whole decoder once.

use tintype::burn::tensor::Tensor;
use tintype::model::rae::RaeDecoder;
use tintype::weights::{Flat, flat_gradients};

use super::RaeDecoderLoss;
use crate::network::lpips::Perceptual;
use crate::network::patchgan::{PatchGan, generator_loss};
use crate::train::cuts::{gradient_at, leaf, ratio_of_norms};
use crate::train::diff_augment::{Change, augmented};

/// The layer whose gradients are compared.
const LAST: &str = "decoder_pred.weight";
/// Added to the norm of the adversarial gradient.
const EPS: f64 = 1e-6;
/// The largest adaptive weight.
const MAX: f64 = 1e4;

/// Inputs of a generator pass.
pub struct Inputs<'a> {
    /// Images in 0…1.
    pub images: Tensor<4>,
    /// Their latents, noised.
    pub z: Tensor<4>,
    /// What happens to the reconstructions that the discriminator sees.
    pub changes: Vec<Change>,
    /// LPIPS or another perceptual distance.
    pub perceptual: Option<Perceptual<'a>>,
}

/// Outputs of a generator pass.
#[derive(Debug)]
pub struct GeneratorPass {
    /// Losses and weights by name.
    pub values: Vec<(&'static str, Tensor<1>)>,
    /// Gradients of the decoder.
    pub gradients: Flat,
}

/// From 0…1 to −1…1, in which loss networks see images.
pub(super) fn signed(x: Tensor<4>) -> Tensor<4> {
    x * 2.0 - 1.0
}

/// The generator's half of a step: `|x̂ − x| + w·LPIPS`, and from `disc_start` on `+ disc_weight·λ·g` with `g = −mean D(x̂)`
/// and `λ = ‖∇rec‖/‖∇g‖`. All are means over the batch.
///
/// The discriminator does not change here. Its norms take the statistics of the batch, as where it learns: those of the
/// authors' discriminator have no others.
///
/// # Shapes
///
/// * `inputs`: images `[B, 3, H, W]`, latents `[B, C, h, w]`
/// * returns losses and weights `[1]`, gradients `[n]` a name
///
/// # Panics
///
/// If the inputs do not fit the networks or each other.
pub fn generator_pass(
    decoder: &RaeDecoder,
    discriminator: &PatchGan,
    inputs: Inputs<'_>,
    loss: &RaeDecoderLoss,
    step: u64,
) -> GeneratorPass {
    let Inputs { images, z, changes, perceptual } = inputs;
    let features = decoder.features(z);
    let graph = decoder.image_of_features(features.clone()); // [B, 3, H, W]
    let image = leaf(graph.clone());

    let l1 = (image.clone() - images.clone()).abs().mean();
    let mut rec = l1.clone();
    let mut values = vec![("l1", l1.inner())];
    if let Some(perceptual) = perceptual {
        let distance = perceptual(signed(images), signed(image.clone())).mean();
        rec = rec + distance.clone() * loss.perceptual_weight;
        values.push(("perceptual", distance.inner()));
    }
    let mut of_image = gradient_at(&image, &rec.backward());
    let mut total = rec.inner();

    if loss.is_adversarial(step) {
        let seen = augmented(signed(image.clone()), &changes);
        let (logits, _) = discriminator.train_forward(seen, false);
        let g = generator_loss(logits);
        let of_g = gradient_at(&image, &g.backward());
        let last = |gradient: &Tensor<4>| {
            let image = decoder.image_of_features(leaf(features.clone()));
            let gradients = (image * Tensor::from_inner(gradient.clone())).sum().backward();
            flat_gradients(decoder, &gradients).remove(LAST).expect("it has a last layer")
        };
        let weight = ratio_of_norms(last(&of_image), last(&of_g), EPS, MAX) * loss.disc_weight;
        of_image = of_image + of_g * weight.clone().reshape([1; 4]);
        let g = g.inner();
        total = total + weight.clone() * g.clone();
        values.extend([("g", g), ("d_weight", weight)]);
    }
    let gradients = (graph * Tensor::from_inner(of_image)).sum().backward();
    values.insert(0, ("loss", total));
    GeneratorPass { values, gradients: flat_gradients(decoder, &gradients) }
}
