//! Previews and evaluations during training, from their tables in the configuration.

use anyhow::{Result, ensure};
use tintype::burn::tensor::Device;
use tintype::generate::LatentStats;

use crate::train::comm::Comm;
use crate::train::config::Recipe;
use crate::train::diffusion::Watchers;
use crate::train::evaluate::SampleEvaluator;
use crate::train::preview::{PreviewConfig, Previewer};

fn previewer(
    config: &Option<PreviewConfig>,
    comm: &Comm,
    on_latents: bool,
    stats: Option<&LatentStats>,
) -> Result<Option<Previewer>> {
    match config {
        Some(config) if comm.rank == 0 && (config.vae.is_some() || !on_latents) => {
            Previewer::open(config.clone(), stats).map(Some)
        }
        _ => Ok(None),
    }
}

/// Opens what an evaluation during training needs, on rank 0.
fn evaluator<M, L, D>(
    recipe: &Recipe<M, L, D>,
    comm: &Comm,
    on_latents: bool,
    stats: Option<&LatentStats>,
    device: &Device,
) -> Result<Option<SampleEvaluator>> {
    let Some(config) = recipe.evaluate.as_ref().filter(|_| comm.rank == 0) else {
        return Ok(None);
    };
    let mut config = config.clone();
    let of_preview = || recipe.preview.as_ref().and_then(|preview| preview.vae.clone());
    if on_latents {
        config.vae = config.vae.or_else(of_preview);
    }
    SampleEvaluator::open(config, stats, &device.clone().inner()).map(Some)
}

/// Opens previews and evaluation.
///
/// # Errors
///
/// * A file cannot be read.
/// * An evaluation has no feature extractor, no autoencoder for latents, or a metric that cannot be
///   computed with the reference.
pub fn watchers<M, L, D>(
    recipe: &Recipe<M, L, D>,
    comm: &Comm,
    on_latents: bool,
    stats: Option<&LatentStats>,
    device: &Device,
) -> Result<Watchers> {
    check_evaluation(recipe, on_latents)?;
    let previewer = previewer(&recipe.preview, comm, on_latents, stats)?;
    let evaluator = evaluator(recipe, comm, on_latents, stats, device)?;
    Ok(Watchers { previewer, evaluator })
}

/// Checks that an evaluation has a feature extractor, and an autoencoder where the network makes latents.
///
/// # Errors
///
/// If it lacks one.
pub fn check_evaluation<M, L, D>(recipe: &Recipe<M, L, D>, on_latents: bool) -> Result<()> {
    let Some(config) = &recipe.evaluate else { return Ok(()) };
    config.check()?;
    let of_preview = recipe.preview.as_ref().and_then(|preview| preview.vae.as_ref());
    ensure!(
        !on_latents || config.vae.is_some() || of_preview.is_some(),
        "an evaluation of latents needs an autoencoder; set evaluate.vae or preview.vae"
    );
    Ok(())
}

/// Checks that samples of a network without a null class are not guided.
///
/// # Errors
///
/// If they are.
pub fn check_guidance<M, L, D>(recipe: &Recipe<M, L, D>, needs_class: bool) -> Result<()> {
    match needs_class {
        true => check_unguided(recipe, 1.0),
        false => Ok(()),
    }
}

/// Checks that samples are not guided, of which those without a scale have the `usual` one.
///
/// # Errors
///
/// If they are.
pub fn check_unguided<M, L, D>(recipe: &Recipe<M, L, D>, usual: f64) -> Result<()> {
    for (key, cfg) in [
        ("preview", recipe.preview.as_ref().map(|preview| preview.cfg.unwrap_or(usual))),
        ("evaluate", recipe.evaluate.as_ref().map(|evaluate| evaluate.cfg.unwrap_or(usual))),
    ] {
        let cfg = cfg.unwrap_or(1.0);
        ensure!(
            cfg == 1.0,
            "{key}.cfg {cfg} is not possible: without class dropout the network has no unconditional prediction; set {key}.cfg = 1"
        );
    }
    Ok(())
}
