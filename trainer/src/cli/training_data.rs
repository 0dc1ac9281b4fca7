//! The data of a training, and whether it fits the network: what can be told before any weights are here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use tintype::generate::LatentStats;
use tintype::model::DiffusionModel;
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hdit::HDiTConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::imf::ImfConfig;
use tintype::model::jit::JitConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::pmf::PmfConfig;
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::vavae::VaeConfig;

use super::watchers::{check_evaluation, check_guidance, check_unguided};
use crate::data::store::ImageStore;
use crate::rank::Rank;
use crate::train::classes::check_classes;
use crate::train::config::{
    Config, DitDhData, EncodedData, ImageData, LatentData, PmfData, RaeDecoderData, Recipe, VaeData,
};
use crate::train::ditdh::{self, DitDhLoss};
use crate::train::hdit::{self, HDiTLoss};
use crate::train::hidit::{self, HiDiTLoss};
use crate::train::jit::{self, JitLoss};
use crate::train::latents::Latents;
use crate::train::lightningdit::LightningDiTLoss;
use crate::train::meanflow::draws::MeanFlowLoss;
use crate::train::meanflow::imf;
use crate::train::meanflow::pmf::{self, PmfLoss};
use crate::train::rae_decoder::{self, RaeDecoderLoss};
use crate::train::teacher::check_repa;
use crate::train::vae::VaeLoss;

/// Latents, and the images that they were encoded from.
pub struct LatentSet {
    pub latents: Arc<Latents>,
    pub images: Option<Arc<ImageStore>>,
}

impl LatentSet {
    fn open(data: &LatentData, stats: Option<&Path>) -> Result<Self> {
        let latents = Arc::new(Latents::open(&data.latents, stats)?);
        let images = data.images.as_deref().map(image_store).transpose()?;
        if let Some(images) = &images {
            // In whatever order, as the latents may be another program's: the names of the classes are what is taken.
            ensure!(
                sorted(images.labels()) == sorted(&latents.labels),
                "data.images has other numbers of images per class than data.latents, so its class names may be wrong; name the store that the latents were encoded from, or remove data.images"
            );
        }
        Ok(Self { latents, images })
    }

    /// The names of the classes, where there are images.
    pub fn classes(&self) -> Vec<String> {
        self.images.as_ref().map_or(Vec::new(), |images| images.description.classes.clone())
    }
}

fn sorted(labels: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    labels
}

/// What a DiT-DH learns.
pub enum DitDhSet<'a> {
    Cached(LatentSet),
    /// Images; neither their encoder nor the statistics of its latents need be here yet.
    Encoded {
        data: &'a EncodedData,
        images: Arc<ImageStore>,
        stats: Option<LatentStats>,
    },
}

/// An image store, whose checksums one process of each machine verifies; each does where they do not know which is the
/// first.
///
/// # Errors
///
/// If it cannot be opened, a checksum is wrong, or a launcher's variable is not a number.
pub fn image_store(path: &Path) -> Result<Arc<ImageStore>> {
    let store = match Rank::is_later_on_machine()? {
        true => ImageStore::open(path)?,
        false => ImageStore::open_verified(path)?,
    };
    Ok(Arc::new(store))
}

/// Opens the data of a configuration and checks it, before anything is fetched. Statistics that are named, and not given
/// as a file, are not here yet: those of the latents stand for them.
///
/// # Errors
///
/// If the data cannot be read or does not fit the network, or a setting does not fit another.
pub fn check(config: &Config) -> Result<()> {
    match config {
        Config::HiDiT(recipe) => {
            of_hidit(recipe, here(&recipe.data.stats))?;
            check_evaluation(recipe, true)
        }
        Config::LightningDiT(recipe) => {
            of_lightningdit(recipe, here(&recipe.data.stats))?;
            check_evaluation(recipe, true)
        }
        Config::HDiT(recipe) => {
            of_hdit(recipe)?;
            check_evaluation(recipe, false)
        }
        Config::MeanFlow(recipe) => {
            of_meanflow(recipe, here(&recipe.data.stats))?;
            check_evaluation(recipe, true)
        }
        Config::Pmf(recipe) => {
            of_pmf(recipe)?;
            check_evaluation(recipe, false)
        }
        Config::Jit(recipe) => {
            of_jit(recipe)?;
            check_evaluation(recipe, false)
        }
        Config::DitDh(recipe) => {
            of_ditdh(recipe, recipe.data.stats().filter(|path| path.exists()))?;
            check_evaluation(recipe, true)
        }
        Config::Vae(recipe) => of_vae(recipe).map(|_| ()),
        Config::RaeDecoder(recipe) => of_rae_decoder(recipe).map(|_| ()),
    }
}

fn here(stats: &Option<PathBuf>) -> Option<&Path> {
    stats.as_deref().filter(|path| path.exists())
}

/// The data of a Hi-DiT.
///
/// # Errors
///
/// As [`check`].
pub fn of_hidit(
    recipe: &Recipe<HiDiTConfig, HiDiTLoss, LatentData>,
    stats: Option<&Path>,
) -> Result<LatentSet> {
    let model = &recipe.model;
    let set = LatentSet::open(&recipe.data, stats)?;
    model.validate()?;
    hidit::check_data(model, &recipe.loss, &set.latents, set.images.as_deref())?;
    check_guidance(recipe, model.needs_class())?;
    if recipe.data.teacher.is_some() {
        ensure!(set.images.is_some(), "a teacher needs images; set data.images to their store");
        check_repa(model.image, model.sit.tokens())?;
    }
    Ok(set)
}

