//! pMF (arXiv 2601.22158) on pixels: the losses of iMF, of velocities that are made of an estimated picture, and
//! perceptual losses of that picture.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tintype::burn::tensor::Device;
use tintype::model::pmf::{Pmf, PmfConfig, T_FLOOR};
use tintype::noise::ImageKey;

use super::batch::{Batch, Making};
use super::crop::{Crop, Crops};
use super::draws::{Draw, Matched, MeanFlowLoss};
use super::loss::pass;
use super::perceptual::{Comparison, Views, with_comparisons};
use super::{is_linear, with_head};
use crate::data::store::ImageStore;
use crate::network::convnext::ConvNextV2;
use crate::network::lpips::Lpips;
use crate::train::adamw::{Group, Groups};
use crate::train::classes::check_classes;
use crate::train::epoch_sampler::SampleIndex;
use crate::train::objective::{Compute, Loss, Objective};
use crate::train::record::DataRecord;

/// The settings of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PmfLoss {
    /// What is drawn.
    #[serde(flatten)]
    pub draws: MeanFlowLoss,
    /// Weight of LPIPS.
    pub lpips_weight: f64,
    /// Weight of the distance of ConvNeXt V2's features.
    pub convnext_weight: f64,
    /// Samples from this time on have no perceptual losses.
    pub perceptual_max_t: f64,
    /// Side of the crops that they compare.
    pub perceptual_side: usize,
}

impl Default for PmfLoss {
    fn default() -> Self {
        Self {
            draws: MeanFlowLoss::default(),
            lpips_weight: 0.4,
            convnext_weight: 0.1,
            perceptual_max_t: 0.8,
            perceptual_side: 224,
        }
    }
}

/// The objective.
pub struct PmfObjective {
    /// The network's shape, with the head of v.
    pub model: PmfConfig,
    /// The losses.
    pub loss: PmfLoss,
    /// Images of the network's size.
    pub images: Arc<ImageStore>,
    /// The perceptual losses, on the device that trains.
    pub comparisons: Vec<Comparison>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Host values of some samples.
pub struct PixelBatch {
    /// What the losses of u and v need.
    pub batch: Batch,
    /// What the perceptual ones need besides; absent where there are none.
    pub views: Option<Views>,
}

impl PmfObjective {
    fn views(&self, samples: &[SampleIndex], draws: &[Draw]) -> Views {
        let PmfLoss { perceptual_max_t, perceptual_side, .. } = self.loss;
        let side = self.model.shape.input_size;
        let crop =
            |sample: &SampleIndex| Crop::new(ImageKey::new(self.seed, sample.global_index), side);
        let crops: Vec<Crop> = samples.iter().map(crop).collect();
        let seen = |draw: &Draw| if f64::from(draw.t) < perceptual_max_t { 1.0 } else { 0.0 };
        Views {
            crops: Crops::new(&crops, side, perceptual_side),
            seen: draws.iter().map(seen).collect(),
        }
    }
}

impl Objective for PmfObjective {
    type Network = Pmf;
    type Batch = PixelBatch;

    fn collate(&self, samples: &[SampleIndex], step: u64, batch: usize) -> Result<PixelBatch> {
        let shape = &self.model.shape;
        let making = Making {
            settings: &self.loss.draws,
            matched: Matched::First,
            seed: self.seed,
            shape: [shape.in_channels, shape.input_size, shape.input_size],
            noise_scale: self.model.noise_scale,
            null_class: shape.num_classes,
        };
        let batch = Batch::new(making, samples, (step, batch), |sample| {
            Ok((self.images.planes(sample.item), self.images.label(sample.item)))
        })?;
        let views = (!self.comparisons.is_empty()).then(|| self.views(samples, &batch.draws));
        Ok(PixelBatch { batch, views })
    }

    fn loss(
        &self,
        network: &Pmf,
        batch: PixelBatch,
        compute: Compute,
        device: &Device,
    ) -> Result<Loss> {
        let PixelBatch { batch, views } = batch;
        let weight = batch.weight;
        let pass = pass(network, batch, T_FLOOR, compute, device)?;
        Ok(match views {
            Some(views) => with_comparisons(pass, &self.comparisons, views, weight, device),
            None => pass.loss,
        })
    }

    fn groups(&self) -> Groups {
        |_| Group::PLAIN
    }

    fn is_linear(&self, name: &str) -> bool {
        is_linear(name)
    }

    fn config(&self) -> Value {
        json!(self.model)
    }

    fn data(&self) -> DataRecord {
        DataRecord::of_store(&self.images)
    }

    fn macs(&self) -> f64 {
        self.model.macs()
    }
}

/// The network that is trained, with the head of v.
pub fn trained(model: &PmfConfig) -> PmfConfig {
    PmfConfig { shape: with_head(&model.shape), ..model.clone() }
}

/// The perceptual losses of these networks.
pub fn comparisons(
    loss: &PmfLoss,
    lpips: Option<Lpips>,
    convnext: Option<ConvNextV2>,
) -> Vec<Comparison> {
    let lpips = lpips.map(|network| Comparison::Lpips(Box::new(network), loss.lpips_weight));
    let convnext =
        convnext.map(|network| Comparison::ConvNext(Box::new(network), loss.convnext_weight));
    lpips.into_iter().chain(convnext).collect()
}

/// Checks the crops against the perceptual losses that there will be.
///
/// # Errors
///
/// If their side does not fit a network.
pub fn check_side(loss: &PmfLoss, has_lpips: bool, has_convnext: bool) -> Result<()> {
    let side = loss.perceptual_side;
    ensure!(
        !has_lpips || side >= Lpips::SMALLEST,
        "loss.perceptual_side = {side} is too small for LPIPS, which needs {}",
        Lpips::SMALLEST
    );
    let multiple = ConvNextV2::MULTIPLE;
    ensure!(
        !has_convnext || (side > 0 && side.is_multiple_of(multiple)),
        "loss.perceptual_side = {side} is not a multiple of {multiple}, which ConvNeXt V2 needs"
    );
    Ok(())
}

/// Checks data against the network before anything is computed.
///
/// # Errors
///
/// If the images or the classes do not fit the network.
pub fn check_data(model: &PmfConfig, images: &ImageStore) -> Result<()> {
    let (side, wanted) = (images.side(), model.shape.input_size);
    ensure!(side == wanted, "the images have {side} pixels a side and the network {wanted}");
    let channels = model.shape.in_channels;
    ensure!(channels == 3, "model.in_channels is {channels}; images have 3");
    check_classes(images.labels(), model.shape.num_classes)
}
