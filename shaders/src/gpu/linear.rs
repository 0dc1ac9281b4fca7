//! Linear layers by products of our own: on Hopper, of 16-bit tensors, and through wgpu, with kernels for
//! software GPUs and others for the rest.

use burn::backend::DispatchTensor;
use burn_backend::TensorMetadata;

#[cfg(feature = "wgpu")]
use super::activation::{Activation, BiasActivation};
#[cfg(feature = "cuda")]
use super::bridge::run;
use super::columns::Columns;
#[cfg(feature = "cuda")]
use super::cuda::linear::{Product, takes};
#[cfg(feature = "wgpu")]
use super::dots;
#[cfg(feature = "wgpu")]
use super::matmul::{self, Inner};
#[cfg(feature = "wgpu")]
use super::patches::{product, suits, transposed};
use crate::gradient::Operation;

/// `x Wᵀ + b` of `[…, in]`, `[out, in]` and, where there is one, `[out]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    /// Whether GELU with the tanh approximation follows. Such a layer has no gradient: the backward
    /// pass wants what goes into the GELU.
    pub gelu: bool,
}

impl Operation for Linear {
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)> {
        #[cfg(feature = "cuda")]
        if takes(inputs) {
            let [result] = run(Product::Result { gelu: self.gelu }, inputs.to_vec())?;
            return Some((result, Vec::new()));
        }
        #[cfg(feature = "wgpu")]
        if suits(inputs) {
            let result = dots::product(&inputs[0], &inputs[1], inputs.get(2))?;
            // As an epilogue, once for each of a unit's 256 results, it would double what drivers compile.
            let gelu = BiasActivation { activation: Activation::GeluTanh, bias: false };
            return match self.gelu {
                true => gelu.forward(&[result]),
                false => Some((result, Vec::new())),
            };
        }
        #[cfg(feature = "wgpu")]
        if matmul::takes(inputs) {
            let along = Inner { a: true, b: true };
            let result = matmul::multiply(&inputs[0], &inputs[1], along, inputs.get(2), self.gelu)?;
            return Some((result, Vec::new()));
        }
        None
    }

    fn has_gradient(&self) -> bool {
        !self.gelu
    }

    fn backward(
        &self,
        inputs: &[DispatchTensor],
        _: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>> {
        let input = || gradient_of(Factor::Input, inputs, &gradient);
        let weight = || gradient_of(Factor::Weight, inputs, &gradient);
        let bias = |bias: &DispatchTensor| {
            let sum = Columns { groups: 1, sum: true, normalised: false };
            let sum = sum.run(vec![gradient.clone()])?.reshape([-1]);
            Some(sum.cast(bias.dtype()).into_dispatch())
        };
        let mut found = vec![wanted[0].then(input).flatten(), wanted[1].then(weight).flatten()];
        found.extend(inputs.get(2).map(|b| wanted[2].then(|| bias(b)).flatten()));
        Some(found)
    }
}

/// What a layer multiplies.
#[derive(Clone, Copy)]
enum Factor {
    Input,
    Weight,
}

/// The gradient of one factor, a product of that of the result and the other.
fn gradient_of(
    factor: Factor,
    inputs: &[DispatchTensor],
    gradient: &DispatchTensor,
) -> Option<DispatchTensor> {
    #[cfg(feature = "cuda")]
    if takes(inputs) {
        let (kind, other) = match factor {
            Factor::Input => (Product::Input, &inputs[1]),
            Factor::Weight => (Product::Weight, &inputs[0]),
        };
        return run(kind, vec![gradient.clone(), other.clone()]).map(|[result]| result);
    }
    #[cfg(feature = "wgpu")]
    return match (factor, matmul::takes(inputs)) {
        (Factor::Input, true) => {
            matmul::multiply(gradient, &inputs[1], Inner { a: true, b: false }, None, false)
        }
        (Factor::Weight, true) => {
            matmul::multiply(gradient, &inputs[0], Inner { a: false, b: false }, None, false)
        }
        (Factor::Input, false) => product(gradient, &inputs[1], None),
        (Factor::Weight, false) => product(&transposed(gradient), &inputs[0], None),
    };
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = (factor, inputs, gradient);
        None
    }
}
