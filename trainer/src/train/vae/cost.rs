//! MACs of the autoencoder.

use tintype::model::vavae::VaeConfig;

/// Multiply-adds of encoding and decoding one square image: convolutions and attention.
///
/// # Panics
///
/// If `config` has no levels.
pub fn macs(config: &VaeConfig, side: usize) -> f64 {
    encoder_macs(config, side) + decoder_macs(config, side)
}

fn conv(side: usize, c_in: usize, c_out: usize, k: usize) -> f64 {
    (side * side * c_in * c_out * k * k) as f64
}

fn block(side: usize, c_in: usize, c_out: usize) -> f64 {
    let skip = if c_in == c_out { 0.0 } else { conv(side, c_in, c_out, 1) };
    conv(side, c_in, c_out, 3) + conv(side, c_out, c_out, 3) + skip
}

fn attention(side: usize, c: usize) -> f64 {
    let n = (side * side) as f64;
    4.0 * conv(side, c, c, 1) + 2.0 * n * n * c as f64
}

/// The residual blocks of a level, from `c` channels on.
fn level(config: &VaeConfig, l: usize, side: usize, blocks: usize, mut c: usize) -> f64 {
    let attends = config.attn_resolutions.contains(&(config.resolution >> l));
    let width = config.ch * config.ch_mult[l];
    let mut total = 0.0;
    for _ in 0..blocks {
        total += block(side, c, width) + if attends { attention(side, width) } else { 0.0 };
        c = width;
    }
    total
}

/// Width and side of the innermost level, and the MACs of its middle.
fn inner(config: &VaeConfig, side: usize) -> (usize, usize, f64) {
    let last = config.ch_mult.len() - 1;
    let (width, small) = (config.ch * config.ch_mult[last], side >> last);
    (width, small, 2.0 * block(small, width, width) + attention(small, width))
}

/// Multiply-adds of encoding one square image.
///
/// # Panics
///
/// If `config` has no levels.
pub fn encoder_macs(config: &VaeConfig, side: usize) -> f64 {
    let (inner, small, mid) = inner(config, side);
    let (z, e) = (config.z_channels, config.latent_channels());
    let mut total = conv(side, config.in_channels, config.ch, 3) + mid;
    let mut c = config.ch;
    for l in 0..config.ch_mult.len() {
        total += level(config, l, side >> l, config.num_res_blocks, c);
        c = config.ch * config.ch_mult[l];
        if l + 1 < config.ch_mult.len() {
            total += conv((side >> l) / 2, c, c, 3);
        }
    }
    total + conv(small, inner, 2 * z, 3) + conv(small, 2 * z, 2 * e, 1)
}

/// Multiply-adds of decoding to one square image of this side.
///
/// # Panics
///
/// If `config` has no levels.
pub fn decoder_macs(config: &VaeConfig, side: usize) -> f64 {
    let (inner, small, mid) = inner(config, side);
    let (z, e) = (config.z_channels, config.latent_channels());
    let mut total = conv(small, e, z, 1) + conv(small, z, inner, 3) + mid;
    let mut c = inner;
    for l in (0..config.ch_mult.len()).rev() {
        total += level(config, l, side >> l, config.num_res_blocks + 1, c);
        c = config.ch * config.ch_mult[l];
        if l > 0 {
            total += conv(2 * (side >> l), c, c, 3);
        }
    }
    total + conv(side, config.ch * config.ch_mult[0], config.out_ch, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_autoencoder_costs_what_was_counted() {
        let gflop = 2.0 * macs(&VaeConfig::f16d32(), 256) / 1e9;
        assert!((gflop - (137.94 + 252.19)).abs() < 0.1, "{gflop}");
    }
}
