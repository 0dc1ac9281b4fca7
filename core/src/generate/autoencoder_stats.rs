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
    /// [`WeightsError::Format`] where an entry is not a number, or a list of them, the lists have other lengths, the
    /// scaling factor is 0, a deviation is not positive, or a number is not finite in float32.
    pub fn of_autoencoder(
        weights: &Weights,
        channels: usize,
    ) -> Result<Option<Self>, WeightsError> {
        let Some(scale) = entry::<f64>(weights, "scaling_factor")? else { return Ok(None) };
        let problem =
            |problem: String| WeightsError::Format { file: weights.file.clone(), problem };
        if scale == 0.0 || !scale.is_finite() {
            return Err(problem(format!("its scaling factor is {scale}")));
        }
        let mean = entry::<Vec<f64>>(weights, "latents_mean")?;
        let std = entry::<Vec<f64>>(weights, "latents_std")?;
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        let (mean, std) = match (mean, std) {
            (Some(mean), Some(std)) if mean.len() != std.len() => {
                return Err(problem(format!(
                    "it has {} latents_mean and {} latents_std",
                    mean.len(),
                    std.len()
                )));
            }
            (Some(mean), Some(std)) => (mean, std.into_iter().map(|v| v / scale).collect()),
            _ => {
                let shift = entry::<f64>(weights, "shift_factor")?.unwrap_or(0.0);
                (vec![shift; channels], vec![1.0 / scale; channels])
            }
        };
        let stats = Self::of_channels(single(mean), single(std)).usable();
        stats.map(Some).map_err(|why| problem(why.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_positive_and_all_numbers_finite() {
        let stats = |scale: &str, mean: &str, std: &str| {
            let entries = [("scaling_factor", scale), ("latents_mean", mean), ("latents_std", std)];
            let metadata = entries.map(|(key, value)| (key.to_string(), value.to_string()));
            let weights = Weights { metadata: metadata.into(), ..Weights::default() };
            LatentStats::of_autoencoder(&weights, 1).map_err(|e| e.to_string())
        };
        let expected = LatentStats::of_channels(vec![1.0], vec![4.0]);
        assert_eq!(stats("0.5", "[1.0]", "[2.0]"), Ok(Some(expected)));
        for (scale, mean, std, why) in [
            ("1.0", "[0.0]", "[0.0]", "not positive"),
            ("1.0", "[0.0]", "[-1.0]", "not positive"),
            ("-1.0", "[0.0]", "[1.0]", "not positive"),
            ("1e-300", "[0.0]", "[1.0]", "not finite"),
            ("1.0", "[0.0]", "[1e39]", "not finite"),
            ("1.0", "[1e39]", "[1.0]", "not finite"),
        ] {
            let error = stats(scale, mean, std).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
