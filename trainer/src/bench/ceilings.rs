//! What a device can do at best: a copy and a matrix product, measured.

use serde::Serialize;
use tintype::burn::tensor::Tensor;
use tintype::shaders::linear;

use super::Bench;

/// The ceilings that times are held against.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceilings {
    /// Of a large matrix product, 10¹² operations a second: what the device was seen to do, not what it
    /// might.
    pub product_tflops: f64,
    /// Of a copy, read and written, 10⁹ bytes a second.
    pub copy_gbytes: f64,
}

/// Measures both.
pub fn ceilings(bench: &Bench) -> Ceilings {
    let small = bench.device == tintype::burn::tensor::Device::flex() || software(bench);
    let side = if small { 512 } else { 8192 };
    let (a, b): (Tensor<2>, Tensor<2>) = (bench.values([side, side]), bench.values([side, side]));
    // The faster of the backend's product and of this library's, where it has one.
    let product = [false, true].map(|own| {
        bench.clock.time(&bench.device, || {
            let _product = match own {
                true => linear(a.clone(), b.clone(), None),
                false => a.clone().matmul(b.clone()),
            };
        })
    });
    let product = product.map(|timing| timing.fastest).into_iter().fold(f64::INFINITY, f64::min);
    let count = if small { 1 << 22 } else { 1 << 29 };
    let x = bench.values([count]);
    let copy = bench.clock.time(&bench.device, || {
        let _copy = x.clone() * 1.5;
    });
    Ceilings {
        product_tflops: 2.0 * (side as f64).powi(3) / product / 1e12,
        copy_gbytes: 2.0 * count as f64 * bench.size() / copy.fastest / 1e9,
    }
}

/// Whether the GPU is the processor in disguise.
fn software(bench: &Bench) -> bool {
    let found = tintype::device::list().into_iter().find(|found| found.device == bench.device);
    found.is_some_and(|found| found.kind == tintype::device::Kind::Software)
}
