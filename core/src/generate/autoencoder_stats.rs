//! Statistics of latents that an autoencoder brings along in diffusers' words.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::latent_stats::LatentStats;
use crate::weights::{Weights, WeightsError};

impl LatentStats {
    /// The statistics that the metadata of an autoencoder state: `latents_mean` and `latents_std`, or
    /// `shift_factor`, over `scaling_factor`, as diffusers applies them; `None` where they state no
    /// scaling factor. A generator's own statistics come before these.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`] where an entry is not a number, or a list of them, the lists have other lengths, or the
    /// scaling factor is 0.
    pub fn of_autoencoder(
        weights: &Weights,
        channels: usize,
    ) -> Result<Option<Self>, WeightsError> {
        let Some(scale) = entry::<f64>(weights, "scaling_factor")? else { return Ok(None) };
        if scale == 0.0 || !scale.is_finite() {
            return Err(WeightsError::Format {
                file: weights.file.clone(),
                problem: format!("its scaling factor is {scale}"),
            });
        }
        let mean = entry::<Vec<f64>>(weights, "latents_mean")?;
        let std = entry::<Vec<f64>>(weights, "latents_std")?;
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        let (mean, std) = match (mean, std) {
            (Some(mean), Some(std)) if mean.len() != std.len() => {
                return Err(WeightsError::Format {
                    file: weights.file.clone(),
                    problem: format!(
                        "it has {} latents_mean and {} latents_std",
                        mean.len(),
                        std.len()
                    ),
                });
            }
            (Some(mean), Some(std)) => (mean, std.into_iter().map(|v| v / scale).collect()),
            _ => {
                let shift = entry::<f64>(weights, "shift_factor")?.unwrap_or(0.0);
                (vec![shift; channels], vec![1.0 / scale; channels])
            }
        };
        Ok(Some(Self::of_channels(single(mean), single(std))))
    }
}

/// An entry of the metadata, which is JSON; numbers may be texts.
fn entry<T: DeserializeOwned>(weights: &Weights, key: &str) -> Result<Option<T>, WeightsError> {
    let wrong = |e| WeightsError::Format {
        file: weights.file.clone(),
        problem: format!("its {key} is not as expected: {e}"),
    };
    let read = |text: &String| -> Result<T, serde_json::Error> {
        let value: Value = serde_json::from_str(text)?;
        serde_json::from_value(numeric(value))
    };
    weights.metadata.get(key).map(read).transpose().map_err(wrong)
}

/// With texts that are numbers as numbers.
fn numeric(value: Value) -> Value {
    match value {
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::String(text),
        },
        Value::Array(values) => values.into_iter().map(numeric).collect(),
        other => other,
    }
}
