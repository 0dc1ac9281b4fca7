//! The Karras (EDM) preconditioner, its losses and the densities of noise levels
//! (Karras et al., arXiv 2206.00364; k-diffusion; HDiT, arXiv 2401.11605).

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::loss::mean_squared_error;

/// `D(y; σ) = c_skip·y + c_out·F(c_in·y, σ)` for data of standard deviation `sigma_data`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioner {
    /// Standard deviation of the data, positive.
    pub sigma_data: f64,
}

/// The three coefficients, `[B]` each.
#[derive(Clone, Debug)]
pub struct Scalings {
    /// σd²/(σ²+σd²)
    pub c_skip: Tensor<1>,
    /// σ·σd/√(σ²+σd²)
    pub c_out: Tensor<1>,
    /// 1/√(σ²+σd²)
    pub c_in: Tensor<1>,
}

/// Weight of the loss by noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// 1 in F space (EDM's λ(σ) in D space).
    #[default]
    Karras,
    /// 1/σ² in D space.
    Snr,
    /// 1/(σ²+σd²) in D space, HDiT's choice.
    SoftMinSnr,
}

fn per_sample(x: Tensor<1>) -> Tensor<4> {
    x.reshape([-1, 1, 1, 1])
}

impl Preconditioner {
    /// c_skip, c_out and c_in of noise levels.
    ///
    /// # Shapes
    ///
    /// * `sigma`: `[B]`
    /// * returns [`Scalings`], `[B]` each
    pub fn scalings(&self, sigma: Tensor<1>) -> Scalings {
        let sd = self.sigma_data;
        let total = sigma.clone().square() + sd * sd;
        Scalings {
            c_skip: total.clone().recip() * (sd * sd),
            c_out: sigma * sd / total.clone().sqrt(),
            c_in: total.sqrt().recip(),
        }
    }

    /// The denoised image from a noisy one, `network` being F: `(c_in·y, σ)` in, its prediction
    /// out.
    ///
    /// # Shapes
    ///
    /// * `y`: `[B, C, H, W]`
    /// * `sigma`: `[B]`
    /// * returns `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn denoise(
        &self,
        y: Tensor<4>,
        sigma: Tensor<1>,
        network: impl FnOnce(Tensor<4>, Tensor<1>) -> Tensor<4>,
    ) -> Tensor<4> {
        let Scalings { c_skip, c_out, c_in } = self.scalings(sigma.clone());
        let f = network(y.clone() * per_sample(c_in), sigma);
        y * per_sample(c_skip) + f * per_sample(c_out)
    }

    /// The network's input `c_in·y` and its target `(x − c_skip·y)/c_out` for `y = x + σε`.
    ///
    /// # Shapes
    ///
    /// * `x`, `eps`: `[B, C, H, W]`
    /// * `sigma`: `[B]`, positive
    /// * returns `[B, C, H, W]` twice
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn training_pair(
        &self,
        x: Tensor<4>,
        eps: Tensor<4>,
        sigma: Tensor<1>,
    ) -> (Tensor<4>, Tensor<4>) {
        let Scalings { c_skip, c_out, c_in } = self.scalings(sigma.clone());
        let y = x.clone() + eps * per_sample(sigma);
        let target = (x - y.clone() * per_sample(c_skip)) / per_sample(c_out);
        (y * per_sample(c_in), target)
    }

    /// The weight of F-space errors.
    ///
    /// # Shapes
    ///
    /// * `sigma`: `[B]`
    /// * returns `[B]`
    pub fn weight(&self, weighting: Weighting, sigma: Tensor<1>) -> Tensor<1> {
        let variance = self.sigma_data * self.sigma_data;
        let total = sigma.clone().square() + variance;
        match weighting {
            Weighting::Karras => sigma.ones_like(),
            Weighting::Snr => total.recip() * variance,
            Weighting::SoftMinSnr => sigma.square() * variance / total.square(),
        }
    }

    /// Weighted loss of each sample from the network's output and [`training_pair`]'s target; with
    /// `scales > 1` the error is measured in DCT coefficients.
    ///
    /// [`training_pair`]: Self::training_pair
    ///
    /// # Shapes
    ///
    /// * `output`, `target`: `[B, C, H, W]`
    /// * `sigma`: `[B]`
    /// * returns `[B]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn loss(
        &self,
        output: Tensor<4>,
        target: Tensor<4>,
        sigma: Tensor<1>,
        weighting: Weighting,
        scales: usize,
    ) -> Tensor<1> {
        let error = if scales > 1 {
            multi_scale_error(output - target, scales)
        } else {
            mean_squared_error(output, target)
        };
        error * self.weight(weighting, sigma)
    }

    /// The "simple" loss: mean squared error of `ε̂ = (y − D)/σ`.
    ///
    /// # Shapes
    ///
    /// * `x`, `eps`: `[B, C, H, W]`
    /// * `sigma`: `[B]`, positive
    /// * returns `[B]`
    ///
    /// # Panics
    ///
    /// If a tensor does not have the stated shape.
    pub fn simple_loss(
        &self,
        x: Tensor<4>,
        eps: Tensor<4>,
        sigma: Tensor<1>,
        network: impl FnOnce(Tensor<4>, Tensor<1>) -> Tensor<4>,
    ) -> Tensor<1> {
        let y = x + eps.clone() * per_sample(sigma.clone());
        let denoised = self.denoise(y.clone(), sigma.clone(), network);
        mean_squared_error((y - denoised) / per_sample(sigma), eps)
    }
}

