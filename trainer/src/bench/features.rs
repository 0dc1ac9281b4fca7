//! Benchmark of the features that FID compares.

use tintype::weights::{Flat, layout, with_flat};

use super::{Bench, Measurement};
use crate::network::inception::{Inception, SIDE};

/// Size of the weights: activations keep their order of magnitude through the network.
const WEIGHTS: f64 = 0.05;

/// Inception's features of a batch of images of 299 × 299, in float32 whatever the precision, as metrics
/// compute them. Weights are random; reading and resizing of images is not part of it.
pub fn inception(bench: &Bench, batch: usize) -> Measurement {
    let network = Inception::untrained(&bench.device);
    let values = |shape: Vec<usize>| {
        bench.values_on([shape.iter().product()], &bench.device) * WEIGHTS // [count]
    };
    let random: Flat =
        layout(&network).into_iter().map(|(name, shape)| (name, values(shape))).collect();
    let network = with_flat(network, &random);
    let x = bench.values_on([batch, 3, SIDE, SIDE], &bench.device);
    let timing = bench.clock.time(&bench.device, || {
        network.forward(x.clone());
    });
    Measurement::new(format!("inception {batch}"), timing, batch as f64, "images/s")
}
