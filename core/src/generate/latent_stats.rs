//! The statistics that latents are normalised with: of each channel, or of each position.

use burn::tensor::{Tensor, TensorData};

use crate::weights::{TensorView, Weights, WeightsError};

/// Added to a variance before its root (RAE).
const VARIANCE_EPS: f32 = 1e-5;
/// Most values: those of 256 channels at 256² positions. A tensor that repeats its values may claim any number.
const MAX_VALUES: usize = 1 << 24;

/// Mean and standard deviation of latents: of each channel (LightningDiT, REPA-E), or of each channel at each position
/// (RAE).
#[derive(Clone, Debug, PartialEq)]
pub struct LatentStats {
    /// Means, as many as the shape has values.
    pub mean: Vec<f32>,
    /// Standard deviations.
    pub std: Vec<f32>,
    /// `[C, 1, 1]`, or `[C, h, w]` of positions.
    pub shape: [usize; 3],
}

/// What a file says of the deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    Deviation,
    Inverse,
    Variance,
}

impl Spread {
    fn deviation(self, value: f32) -> f32 {
        match self {
            Self::Deviation => value,
            Self::Inverse => 1.0 / value,
            Self::Variance => (value + VARIANCE_EPS).sqrt(),
        }
    }
}

impl LatentStats {
    /// Of channels: as many deviations as means.
    pub fn of_channels(mean: Vec<f32>, std: Vec<f32>) -> Self {
        debug_assert_eq!(mean.len(), std.len(), "means and deviations");
        Self { shape: [mean.len(), 1, 1], mean, std }
    }

