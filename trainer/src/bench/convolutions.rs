//! Benchmarks of what autoencoders and Inception are made of, at sizes of their own.

use tintype::burn::tensor::Tensor;
use tintype::nn::conv::Conv2d;
use tintype::nn::norm::GroupNorm;
use tintype::weights::computing_in;

use super::{Bench, Measurement};
use crate::network::inception::{avg_pool, halved};

/// Channels and side of an image inside of Stable Diffusion's autoencoder at 256².
const CHANNELS: usize = 256;
const SIDE: usize = 128;
/// Groups of its norms.
const GROUPS: usize = 32;
/// Channels and side where Inception first takes maxima, and where it takes means of the most channels.
const MAXIMA: [usize; 2] = [64, 147];
const MEANS: [usize; 2] = [288, 35];

/// Measures each operation that is wanted, forward; pooling in float32, as Inception computes.
pub fn convolutions(bench: &Bench, batch: usize) -> Vec<Measurement> {
    let (device, precision, size) = (&bench.device, bench.precision, bench.size());
    let mut found = Vec::new();
    let mut add = |name: &str, flops: usize, bytes: f64, call: &mut dyn FnMut()| {
        found.extend(bench.operation(format!("{name} {batch}"), flops as f64, bytes, call));
    };
    let x: Tensor<4> = bench.values([batch, CHANNELS, SIDE, SIDE]);
    let small: Tensor<4> = bench.values([batch, CHANNELS, SIDE / 2, SIDE / 2]);
    let of = |side: usize| batch * CHANNELS * side * side;
    let flops = |side: usize| 2 * of(side) * CHANNELS * 9;
    let bytes = |values: usize| values as f64 * size;
    let weights = CHANNELS * CHANNELS * 9;

    let norm = computing_in(&GroupNorm::new(GROUPS, CHANNELS, device), precision);
    add("group norm and silu", 0, bytes(2 * of(SIDE)), &mut || {
        norm.silu(x.clone());
    });
    let same = computing_in(&Conv2d::same(CHANNELS, CHANNELS, 3, device), precision);
    add("convolution", flops(SIDE), bytes(2 * of(SIDE) + weights), &mut || {
        same.forward(x.clone());
    });
    let down = computing_in(&Conv2d::downsample(CHANNELS, device), precision);
    let both = of(SIDE) + of(SIDE / 2);
    add("convolution, stride 2", flops(SIDE / 2), bytes(both + weights), &mut || {
        down.forward(x.clone());
    });
    // As a decoder's `upsample` has it; counted as if the large image were there.
    add("nearest and convolution", flops(SIDE), bytes(both + weights), &mut || {
        same.forward_upsampled(small.clone()); // [B, C, 128, 128]
    });

    let pooled = |[c, side]: [usize; 2]| bench.values_on([batch, c, side, side], device);
    let bytes = |x: &Tensor<4>| 4.0 * x.dims().iter().product::<usize>() as f64;
    let x = pooled(MAXIMA);
    add("max pool", 0, bytes(&x) * 1.25, &mut || {
        halved(x.clone());
    });
    let x = pooled(MEANS);
    add("average pool", 0, bytes(&x) * 2.0, &mut || {
        avg_pool(x.clone());
    });
    found
}
