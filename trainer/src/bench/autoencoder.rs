//! Benchmarks of autoencoders.

use anyhow::{Context, Result};
use tintype::model::Autoencoder;
use tintype::model::dinov2::DinoConfig;
use tintype::model::rae::RaeEncoder;
use tintype::weights::computing_in;

use super::{Bench, Measurement, Subject};
use crate::train::vae::{decoder_macs, encoder_macs};

/// Decoding of a batch of latents.
///
/// # Errors
///
/// If the subject has no autoencoder, or its configuration does not describe one.
pub fn decode(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let (config, [h, w]) = autoencoder(subject)?;
    let decoder = computing_in(&config.init_decoder(&bench.device)?, bench.precision);
    let z = bench.values([batch, config.latent_channels(), h, w]);
    let timing = bench.clock.time(&bench.device, || {
        decoder.decode(z.clone());
    });
    let macs = match config {
        Autoencoder::Vae(config) => decoder_macs(config, h * config.downsampling()),
        Autoencoder::Rae(config) => config.macs(),
    };
    Ok(Measurement::new(format!("decode {batch}"), timing, batch as f64, "images/s")
        .operations(2.0 * macs * batch as f64))
}

/// Encoding of a batch of images, to the moments of their latents or to tokens.
///
/// # Errors
///
/// If the subject has no autoencoder, or its configuration does not describe one.
pub fn encode(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let (config, sides) = autoencoder(subject)?;
    let [h, w] = sides.map(|side| side * config.downsampling());
    let x = bench.values([batch, 3, h, w]);
    let (timing, macs) = match config {
        Autoencoder::Vae(config) => {
            let encoder = computing_in(&config.init_encoder(&bench.device)?, bench.precision);
            let timing = bench.clock.time(&bench.device, || {
                encoder.moments(x.clone());
            });
            (timing, encoder_macs(config, h))
        }
        Autoencoder::Rae(_) => {
            let dino = DinoConfig::base_with_registers();
            let network = RaeEncoder::new(dino.init(&bench.device)?, sides[0] * dino.patch_size)?;
            let encoder = computing_in(&network, bench.precision);
            let timing = bench.clock.time(&bench.device, || {
                encoder.forward(x.clone());
            });
            (timing, dino.macs(sides[0]))
        }
    };
    Ok(Measurement::new(format!("encode {batch}"), timing, batch as f64, "images/s")
        .operations(2.0 * macs * batch as f64))
}

/// The autoencoder of a subject, and height and width of its latents.
fn autoencoder(subject: &Subject) -> Result<(&Autoencoder, [usize; 2])> {
    let no_autoencoder = || format!("{} has no autoencoder", subject.name);
    let config = subject.vae.as_ref().with_context(no_autoencoder)?;
    let [_, h, w] = subject.state();
    Ok((config, [h, w]))
}
