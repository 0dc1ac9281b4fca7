//! What each recipe trains: network, data, losses and what watches them, on one device.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tintype::burn::tensor::{Device, FloatDType};

use super::super::training_data::{self, DitDhSet, LatentSet};
use super::super::watchers::watchers;
use crate::network::convnext::ConvNextV2;
use crate::network::lpips::Lpips;
use crate::train::adversary::fresh_discriminator;
use crate::train::classes::warning;
use crate::train::comm::Comm;
use crate::train::config::{
    Activations, Config, DitDhData, ImageData, LatentData, PmfData, RaeDecoderData, Recipe,
    RunConfig, VaeData,
};
use crate::train::diffusion::{DiffusionTrainer, Steps, Watchers, fresh};
use crate::train::ditdh::{self, DitDhLoss, DitDhObjective};
use crate::train::epoch_sampler::EpochSampler;
use crate::train::hdit::{HDiTLoss, HDiTObjective};
use crate::train::hidit::{HiDiTLoss, HiDiTObjective};
use crate::train::init::{Origin, Taking};
use crate::train::jit::{JitLoss, JitObjective};
use crate::train::lightningdit::{LightningDiTLoss, LightningDiTObjective};
use crate::train::meanflow::draws::MeanFlowLoss;
use crate::train::meanflow::imf::{self, ImfObjective};
use crate::train::meanflow::loss::STEP;
use crate::train::meanflow::pmf::{self, PmfLoss, PmfObjective};
use crate::train::meanflow::products::{MAX_ERROR, error_of_products};
use crate::train::objective::{Compute, Objective};
use crate::train::rae_decoder::{self, FrozenEncoder, RaeDecoderLoss, RaeDecoderTraining};
use crate::train::rae_latents::{EncodedImages, RaeLatents};
use crate::train::teacher::Teacher;
use crate::train::trainer::Trainer;
use crate::train::vae::{LossNetworks, Networks, VaeLoss, VaeTraining};
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hdit::HDiTConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::imf::ImfConfig;
use tintype::model::jit::JitConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::pmf::PmfConfig;
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::vavae::VaeConfig;

/// Builds the trainer of a rank.
pub(super) fn build(
    config: &Config,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    match config {
        Config::HiDiT(recipe) => hidit_system(recipe, origin, comm, device),
        Config::LightningDiT(recipe) => lightningdit_system(recipe, origin, comm, device),
        Config::HDiT(recipe) => hdit_system(recipe, origin, comm, device),
        Config::MeanFlow(recipe) => imf_system(recipe, origin, comm, device),
        Config::Pmf(recipe) => pmf_system(recipe, origin, comm, device),
        Config::Jit(recipe) => jit_system(recipe, origin, comm, device),
        Config::DitDh(recipe) => ditdh_system(recipe, origin, comm, device),
        Config::Vae(recipe) => vae_system(recipe, origin, comm, device),
        Config::RaeDecoder(recipe) => rae_decoder_system(recipe, origin, comm, device),
    }
}

fn steps(run: &RunConfig) -> Steps {
    let precision = match run.precision {
        Activations::F32 => FloatDType::F32,
        Activations::Bf16 => FloatDType::BF16,
    };
    let compute = Compute { precision, recompute: run.recompute };
    Steps { batch: run.batch, accumulate: run.accumulate, compute }
}

fn epoch_sampler(run: &RunConfig, labels: &[Option<usize>]) -> EpochSampler {
    match run.balance_classes {
        true => EpochSampler::balanced(run.seed, labels),
        false => EpochSampler::shuffled(run.seed, labels.len()),
    }
}

/// LPIPS, whose two files are given together.
fn lpips(vgg: &Option<PathBuf>, lin: &Option<PathBuf>, device: &Device) -> Result<Option<Lpips>> {
    match (vgg, lin) {
        (Some(vgg), Some(lin)) => Ok(Some(Lpips::open(vgg, lin, device)?)),
        _ => Ok(None),
    }
}

/// The parts of a diffusion trainer that depend on the recipe.
struct Parts<O: Objective> {
    objective: O,
    network: O::Network,
    sampler: EpochSampler,
    watchers: Watchers,
    classes: Vec<String>,
}

/// Builds a diffusion trainer, initialized from `init.from`; `may_miss` selects the tensors that may be
/// missing there.
fn diffusion<O: Objective, M, L, D>(
    recipe: &Recipe<M, L, D>,
    parts: Parts<O>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
    may_miss: fn(&str) -> bool,
) -> Result<Box<dyn Trainer>> {
    let Parts { objective, network, sampler, watchers, classes } = parts;
    let emas = recipe.ema.as_ref().context("the table [ema] is missing")?;
    let mut system = DiffusionTrainer::new(
        objective,
        network,
        (recipe.optimizer, emas.all()),
        steps(&recipe.run),
        sampler,
        comm.clone(),
        watchers,
        &classes,
        device,
    )?;
    if let Some(opened) = origin.of(&recipe.init)? {
        let taking = Taking { reinit: &recipe.init.reinit, may_miss };
        system.continue_from(&opened, taking)?;
    }
    Ok(Box::new(system))
}

