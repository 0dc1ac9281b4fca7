//! Perceptual losses of pMF: distances of the picture that u estimates from the true one, in one random crop of both.

use tintype::burn::tensor::{Device, Tensor};
use tintype::diffusion::mean_flow::adaptive;

use super::crop::{Crops, cut};
use super::loss::Pass;
use crate::network::convnext::ConvNextV2;
use crate::network::lpips::Lpips;
use crate::train::host::vector;
use crate::train::objective::Loss;

/// A frozen network that pictures are compared by, and the weight of its loss.
pub enum Comparison {
    /// LPIPS' distance.
    Lpips(Box<Lpips>, f64),
    /// The squared distance of ConvNeXt V2's pooled features.
    ConvNext(Box<ConvNextV2>, f64),
}

impl Comparison {
    /// Its name in the log, and the weight.
    fn named(&self) -> (&'static str, f64) {
        match self {
            Self::Lpips(_, weight) => ("lpips", *weight),
            Self::ConvNext(_, weight) => ("convnext", *weight),
        }
    }

    /// The distance of each sample: `[B, 3, S, S]` in −1…1 twice → `[B]`
    fn distance(&self, a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
        let samples = a.dims()[0];
        match self {
            Self::Lpips(network, _) => network.forward(a, b).reshape([samples]),
            Self::ConvNext(network, _) => {
                let difference = network.features(a) - network.features(b); // [B, D]
                difference.square().sum_dim(1).reshape([samples])
            }
        }
    }
}

/// What of some samples is compared.
pub struct Views {
    /// The crops.
    pub crops: Crops,
    /// 1 for a sample that counts, and 0 for one of too late a time.
    pub seen: Vec<f32>,
}

/// The losses of a pass and of the comparisons, each sample's divided by its own value as those of u and v are. The
/// terms for the log are means of the distances.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term
///
/// # Panics
///
/// If the views are not those of the pass's samples.
pub fn with_comparisons(
    pass: Pass,
    comparisons: &[Comparison],
    views: Views,
    weight: f64,
    device: &Device,
) -> Loss {
    let Pass { mut loss, estimate, data } = pass;
    let matrices = views.crops.tensors(device);
    let seen = vector(&views.seen, device); // [B]
    let [estimate, data] = [estimate, data].map(|x| cut(x, matrices.clone())); // [B, 3, S, S]
    // All samples are compared, and those that do not count left out: GPUs have kernels for each number of them.
    for comparison in comparisons {
        let (name, share) = comparison.named();
        let distance = comparison.distance(estimate.clone(), data.clone()) * seen.clone(); // [B]
        loss.terms.push((name, distance.clone().sum() * weight));
        loss.total = loss.total + adaptive(distance).sum() * (share * weight);
    }
    loss
}
