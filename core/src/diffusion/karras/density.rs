//! The distribution of noise levels in training.

use serde::{Deserialize, Serialize};

use super::normal::inverse_normal_cdf;

/// The distribution of noise levels in training, as k-diffusion configures it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SigmaDensity {
    /// `exp(N(mean, std²))`
    Lognormal {
        /// Mean of ln σ.
        #[serde(alias = "loc", default = "default_lognormal_mean")]
        mean: f64,
        /// Standard deviation of ln σ.
        #[serde(alias = "scale", default = "default_lognormal_std")]
        std: f64,
    },
    /// A logistic distribution of ln σ, optionally truncated.
    Loglogistic {
        /// Centre; ln σ_data if absent.
        #[serde(default)]
        loc: Option<f64>,
        /// Width; 0.5 if absent.
        #[serde(default)]
        scale: Option<f64>,
        /// Smallest σ; 0 if absent.
        #[serde(default)]
        min_value: Option<f64>,
        /// Largest σ; ∞ if absent.
        #[serde(default)]
        max_value: Option<f64>,
    },
    /// Uniform in ln σ.
    Loguniform {
        /// Smallest σ; sigma_min if absent.
        #[serde(default)]
        min_value: Option<f64>,
        /// Largest σ; sigma_max if absent.
        #[serde(default)]
        max_value: Option<f64>,
    },
    /// The cosine schedule of v-diffusion.
    #[serde(alias = "cosine")]
    VDiffusion {
        /// Smallest σ; 1e-3 if absent.
        #[serde(default)]
        min_value: Option<f64>,
        /// Largest σ; 1e3 if absent.
        #[serde(default)]
        max_value: Option<f64>,
    },
    /// Two half-normals in ln σ; needs a normal and a uniform number.
    SplitLognormal {
        /// Where the halves meet.
        #[serde(alias = "mean")]
        loc: f64,
        /// Width below.
        #[serde(alias = "std_1")]
        scale_1: f64,
        /// Width above.
        #[serde(alias = "std_2")]
        scale_2: f64,
    },
    /// HDiT's: shifted cosine schedules of two resolutions, interpolated.
    CosineInterpolated {
        /// Smallest σ; min(sigma_min, 1e-3) if absent.
        #[serde(default)]
        min_value: Option<f64>,
        /// Largest σ; max(sigma_max, 1e3) if absent.
        #[serde(default)]
        max_value: Option<f64>,
        /// Side of the image; the longer one if absent.
        #[serde(default)]
        image_d: Option<f64>,
        /// Resolution that shapes the high-noise end; 32 if absent.
        #[serde(default)]
        noise_d_low: Option<f64>,
        /// Resolution that shapes the low-noise end; the longer image side if absent.
        #[serde(default)]
        noise_d_high: Option<f64>,
    },
}

fn default_lognormal_mean() -> f64 {
    0.0
}
fn default_lognormal_std() -> f64 {
    1.0
}

/// What a density's defaults depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DensityContext {
    /// Standard deviation of the data.
    pub sigma_data: f64,
    /// Sampling's smallest noise level σ.
    pub sigma_min: f64,
    /// Sampling's largest noise level σ.
    pub sigma_max: f64,
    /// The longer image side in pixels.
    pub image_side: usize,
}

impl SigmaDensity {
    /// The noise level at the quantile `u` in 0…1; for [`SigmaDensity::SplitLognormal`] `normal`
    /// is a standard normal number, elsewhere it is not used.
    pub fn sample(&self, u: f64, normal: f64, context: DensityContext) -> f64 {
        let DensityContext { sigma_data, sigma_min, sigma_max, image_side } = context;
        match *self {
            Self::Lognormal { mean, std } => {
                (mean + std * inverse_normal_cdf(u * (1.0 - 2e-7) + 1e-7)).exp()
            }
            Self::Loglogistic { loc, scale, min_value, max_value } => {
                let loc = loc.unwrap_or(sigma_data.ln());
                let scale = scale.unwrap_or(0.5);
                let cdf = |value: f64| 1.0 / (1.0 + (-(value.ln() - loc) / scale).exp());
                let low = min_value.map_or(0.0, cdf);
                let high = max_value.map_or(1.0, cdf);
                let p = low + u * (high - low);
                (loc + scale * (p.ln() - (-p).ln_1p())).exp()
            }
            Self::Loguniform { min_value, max_value } => {
                let low = min_value.unwrap_or(sigma_min).ln();
                let high = max_value.unwrap_or(sigma_max).ln();
                (low + u * (high - low)).exp()
            }
            Self::VDiffusion { min_value, max_value } => {
                let low = (min_value.unwrap_or(1e-3) / sigma_data).atan();
                let high = (max_value.unwrap_or(1e3) / sigma_data).atan();
                (low + u * (high - low)).tan() * sigma_data
            }
            Self::SplitLognormal { loc, scale_1, scale_2 } => {
                let n = normal.abs();
                let below = u < scale_1 / (scale_1 + scale_2);
                (if below { n * -scale_1 + loc } else { n * scale_2 + loc }).exp()
            }
            Self::CosineInterpolated {
                min_value,
                max_value,
                image_d,
                noise_d_low,
                noise_d_high,
            } => {
                let min = min_value.unwrap_or(sigma_min.min(1e-3));
                let max = max_value.unwrap_or(sigma_max.max(1e3));
                let image = image_d.unwrap_or(image_side as f64);
                let shifted = |noise_d: f64| {
                    let k = noise_d / image;
                    let (a, b) = ((k * max / sigma_data).atan(), (k * min / sigma_data).atan());
                    ((a + u * (b - a)).tan() / k).ln()
                };
                let low = shifted(noise_d_low.unwrap_or(32.0));
                let high = shifted(noise_d_high.unwrap_or(image_side as f64));
                sigma_data * ((1.0 - u) * low + u * high).exp()
            }
        }
    }
}

/// Stratified quantiles: sample `i` of `batch` in group `group` of `groups` falls into its own
/// slice of 0…1, at `uniform` within it.
pub fn stratified(uniform: &[f64], group: usize, groups: usize) -> Vec<f64> {
    let n = (uniform.len() * groups) as f64;
    uniform.iter().enumerate().map(|(i, u)| ((group + i * groups) as f64 + u) / n).collect()
}