/// Says before training what the network will not learn.
fn warn(comm: &Comm, labels: &[Option<usize>], num_classes: usize) {
    if let (0, Some(warning)) = (comm.rank, warning(labels, num_classes)) {
        eprintln!("warning: {warning}");
    }
}

/// Says before training that du/dt will not be what it should.
fn warn_of_products(comm: &Comm, features: usize, device: &Device) {
    if comm.rank > 0 {
        return;
    }
    let error = error_of_products(features, &device.clone().inner());
    if error > MAX_ERROR {
        eprintln!(
            "warning: this device computes float32 products in lower precision (relative error {error:.0e}), of which du/dt, a difference over {STEP}, keeps little; its samples of one step will be worse"
        );
    }
}

fn hidit_system(
    recipe: &Recipe<HiDiTConfig, HiDiTLoss, LatentData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data) = (&recipe.run, &recipe.data);
    let set = training_data::of_hidit(recipe, data.stats.as_deref())?;
    let classes = set.classes();
    let LatentSet { latents, images } = set;
    let mut model = recipe.model.clone();
    warn(comm, &latents.labels, model.sit.num_classes);
    let teacher = match &data.teacher {
        Some(path) => {
            let grid = model.sit.tokens().isqrt();
            let teacher = Teacher::open(path, grid, &device.clone().inner())?;
            model.sit.z_dims = vec![teacher.width];
            Some(teacher)
        }
        None => None,
    };
    let network = fresh(|d| model.init(d), run.seed, device)?;
    let network = network.with_latent_stats(&latents.stats.mean, &latents.stats.std);
    let watchers = watchers(recipe, comm, true, None, device)?;
    let sampler = epoch_sampler(run, &latents.labels);
    let objective =
        HiDiTObjective { model, loss: recipe.loss, latents, images, teacher, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    // Stage 1 does not train the pixel stream, and a plain SiT does not have one.
    diffusion(recipe, parts, origin, comm, device, |name| {
        name.starts_with("pixel_") || name.starts_with("projectors.")
    })
}

fn lightningdit_system(
    recipe: &Recipe<LightningDiTConfig, LightningDiTLoss, LatentData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data, model) = (&recipe.run, &recipe.data, recipe.model.clone());
    let set = training_data::of_lightningdit(recipe, data.stats.as_deref())?;
    let (classes, latents) = (set.classes(), set.latents);
    warn(comm, &latents.labels, model.num_classes);
    let network = fresh(|d| model.init(d), run.seed, device)?;
    let watchers = watchers(recipe, comm, true, Some(&latents.stats), device)?;
    let sampler = epoch_sampler(run, &latents.labels);
    let objective = LightningDiTObjective { model, loss: recipe.loss, latents, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, |_| false)
}

fn hdit_system(
    recipe: &Recipe<HDiTConfig, HDiTLoss, ImageData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, model) = (&recipe.run, recipe.model.clone());
    let images = training_data::of_hdit(recipe)?;
    warn(comm, images.labels(), model.num_classes);
    let network = fresh(|d| model.init(d), run.seed, device)?;
    let watchers = watchers(recipe, comm, false, None, device)?;
    let classes = match model.num_classes {
        0 => Vec::new(),
        _ => images.description.classes.clone(),
    };
    let sampler = epoch_sampler(run, images.labels());
    let objective = HDiTObjective { model, loss: recipe.loss, images, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, |_| false)
}

/// Parts of a mean flow that published files lack, which are for sampling.
fn is_of_v(name: &str) -> bool {
    name.starts_with("v_heads.") || name.starts_with("v_final_layer.")
}

fn imf_system(
    recipe: &Recipe<ImfConfig, MeanFlowLoss, LatentData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data) = (&recipe.run, &recipe.data);
    let model = imf::trained(&recipe.model);
    let set = training_data::of_meanflow(recipe, data.stats.as_deref())?;
    let (classes, latents) = (set.classes(), set.latents);
    warn(comm, &latents.labels, model.shape.num_classes);
    warn_of_products(comm, model.shape.hidden_size, device);
    let network = fresh(|d| model.init(d), run.seed, device)?;
    // The network's own statistics need no file.
    let given = model.statistics().is_none().then_some(&latents.stats);
    let watchers = watchers(recipe, comm, true, given, device)?;
    let sampler = epoch_sampler(run, &latents.labels);
    let stats = imf::statistics(&model, &latents);
    let objective = ImfObjective { model, loss: recipe.loss, latents, stats, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, is_of_v)
}

fn pmf_system(
    recipe: &Recipe<PmfConfig, PmfLoss, PmfData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data, loss) = (&recipe.run, &recipe.data, recipe.loss);
    let model = pmf::trained(&recipe.model);
    let images = training_data::of_pmf(recipe)?;
    warn(comm, images.labels(), model.shape.num_classes);
    warn_of_products(comm, model.shape.hidden_size, device);
    let convnext = match &data.convnext {
        Some(path) => Some(ConvNextV2::open(path, device)?),
        None => None,
    };
    let comparisons = pmf::comparisons(&loss, lpips(&data.vgg, &data.lpips, device)?, convnext);
    let network = fresh(|d| model.init(d), run.seed, device)?;
    let watchers = watchers(recipe, comm, false, None, device)?;
    let classes = images.description.classes.clone();
    let sampler = epoch_sampler(run, images.labels());
    let objective = PmfObjective { model, loss, images, comparisons, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, is_of_v)
}

