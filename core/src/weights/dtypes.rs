//! In which dtype a parameter is loaded.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::names::{authors_name, is_float32};
use super::store::{Dtype, Weights};
use crate::device::is_processor;
use crate::nn::linear;

/// The dtypes of parameters; told of each path that a walk through a network enters.
pub(super) struct Dtypes {
    precision: FloatDType,
    /// Whether weights of linear layers keep the 16 bits that they have in the file.
    keeps: bool,
    /// Whether the last path is that of such a weight.
    is_linear: bool,
}

impl Dtypes {
    /// All in a network's precision.
    pub(super) fn new(precision: FloatDType) -> Self {
        Self { precision, keeps: false, is_linear: false }
    }

    /// Those of a network that only predicts. A processor's layers widen weights as they use them, exactly, so that a
    /// network in float32 has the same outputs and half the size.
    pub(super) fn for_inference(precision: FloatDType, device: &Device) -> Self {
        let keeps = precision == FloatDType::F32 && is_processor(device);
        Self { keeps, ..Self::new(precision) }
    }

    /// What a walk enters.
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.is_linear = container == linear::CONTAINER && name == "weight";
    }

    /// The dtype of the parameter at the last path, which has this name. Normalisation statistics and frequencies
    /// are in float32.
    pub(super) fn of(&self, name: &str, weights: &Weights) -> DType {
        let stored = weights.tensors.get(name).map(|view| view.dtype);
        match stored {
            _ if is_float32(name) => DType::F32,
            Some(Dtype::F16) if self.keeps && self.is_linear => DType::F16,
            Some(Dtype::BF16) if self.keeps && self.is_linear => DType::BF16,
            _ => DType::from(self.precision),
        }
    }
}

/// Bytes that a network's parameters take once it is loaded for inference; allocates nothing.
pub fn memory_for_inference<M: Module>(
    network: &M,
    weights: &Weights,
    precision: FloatDType,
    device: &Device,
) -> usize {
    let dtypes = Dtypes::for_inference(precision, device);
    let mut counter = Counter { weights, dtypes, path: Vec::new(), bytes: 0 };
    network.visit(&mut counter);
    counter.bytes
}

struct Counter<'a> {
    weights: &'a Weights,
    dtypes: Dtypes,
    path: Vec<String>,
    bytes: usize,
}

impl ModuleVisitor for Counter<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.dtypes.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let dtype = self.dtypes.of(&authors_name(&self.path), self.weights);
        let count = param.lazy_shape().iter().fold(1, |n: usize, &d| n.saturating_mul(d));
        self.bytes = self.bytes.saturating_add(count.saturating_mul(dtype.size()));
    }
}
