//! Building blocks shared by the networks, one idea a file.
//!
//! Parameters carry the authors' layouts (linear weights are `[out, in]`, convolutions
//! `[out, in, kh, kw]`), so published weights load unchanged. They are created lazily: a network
//! whose shapes are only inspected allocates nothing.

pub mod activation;
pub mod attention;
pub mod block;
pub mod conv;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
mod kept;
pub mod linear;
pub mod neighborhood;
pub mod norm;
pub mod patch;
pub mod position;
pub mod rope;

use burn::module::{Initializer, Param};
use burn::tensor::{Device, Tensor};

/// A parameter filled with one value.
pub(crate) fn constant<const D: usize>(
    shape: [usize; D],
    value: f64,
    device: &Device,
) -> Param<Tensor<D>> {
    Initializer::Constant { value }.init(shape, device)
}

/// A parameter drawn from N(0, std²).
pub(crate) fn normal<const D: usize>(
    shape: [usize; D],
    std: f64,
    device: &Device,
) -> Param<Tensor<D>> {
    Initializer::Normal { mean: 0.0, std }.init(shape, device)
}

/// A frozen table computed on the host: part of the checkpoint, not of the training.
pub(crate) fn table<const D: usize>(
    shape: [usize; D],
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    computed(shape, values, false, device)
}

/// A parameter that starts as a table computed on the host.
pub(crate) fn learned_table<const D: usize>(
    shape: [usize; D],
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    computed(shape, values, true, device)
}

fn computed<const D: usize>(
    shape: [usize; D],
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    trains: bool,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::uninitialized(
        burn::module::ParamId::new(),
        move |device, trains| {
            let values = burn::tensor::TensorData::new(values(), shape);
            let table: Tensor<D> = Tensor::from_data(values, device);
            table.set_require_grad(trains)
        },
        device.clone(),
        trains,
        shape.into(),
    )
}
