//! The generator's pass against its equations, and steps in which the gradients of one network alone are not finite.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tintype::burn::tensor::{Device, Tensor};
use tintype::model::rae::RaeDecoderConfig;
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::{Flat, Which, flat, flat_gradients, snapshot, write_safetensors};

use super::batch::Noise;
use super::training::levels;
use super::{
    FrozenEncoder, Inputs, Networks, RaeDecoderLoss, RaeDecoderTraining, check_data, generator_pass,
};
use crate::network::patchgan::generator_loss;
use crate::train::adamw::{AdamWConfig, norm_of};
use crate::train::adversary::fresh_discriminator;
use crate::train::comm::Comm;
use crate::train::diff_augment::{Change, Look, augmented};
use crate::train::diffusion::fresh;
use crate::train::ema::EmaConfig;
use crate::train::epoch_sampler::EpochSampler;
use crate::train::host::Values;
use crate::train::trainer::Trainer;
use crate::train::vae::tests::{IMAGES, SIDE, numbers, store, with_large_activations};
use tintype::model::dinov2::DinoConfig;

const CHANNELS: usize = 64;
const LAST: &str = "decoder_pred.weight";

/// A decoder of images of 24 pixels.
fn model() -> RaeDecoderConfig {
    let config = json!({
        "latent_channels": CHANNELS,
        "grid": 2,
        "patch_size": 12,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 24,
    });
    serde_json::from_value(config).expect("a configuration")
}

fn number(x: &Tensor<1>) -> f64 {
    x.to_data().iter::<f64>().next().expect("one number")
}

#[test]
fn the_pass_has_the_gradients_of_the_weighed_losses() {
    let device = Device::flex().autodiff();
    let decoder = fresh(|d| model().init(d), 1, &device).expect("a decoder");
    let discriminator = fresh_discriminator(4, 2, &device).expect("a discriminator");
    let key = ImageKey::new(3, 0);
    let pixels = uniforms(key, Stream::Choice, 0, 2 * 3 * SIDE * SIDE);
    let pixels = pixels.into_iter().map(|u| u as f32).collect();
    let images: Tensor<4> = Values::new(pixels, [2, 3, SIDE, SIDE]).tensor(&device);
    let latents = normals(key, Stream::Noise, 0, 2 * CHANNELS * 4);
    let z: Tensor<4> = Values::new(latents, [2, CHANNELS, 2, 2]).tensor(&device);
    let changes: Vec<Change> =
        (0..2).map(|i| Change::drawn(ImageKey::new(4, i), Look::Generator, SIDE)).collect();
    let stand_in = |a: Tensor<4>, b: Tensor<4>| (a - b).square().mean_dims(&[1, 2, 3]);
    let loss = RaeDecoderLoss { perceptual_weight: 0.7, disc_start: 3, ..Default::default() };

    // Each loss by itself, through the whole decoder.
    let image = || decoder.forward(z.clone());
    let signed = |x: Tensor<4>| x * 2.0 - 1.0;
    let reconstruction = || {
        let image = image();
        let distance = stand_in(signed(images.clone()), signed(image.clone()));
        (image - images.clone()).abs().mean() + distance.mean() * 0.7
    };
    let of_rec = flat_gradients(&decoder, &reconstruction().backward());
    let seen = augmented(signed(image()), &changes);
    let g = generator_loss(discriminator.train_forward(seen, false).0);
    let of_g = flat_gradients(&decoder, &g.backward());
    let norm =
        |gradients: &Flat| norm_of(&Flat::from([(LAST.to_string(), gradients[LAST].clone())]));
    let lambda = (norm(&of_rec) / (norm(&of_g) + 1e-6)).min(1e4);
    assert!(lambda > 0.0 && lambda < 1e4, "{lambda}");

    for (step, weight) in [(2, 0.0), (3, 0.75 * lambda)] {
        let inputs = Inputs {
            images: images.clone(),
            z: z.clone(),
            changes: changes.clone(),
            perceptual: Some(&stand_in),
        };
        let pass = generator_pass(&decoder, &discriminator, inputs, &loss, step);
        let value = |name: &str| {
            pass.values.iter().find(|(found, _)| *found == name).map(|(_, value)| number(value))
        };
        let near = |found: Option<f64>, expected: f64| {
            let found = found.expect("it is there");
            assert!((found - expected).abs() < 1e-3 * expected.abs(), "{found} and {expected}");
        };
        let (rec, g) = (number(&reconstruction().inner()), number(&g.clone().inner()));
        near(value("loss"), rec + weight * g);
        match step {
            2 => assert_eq!((value("g"), value("d_weight")), (None, None)),
            _ => {
                near(value("g"), g);
                near(value("d_weight"), weight);
            }
        }
        let size = norm_of(&pass.gradients);
        assert!(size > 0.0);
        let trained = flat(&decoder, Which::Trainable);
        assert_eq!(
            pass.gradients.keys().collect::<Vec<_>>(),
            trained.keys().collect::<Vec<_>>(),
            "all of it learns"
        );
        for (name, found) in &pass.gradients {
            let expected = of_rec[name].clone() + of_g[name].clone() * weight;
            let apart = norm_of(&Flat::from([(name.clone(), found.clone() - expected)]));
            assert!(apart < 1e-3 * size, "{name}: {apart} of {size}");
        }
    }
}