/// The data of a LightningDiT.
///
/// # Errors
///
/// As [`check`].
pub fn of_lightningdit(
    recipe: &Recipe<LightningDiTConfig, LightningDiTLoss, LatentData>,
    stats: Option<&Path>,
) -> Result<LatentSet> {
    let model = &recipe.model;
    ensure!(
        recipe.data.teacher.is_none(),
        "data.teacher is not supported by the lightningdit recipe"
    );
    let set = LatentSet::open(&recipe.data, stats)?;
    let (latents, wanted) = (&set.latents, [model.in_channels, model.input_size, model.input_size]);
    ensure!(
        latents.shape == wanted,
        "the latents have shape {:?} and the network expects {wanted:?}",
        latents.shape
    );
    check_classes(&latents.labels, model.num_classes)?;
    latents.check_dropout(model.class_dropout_prob, model.class_dropout_prob)?;
    check_guidance(recipe, model.needs_class())?;
    ensure!(
        !model.learn_sigma,
        "model.learn_sigma is not supported; the loss uses the velocity only"
    );
    Ok(set)
}

/// The data of an HDiT.
///
/// # Errors
///
/// As [`check`].
pub fn of_hdit(recipe: &Recipe<HDiTConfig, HDiTLoss, ImageData>) -> Result<Arc<ImageStore>> {
    let (model, loss) = (&recipe.model, &recipe.loss);
    let images = image_store(&recipe.data.images)?;
    hdit::check_data(model, loss, &images)?;
    check_guidance(recipe, model.num_classes > 0 && loss.cond_dropout_rate == 0.0)?;
    Ok(images)
}

/// The data of an iMF.
///
/// # Errors
///
/// As [`check`].
pub fn of_meanflow(
    recipe: &Recipe<ImfConfig, MeanFlowLoss, LatentData>,
    stats: Option<&Path>,
) -> Result<LatentSet> {
    let model = imf::trained(&recipe.model);
    model.validate()?;
    let set = LatentSet::open(&recipe.data, stats)?;
    imf::check_data(&model, &set.latents)?;
    Ok(set)
}

/// The data of a pMF.
///
/// # Errors
///
/// As [`check`].
pub fn of_pmf(recipe: &Recipe<PmfConfig, PmfLoss, PmfData>) -> Result<Arc<ImageStore>> {
    let (model, data) = (pmf::trained(&recipe.model), &recipe.data);
    model.validate()?;
    let images = image_store(&data.images)?;
    pmf::check_data(&model, &images)?;
    ensure!(data.vgg.is_some() == data.lpips.is_some(), "LPIPS needs both data.vgg and data.lpips");
    pmf::check_side(&recipe.loss, data.lpips.is_some(), data.convnext.is_some())?;
    Ok(images)
}

/// The data of a JiT.
///
/// # Errors
///
/// As [`check`].
pub fn of_jit(recipe: &Recipe<JitConfig, JitLoss, ImageData>) -> Result<Arc<ImageStore>> {
    let model = &recipe.model;
    model.validate()?;
    let images = image_store(&recipe.data.images)?;
    jit::check_data(model, &images)?;
    // Nobody trains the null class then, and `generate` guides published sizes by it.
    if recipe.loss.label_drop_prob == 0.0 {
        check_unguided(recipe, model.default_settings().guidance.scale)?;
    }
    Ok(images)
}

/// The data of a DiT-DH.
///
/// # Errors
///
/// As [`check`].
pub fn of_ditdh<'a>(
    recipe: &'a Recipe<DitDhConfig, DitDhLoss, DitDhData>,
    stats: Option<&Path>,
) -> Result<DitDhSet<'a>> {
    let model = &recipe.model;
    model.validate()?;
    check_guidance(recipe, model.needs_class())?;
    Ok(match &recipe.data {
        DitDhData::Cached(data) => {
            let set = LatentSet::open(data, stats)?;
            ditdh::check_data(model, &set.latents)?;
            DitDhSet::Cached(set)
        }
        DitDhData::Encoded(data) => {
            let images = image_store(&data.images)?;
            ditdh::check_images(model, &images, data.encoder_input_size)?;
            let stats = stats.map(|path| ditdh::open_statistics(model, path)).transpose()?;
            DitDhSet::Encoded { data, images, stats }
        }
    })
}

/// The data of an autoencoder.
///
/// # Errors
///
/// As [`check`].
pub fn of_vae(recipe: &Recipe<VaeConfig, VaeLoss, VaeData>) -> Result<Arc<ImageStore>> {
    let data = &recipe.data;
    let images = image_store(&data.images)?;
    ensure!(data.vgg.is_some() == data.lpips.is_some(), "LPIPS needs both data.vgg and data.lpips");
    Ok(images)
}

/// The data of RAE's decoder.
///
/// # Errors
///
/// As [`check`].
pub fn of_rae_decoder(
    recipe: &Recipe<RaeDecoderConfig, RaeDecoderLoss, RaeDecoderData>,
) -> Result<Arc<ImageStore>> {
    let data = &recipe.data;
    let images = image_store(&data.images)?;
    ensure!(data.vgg.is_some() == data.lpips.is_some(), "LPIPS needs both data.vgg and data.lpips");
    rae_decoder::check_data(&recipe.model, &recipe.loss, &images, data.lpips.is_some())?;
    Ok(images)
}