fn jit_system(
    recipe: &Recipe<JitConfig, JitLoss, ImageData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, model) = (&recipe.run, recipe.model.clone());
    let images = training_data::of_jit(recipe)?;
    warn(comm, images.labels(), model.num_classes);
    let network = fresh(|d| model.init(d), run.seed, device)?;
    let watchers = watchers(recipe, comm, false, None, device)?;
    let classes = images.description.classes.clone();
    let sampler = epoch_sampler(run, images.labels());
    let objective = JitObjective { model, loss: recipe.loss, images, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, |_| false)
}

fn ditdh_system(
    recipe: &Recipe<DitDhConfig, DitDhLoss, DitDhData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, model) = (&recipe.run, recipe.model.clone());
    let (classes, latents) = match training_data::of_ditdh(recipe, recipe.data.stats())? {
        DitDhSet::Cached(set) => (set.classes(), RaeLatents::Cached(set.latents)),
        DitDhSet::Encoded { data, images, stats } => {
            let (size, plain) = (data.encoder_input_size, device.clone().inner());
            let encoder = FrozenEncoder::open(&data.encoder, model.input_size, size, &plain)?;
            let classes = images.description.classes.clone();
            let stats = stats.context("data.stats is missing")?;
            let wanted = ditdh::shape(&model);
            let encoded = EncodedImages::new(images, encoder, stats, wanted)?;
            (classes, RaeLatents::Encoded(Arc::new(encoded)))
        }
    };
    warn(comm, latents.labels(), model.num_classes);
    let network = recipe.loss.trained(fresh(|d| model.init(d), run.seed, device)?);
    let watchers = watchers(recipe, comm, true, Some(latents.stats()), device)?;
    let sampler = epoch_sampler(run, latents.labels());
    let objective = DitDhObjective { model, loss: recipe.loss, latents, seed: run.seed };
    let parts = Parts { objective, network, sampler, watchers, classes };
    diffusion(recipe, parts, origin, comm, device, |_| false)
}

fn vae_system(
    recipe: &Recipe<VaeConfig, VaeLoss, VaeData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data, model) = (&recipe.run, &recipe.data, recipe.model.clone());
    let images = training_data::of_vae(recipe)?;
    let lpips = lpips(&data.vgg, &data.lpips, device)?;
    let teacher = match &data.teacher {
        Some(path) => Some(Teacher::open(path, 16, &device.clone().inner())?),
        None => None,
    };
    let features = teacher.as_ref().map(|t| t.width);
    let networks = Networks::fresh(&model, features, run.seed, device)?;
    let seed = run.seed.wrapping_add(3); // after those of the autoencoder's parts
    let discriminator = fresh_discriminator(recipe.loss.disc_channels, seed, device)?;
    let sampler = epoch_sampler(run, images.labels());
    let mut system = VaeTraining::new(
        (model, recipe.loss),
        (networks, discriminator),
        LossNetworks { lpips, teacher },
        recipe.optimizer,
        (images, sampler),
        (run.batch, run.seed),
        comm.clone(),
        device,
    )?;
    if let Some(opened) = origin.of(&recipe.init)? {
        system.init_from(&opened)?;
    }
    Ok(Box::new(system))
}

fn rae_decoder_system(
    recipe: &Recipe<RaeDecoderConfig, RaeDecoderLoss, RaeDecoderData>,
    origin: &Origin,
    comm: &Comm,
    device: &Device,
) -> Result<Box<dyn Trainer>> {
    let (run, data, model) = (&recipe.run, &recipe.data, recipe.model.clone());
    let images = training_data::of_rae_decoder(recipe)?;
    let emas = recipe.ema.as_ref().context("the table [ema] is missing")?;
    let plain = device.clone().inner();
    let (size, seed) = (data.encoder_input_size, run.seed.wrapping_add(1));
    let networks = rae_decoder::Networks {
        encoder: FrozenEncoder::open(&data.encoder, model.grid, size, &plain)?,
        decoder: fresh(|d| model.init(d), run.seed, device)?,
        discriminator: fresh_discriminator(recipe.loss.disc_channels, seed, device)?,
        lpips: lpips(&data.vgg, &data.lpips, device)?,
    };
    let sampler = epoch_sampler(run, images.labels());
    let mut system = RaeDecoderTraining::new(
        (model, recipe.loss),
        networks,
        (recipe.optimizer, emas.all()),
        (images, sampler),
        (run.batch, run.seed),
        comm.clone(),
        device,
    )?;
    if let Some(opened) = origin.of(&recipe.init)? {
        system.init_from(&opened)?;
    }
    Ok(Box::new(system))
}