#[test]
fn fakes_have_the_levels_of_images() {
    let device = Device::flex();
    let values = vec![-0.3, 0.0, 0.4 / 255.0, 0.6 / 255.0, 100.0 / 255.0, 254.9 / 255.0, 1.0, 1.7];
    let found = levels(Values::new(values, [1, 2, 2, 2]).tensor(&device)).into_data();
    let found: Vec<f32> = found.iter::<f32>().map(|v| v * 255.0).collect();
    for (found, expected) in found.iter().zip([0.0, 0.0, 0.0, 1.0, 100.0, 255.0, 255.0, 255.0]) {
        assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
    }
}

#[test]
fn noise_belongs_to_an_image() {
    let keys: Vec<ImageKey> = (0..60).map(|image| ImageKey::new(9, image)).collect();
    let all = Noise::drawn(&keys, [16, 8, 8]);
    assert_eq!(all.eps.shape, [60, 16, 8, 8]);
    let one = Noise::drawn(&keys[7..8], [16, 8, 8]);
    assert_eq!((one.u[0], &one.eps.values[..]), (all.u[7], &all.eps.values[7 * 1024..8 * 1024]));
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    assert!(all.u.iter().all(|u| (0.0..1.0).contains(u)));
    assert!((mean(&all.u) - 0.5).abs() < 0.15, "{:?}", all.u);
    let squares: Vec<f32> = all.eps.values.iter().map(|e| e * e).collect();
    assert!((mean(&squares) - 1.0).abs() < 0.03);
    // u and ε are not drawn from the same numbers.
    assert_ne!(all.u[7], all.eps.values[7 * 1024]);
}

/// A tiny DINOv2 with registers in a file.
fn encoder(folder: &Path) -> FrozenEncoder {
    let config = DinoConfig {
        embed_dim: CHANNELS,
        depth: 1,
        num_heads: 1,
        patch_size: 14,
        mlp_ratio: 4,
        img_size: 28,
        registers: 4,
        swiglu: false,
    };
    let weights = snapshot(&config.init(&Device::flex()).expect("it fits"));
    let path = folder.join("dino.safetensors");
    let bytes = write_safetensors(&weights, &Default::default()).expect("it fits");
    std::fs::write(&path, bytes).expect("it is written");
    FrozenEncoder::open(&path, 2, None, &Device::flex()).expect("an encoder")
}

#[test]
fn gradients_of_the_discriminator_alone_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let images = Arc::new(store(folder.path()));
    // The discriminator learns from the first step on.
    let loss =
        RaeDecoderLoss { disc_upd_start: 0, disc_start: 1, disc_channels: 4, ..Default::default() };
    check_data(&model(), &loss, &images, false).expect("they fit");
    let device = Device::flex().autodiff();
    for large in [false, true] {
        let discriminator = fresh_discriminator(4, 3, &device).expect("a discriminator");
        let networks = Networks {
            encoder: encoder(folder.path()),
            decoder: fresh(|d| model().init(d), 0, &device).expect("a decoder"),
            discriminator: match large {
                true => with_large_activations(discriminator),
                false => discriminator,
            },
            lpips: None,
        };
        let mut training = RaeDecoderTraining::new(
            (model(), loss),
            networks,
            (AdamWConfig::new(1e-3, [0.9, 0.95]), &[EmaConfig::Constant { decay: 0.9 }]),
            (images.clone(), EpochSampler::shuffled(0, IMAGES)),
            (IMAGES, 0),
            Comm::alone(),
            &device,
        )
        .expect("they fit");
        let before = numbers(&training);
        training.step(0).expect("a step");
        let report = training.settle().expect("it was made");
        let not_finite = report.values.iter().filter(|(_, value)| !value.is_finite());
        let not_finite: Vec<&str> = not_finite.map(|(name, _)| name.as_str()).collect();
        let expected: &[&str] = if large { &["disc_grad_norm"] } else { &[] };
        assert_eq!(not_finite, expected, "{:?}", report.values);
        assert_eq!(report.skipped, large);
        assert_eq!(numbers(&training) == before, large, "both networks change, or neither");
    }
}
