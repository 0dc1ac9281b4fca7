//! HDiT under the Karras preconditioner, as sampling uses it.

use burn::tensor::{FloatDType, Int, Tensor};

use super::{Conditions, HDiT};
use crate::diffusion::karras::Preconditioner;
use crate::model::Network;

/// `D(x; σ)`
impl Network for HDiT {
    fn predict(&self, x: Tensor<4>, sigma: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let class = self.null_class().map(|_| labels);
        let conditions = Conditions { class, ..Conditions::default() };
        let precision = self.mapping.dtype();
        Preconditioner { sigma_data: self.sigma_data }.denoise(x, sigma, |x, sigma| {
            self.forward(x.cast(precision), sigma, conditions).cast(FloatDType::F32)
        })
    }
}
