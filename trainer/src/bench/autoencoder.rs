//! Benchmarks of autoencoders.

use anyhow::{Context, Result};
use tintype::model::vavae::VaeConfig;
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
    let flops = 2.0 * decoder_macs(config, h * config.downsampling()) * batch as f64;
    Ok(Measurement::new(format!("decode {batch}"), timing, batch as f64, "images/s")
        .operations(flops))
}

/// Encoding of a batch of images to the moments of their latents.
///
/// # Errors
///
/// If the subject has no autoencoder, or its configuration does not describe one.
pub fn encode(bench: &Bench, subject: &Subject, batch: usize) -> Result<Measurement> {
    let (config, sides) = autoencoder(subject)?;
    let encoder = computing_in(&config.init_encoder(&bench.device)?, bench.precision);
    let [h, w] = sides.map(|side| side * config.downsampling());
    let x = bench.values([batch, config.in_channels, h, w]);
    let timing = bench.clock.time(&bench.device, || {
        encoder.moments(x.clone());
    });
    let flops = 2.0 * encoder_macs(config, h) * batch as f64;
    Ok(Measurement::new(format!("encode {batch}"), timing, batch as f64, "images/s")
        .operations(flops))
}

/// The autoencoder of a subject, and height and width of its latents.
fn autoencoder(subject: &Subject) -> Result<(&VaeConfig, [usize; 2])> {
    let no_autoencoder = || format!("{} has no autoencoder", subject.name);
    let config = subject.vae.as_ref().with_context(no_autoencoder)?;
    let [_, h, w] = subject.state();
    Ok((config, [h, w]))
}
