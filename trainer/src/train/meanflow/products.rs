//! Whether a device multiplies in float32. du/dt is a difference over a small step, of which lower precision leaves
//! little.

use tintype::burn::tensor::{Device, Tensor};
use tintype::noise::{ImageKey, Stream, normals};
use tintype::shaders::linear;

use crate::train::host::Values;

/// Rows of the product that is compared.
const ROWS: usize = 1024;

/// A larger error means that a device does not multiply in float32: TF32's is about 4e-4.
pub const MAX_ERROR: f64 = 3e-5;

/// Relative L2 error of a device's products with a matrix of so many rows and columns against the CPU's; 0 on the CPU.
///
/// # Panics
///
/// If the values cannot be read back from the device.
pub fn error_of_products(features: usize, device: &Device) -> f64 {
    let exact = Device::flex();
    if *device == exact {
        return 0.0;
    }
    let factors = factors(features);
    distance(&product(factors.clone(), device), &product(factors, &exact))
}

/// Random factors of a product: `[ROWS, features]` and `[features, features]`
fn factors(features: usize) -> [Values<2>; 2] {
    let random = |seed: u64, rows: usize| {
        let values = normals(ImageKey::new(seed, 0), Stream::Noise, 0, rows * features);
        Values::new(values, [rows, features])
    };
    [random(0, ROWS), random(1, features)]
}

fn product([x, weight]: [Values<2>; 2], device: &Device) -> Vec<f64> {
    let y: Tensor<2> = linear(x.tensor(device), weight.tensor(device), None); // [ROWS, features]
    y.into_data().iter::<f64>().collect()
}

/// How far `a` is from `b`, relative to `b`.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let apart: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| b.powi(2)).sum();
    (apart / size.max(f64::MIN_POSITIVE)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_ten_bits_are_noticed() {
        let device = Device::flex();
        assert_eq!(error_of_products(64, &device), 0.0);
        let exact = factors(64);
        // TF32 keeps ten bits of a mantissa.
        let rounded = exact.clone().map(|factor| {
            let round = |v: &f32| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff);
            Values::new(factor.values.iter().map(round).collect(), factor.shape)
        });
        let exact = product(exact, &device);
        assert!(distance(&product(rounded, &device), &exact) > MAX_ERROR);
        // Another order of the sums is not.
        let nudged: Vec<f64> = exact.iter().map(|v| v * (1.0 + 1e-6)).collect();
        assert!(distance(&nudged, &exact) < MAX_ERROR);
    }
}
