//! The Karras (EDM) preconditioner, its losses and the densities of noise levels
//! (Karras et al., arXiv 2206.00364; k-diffusion; HDiT, arXiv 2401.11605).

mod density;
mod normal;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

pub use density::{DensityContext, SigmaDensity, stratified};
pub(crate) use normal::inverse_normal_cdf;

use crate::diffusion::loss::mean_squared_error;

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

/// The velocity of the linear flow that denoises to D: noise less data, `(x − D)/σ − D`. The flow's state is `x/(1 + σ)`,
/// at time `σ/(1 + σ)`.
///
/// # Shapes
///
/// * `x`, `denoised`: `[B, C, H, W]`, at noise level `sigma` > 0
/// * returns the same
///
/// # Panics
///
/// If the shapes differ.
pub fn flow_velocity(x: Tensor<4>, denoised: Tensor<4>, sigma: f64) -> Tensor<4> {
    (x - denoised.clone()) / sigma - denoised
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
        crate::diffusion::flow::linspace(0.5 / n as f64, 0.5, n)
            .into_iter()
            .map(|r| (-r.log2()).min(scales as f64))
            .collect()
    };
    let (rows, columns) = (axis(h), axis(w));
    rows.iter().flat_map(|r| columns.iter().map(move |c| r.min(*c))).collect()
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

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::diffusion::flow::Interpolant;

    #[test]
    fn a_denoiser_has_the_velocity_of_a_flow() {
        let state = |values: [f64; 3]| -> Tensor<4> {
            let data = TensorData::new(values.to_vec(), [1, 1, 1, 3]);
            Tensor::from_data(data, (&Device::default(), DType::F64))
        };
        for sigma in [0.01, 1.0, 80.0] {
            let (x, denoised) = (state([0.3, -4.0, 60.0]), state([0.2, -0.7, 0.9]));
            let velocity = flow_velocity(x.clone(), denoised.clone(), sigma);
            let (x, t) = (x / (1.0 + sigma), sigma / (1.0 + sigma));
            let clean = Interpolant::Linear.clean(x, velocity, t);
            let error = (clean - denoised).abs().max().into_scalar::<f64>();
            assert!(error < 1e-9, "{sigma}: {error}");
        }
    }
}
