//! The roofline of a device: measured throughput of a matrix product and of a copy.

use serde::Serialize;
use tintype::burn::tensor::Tensor;
use tintype::shaders::linear;

use super::Bench;

/// Measured peak compute and memory bandwidth.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Roofline {
    /// Throughput of a large matrix product in TFLOP/s, measured rather than theoretical.
    pub product_tflops: f64,
    /// Bandwidth of a copy, reads plus writes, in GB/s.
    pub copy_gbytes: f64,
}

/// Measures the roofline.
pub fn roofline(bench: &Bench) -> Roofline {
    let small = bench.device == tintype::burn::tensor::Device::flex() || software(bench);
    let side = if small { 512 } else { 8192 };
    // Rows of tokens: a layer of conditions `[B, in]` has another kernel.
    let a: Tensor<3> = bench.values([1, side, side]);
    let b: Tensor<2> = bench.values([side, side]);
    // The faster of the backend's product and of this library's.
    let product = [false, true].map(|own| {
        bench.clock.time(&bench.device, || {
            let _product = match own {
                true => linear(a.clone(), b.clone(), None),
                false => a.clone().matmul(b.clone().unsqueeze()),
            };
        })
    });
    let product = product.map(|timing| timing.fastest).into_iter().fold(f64::INFINITY, f64::min);
    let count = if small { 1 << 22 } else { 1 << 29 };
    let x = bench.values([count]);
    let copy = bench.clock.time(&bench.device, || {
        let _copy = x.clone() * 1.5;
    });
    Roofline {
        product_tflops: 2.0 * (side as f64).powi(3) / product / 1e12,
        copy_gbytes: 2.0 * count as f64 * bench.size() / copy.fastest / 1e9,
    }
}

/// Whether the device is a software GPU.
fn software(bench: &Bench) -> bool {
    let found = tintype::device::list().into_iter().find(|found| found.device == bench.device);
    found.is_some_and(|found| found.kind == tintype::device::Kind::Software)
}
