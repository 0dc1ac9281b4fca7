//! HDiT under the Karras preconditioner, as sampling uses it.

use burn::tensor::{FloatDType, Int, Tensor};

use super::{Conditions, HDiT};
use crate::diffusion::karras::Preconditioner;
use crate::model::Network;

/// `D(x; σ)`
#[derive(Debug)]
pub(super) struct Denoiser {
    network: HDiT,
    preconditioner: Preconditioner,
    precision: FloatDType,
}

impl Denoiser {
    pub(super) fn new(network: HDiT, sigma_data: f64, precision: FloatDType) -> Self {
        Self { network, preconditioner: Preconditioner { sigma_data }, precision }
    }
}

impl Network for Denoiser {
    fn predict(&self, x: Tensor<4>, sigma: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let class = self.network.null_class().map(|_| labels);
        let conditions = Conditions { class, ..Conditions::default() };
        self.preconditioner.denoise(x, sigma, |x, sigma| {
            let x = x.cast(self.precision);
            self.network.forward(x, sigma, conditions).cast(FloatDType::F32)
        })
    }
}