    /// Reads LightningDiT's `latents_stats.pt` (`mean`, `std`), REPA-E's `<vae>-latents-stats.pt` (`latents_bias`,
    /// `latents_scale` = 1/std), or RAE's `stat.pt` (`mean`, `var`; std = √(var + 1e-5), and 0 for a mean that is not
    /// there).
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`] where the file holds none of these, their shape is none of latents or has more than 2²⁴
    ///   values, a deviation is not positive, a variance is negative, or a number is not finite
    /// * [`WeightsError::Unreadable`] where one of them is of a kind that cannot be read
    pub fn from_weights(weights: &Weights) -> Result<Self, WeightsError> {
        for tensor in ["mean", "std", "var", "latents_bias", "latents_scale"] {
            if let Some(reason) = weights.unreadable.get(tensor) {
                return Err(WeightsError::Unreadable {
                    file: weights.file.clone(),
                    tensor: tensor.into(),
                    reason: reason.clone(),
                });
            }
        }
        let problem = |problem: &str| WeightsError::Format {
            file: weights.file.clone(),
            problem: problem.into(),
        };
        let get = |name: &str| weights.tensors.get(name);
        let scaled = get("latents_bias").zip(get("latents_scale"));
        let (mean, view, spread) = match (get("mean"), get("std"), get("var")) {
            (mean @ Some(_), Some(std), _) => (mean, std, Spread::Deviation),
            (mean, _, Some(var)) => (mean, var, Spread::Variance),
            (mean, ..) => match (scaled, mean) {
                (Some((bias, scale)), _) => (Some(bias), scale, Spread::Inverse),
                (None, Some(_)) => return Err(problem("it holds mean, but neither std nor var")),
                (None, None) => {
                    return Err(problem(
                        "it holds neither mean and std, nor mean and var, nor latents_bias and latents_scale",
                    ));
                }
            },
        };
        let shape = of_latents(&view.shape)
            .ok_or_else(|| problem(&format!("its statistics have shape {:?}", view.shape)))?;
        if view.len() > MAX_VALUES {
            return Err(problem(&format!("its statistics have {} values", view.len())));
        }
        let mean = match mean {
            Some(mean) if of_latents(&mean.shape) != Some(shape) => {
                let shapes = [&mean.shape, &view.shape];
                return Err(problem(&format!("its means and deviations have shapes {shapes:?}")));
            }
            mean => mean.map_or_else(|| vec![0.0; view.len()], TensorView::to_f32),
        };
        let values = view.to_f32();
        if spread == Spread::Variance && values.iter().any(|var| *var < 0.0) {
            return Err(problem("a variance of its statistics is negative"));
        }
        let std: Vec<f32> = values.into_iter().map(|value| spread.deviation(value)).collect();
        Self { mean, std, shape }.usable().map_err(problem)
    }

    /// The same where they can normalise latents, else what is wrong with them.
    pub(super) fn usable(self) -> Result<Self, &'static str> {
        if !self.mean.iter().chain(&self.std).all(|value| value.is_finite()) {
            return Err("its statistics are not finite");
        }
        if self.std.iter().any(|std| *std <= 0.0) {
            return Err("a standard deviation of its statistics is not positive");
        }
        Ok(self)
    }

    /// Whether they are those of latents `[C, h, w]`.
    pub fn fits(&self, [c, h, w]: [usize; 3]) -> bool {
        [[c, 1, 1], [c, h, w]].contains(&self.shape)
    }

    /// Whether they are of channels alone.
    pub fn is_of_channels(&self) -> bool {
        self.shape[1..] == [1, 1]
    }

    /// `(z − mean)/std`.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If they do not [fit](Self::fits) the latents.
    pub fn normalize(&self, z: Tensor<4>) -> Tensor<4> {
        let [mean, std] = self.tensors(&z);
        (z - mean) / std
    }

    /// `z·std + mean`, the inverse of [`normalize`](Self::normalize).
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns the same
    ///
    /// # Panics
    ///
    /// If they do not [fit](Self::fits) the latents.
    pub fn denormalize(&self, z: Tensor<4>) -> Tensor<4> {
        let [mean, std] = self.tensors(&z);
        z * std + mean
    }

    /// [`normalize`](Self::normalize) of one latent `[C, h, w]` on the host.
    ///
    /// # Panics
    ///
    /// If there are no statistics.
    pub fn normalize_values(&self, latent: &mut [f32]) {
        // Values of a channel, or one.
        let each = (latent.len() / self.mean.len()).max(1);
        let rows = latent.chunks_mut(each).zip(self.mean.iter().zip(&self.std));
        for (row, (mean, std)) in rows {
            row.iter_mut().for_each(|v| *v = (*v - mean) / std);
        }
    }

    /// Means and deviations beside the latents, `[1, C, 1, 1]` or `[1, C, h, w]`.
    fn tensors(&self, beside: &Tensor<4>) -> [Tensor<4>; 2] {
        let [c, h, w] = self.shape;
        [&self.mean, &self.std].map(|values| {
            let data = TensorData::new(values.clone(), [1, c, h, w]);
            Tensor::from_data(data, &beside.device())
        })
    }
}

/// The shape `[C, h, w]` of statistics in a file; channels alone come as `[C]`, `[1, C]`, `[C, 1, 1]` or
/// `[1, C, 1, 1]`.
fn of_latents(shape: &[usize]) -> Option<[usize; 3]> {
    let shape = match *shape {
        [c] | [1, c] | [c, 1] => [c, 1, 1],
        [c, h, w] | [1, c, h, w] => [c, h, w],
        _ => return None,
    };
    shape.iter().all(|&n| n > 0).then_some(shape)
}

#[cfg(test)]
mod tests {
    use tintype_test_models::pickles::{archive, dict, pickle, tensor};

    use super::*;

    #[test]
    fn a_number_that_repeats_is_read_as_often_as_latents_have_values() {
        let of_shape = |shape: &[u32]| {
            let repeated = tensor("FloatStorage", shape, &vec![0; shape.len()]);
            let entries = [("mean", repeated.clone()), ("std", repeated)];
            let file = archive(&pickle(&dict(&entries)), &[2.0]);
            LatentStats::from_weights(&Weights::from_bytes(file, "x.pt").expect("it opens"))
        };
        let few = of_shape(&[3]).expect("three channels");
        assert_eq!(few, LatentStats::of_channels(vec![2.0; 3], vec![2.0; 3]));
        let error = of_shape(&[4, 1 << 11, (1 << 11) + 1]).expect_err("refused").to_string();
        assert!(error.contains("16785408 values"), "{error}");
    }
}
