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
    from_host(shape, values, false, device)
}

/// A parameter whose first values are computed on the host.
pub(crate) fn trained_table<const D: usize>(
    shape: [usize; D],
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    from_host(shape, values, true, device)
}

fn from_host<const D: usize>(
    shape: [usize; D],
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
    trains: bool,
    device: &Device,
) -> Param<Tensor<D>> {
    let tensor = move |device: &Device, trains: bool| {
        let data = burn::tensor::TensorData::new(values(), shape);
        Tensor::<D>::from_data(data, device).set_require_grad(trains)
    };
    let id = burn::module::ParamId::new();
    Param::uninitialized(id, tensor, device.clone(), trains, shape.into())
}