/// Mean of squared orthonormal DCT-II coefficients times [`frequency_weight`], `[B]`.
fn multi_scale_error(error: Tensor<4>, scales: usize) -> Tensor<1> {
    let [b, _, h, w] = error.dims();
    let device = error.device();
    let matrix = |n: usize| -> Tensor<4> {
        let values: Vec<f32> = dct_matrix(n).into_iter().map(|v| v as f32).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, n, n]), &device)
    };
    let coefficients = matrix(h).matmul(error).matmul(matrix(w).swap_dims(2, 3)); // [B, C, H, W]
    let weight: Vec<f32> = frequency_weight(h, w, scales).into_iter().map(|v| v as f32).collect();
    let weight = Tensor::<4>::from_data(TensorData::new(weight, [1, 1, h, w]), &device);
    (coefficients.square() * weight).mean_dims(&[1, 2, 3]).reshape([b])
}

/// The orthonormal DCT-II as a matrix `[n, n]` (coefficient, sample).
fn dct_matrix(n: usize) -> Vec<f64> {
    let row = |k: usize| {
        let scale = if k == 0 { 1.0 } else { 2.0f64 };
        let scale = (scale / n as f64).sqrt();
        (0..n).map(move |i| {
            let angle = std::f64::consts::PI * (2 * i + 1) as f64 * k as f64 / (2 * n) as f64;
            scale * angle.cos()
        })
    };
    (0..n).flat_map(row).collect()
}

/// The weight `[h, w]` of DCT coefficients: the smaller over both axes of `min(s, −log₂ r)` with
/// `r` from 0.5/n to 0.5.
pub fn frequency_weight(h: usize, w: usize, scales: usize) -> Vec<f64> {
    let axis = |n: usize| -> Vec<f64> {
        super::flow::linspace(0.5 / n as f64, 0.5, n)
            .into_iter()
            .map(|r| (-r.log2()).min(scales as f64))
            .collect()
    };
    let (rows, columns) = (axis(h), axis(w));
    rows.iter().flat_map(|r| columns.iter().map(move |c| r.min(*c))).collect()
}

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

/// EMA decay after `updates` earlier updates: `clamp(1 − (1 + n)^(−power), 0, max)`.
///
/// `max` lies in 0…1.
///
/// # Panics
///
/// If `max` is negative or NaN.
pub fn ema_decay(updates: u64, power: f64, max: f64) -> f64 {
    (1.0 - (1.0 + updates as f64).powf(-power)).clamp(0.0, max)
}

/// Φ⁻¹ for 0 < p < 1, relative error about 1e-15 (Wichura 1988, algorithm AS 241, PPND16).
pub fn inverse_normal_cdf(p: f64) -> f64 {
    let polynomial = |c: &[f64], r: f64| c.iter().rev().fold(0.0, |sum, c| sum * r + c);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * polynomial(&CENTRE_NUMERATOR, r) / polynomial(&CENTRE_DENOMINATOR, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-tail.ln()).sqrt();
    let value = if r <= 5.0 {
        polynomial(&MIDDLE_NUMERATOR, r - 1.6) / polynomial(&MIDDLE_DENOMINATOR, r - 1.6)
    } else {
        polynomial(&TAIL_NUMERATOR, r - 5.0) / polynomial(&TAIL_DENOMINATOR, r - 5.0)
    };
    value.copysign(q)
}

const CENTRE_NUMERATOR: [f64; 8] = [
    3.387_132_872_796_366_5,
    1.331_416_678_917_843_8e2,
    1.971_590_950_306_551_3e3,
    1.373_169_376_550_946e4,
    4.592_195_393_154_987e4,
    6.726_577_092_700_87e4,
    3.343_057_558_358_813e4,
    2.509_080_928_730_122_7e3,
];
const CENTRE_DENOMINATOR: [f64; 8] = [
    1.0,
    4.231_333_070_160_091e1,
    6.871_870_074_920_579e2,
    5.394_196_021_424_751e3,
    2.121_379_430_158_659_7e4,
    3.930_789_580_009_271e4,
    2.872_908_573_572_194_3e4,
    5.226_495_278_852_854e3,
];
const MIDDLE_NUMERATOR: [f64; 8] = [
    1.423_437_110_749_683_5,
    4.630_337_846_156_546,
    5.769_497_221_460_691,
    3.647_848_324_763_204_5,
    1.270_458_252_452_368_4,
    2.417_807_251_774_506e-1,
    2.272_384_498_926_918_4e-2,
    7.745_450_142_783_414e-4,
];
const MIDDLE_DENOMINATOR: [f64; 8] = [
    1.0,
    2.053_191_626_637_759,
    1.676_384_830_183_803_8,
    6.897_673_349_851e-1,
    1.481_039_764_274_800_8e-1,
    1.519_866_656_361_645_7e-2,
    5.475_938_084_995_345e-4,
    1.050_750_071_644_416_9e-9,
];
const TAIL_NUMERATOR: [f64; 8] = [
    6.657_904_643_501_103,
    5.463_784_911_164_114,
    1.784_826_539_917_291_3,
    2.965_605_718_285_048_7e-1,
    2.653_218_952_657_612_4e-2,
    1.242_660_947_388_078_4e-3,
    2.711_555_568_743_487_6e-5,
    2.010_334_399_292_288_1e-7,
];
const TAIL_DENOMINATOR: [f64; 8] = [
    1.0,
    5.998_322_065_558_88e-1,
    1.369_298_809_227_358e-1,
    1.487_536_129_085_061_5e-2,
    7.868_691_311_456_133e-4,
    1.846_318_317_510_054_8e-5,
    1.421_511_758_316_446e-7,
    2.044_263_103_389_939_8e-15,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_normal_cdf_has_known_values() {
        let known = [
            (0.5, 0.0),
            (0.25, -0.674_489_750_196_081_7),
            (0.001, -3.090_232_306_167_813_5),
            (1e-20, -9.262_340_089_798_408),
            (0.975, 1.959_963_984_540_054),
        ];
        for (p, x) in known {
            assert!((inverse_normal_cdf(p) - x).abs() <= 1e-13 * (1.0 + x.abs()), "p = {p}");
        }
    }
}
