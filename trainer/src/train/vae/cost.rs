//! What the autoencoder costs.

use tintype::model::vavae::VaeConfig;

/// Multiply-adds of encoding and decoding one square image: convolutions and attention.
pub fn macs(config: &VaeConfig, side: usize) -> f64 {
    let conv = |side: usize, c_in: usize, c_out: usize, k: usize| {
        (side * side * c_in * c_out * k * k) as f64
    };
    let block = |side: usize, c_in: usize, c_out: usize| {
        let skip = if c_in == c_out { 0.0 } else { conv(side, c_in, c_out, 1) };
        conv(side, c_in, c_out, 3) + conv(side, c_out, c_out, 3) + skip
    };
    let attention = |side: usize, c: usize| {
        let n = (side * side) as f64;
        4.0 * conv(side, c, c, 1) + 2.0 * n * n * c as f64
    };
    let levels = config.ch_mult.len();
    let width = |l: usize| config.ch * config.ch_mult[l];
    let attends = |l: usize| config.attn_resolutions.contains(&(config.resolution >> l));
    let (inner, small) = (width(levels - 1), side >> (levels - 1));
    let mid = 2.0 * block(small, inner, inner) + attention(small, inner);
    let (z, e) = (config.z_channels, config.latent_channels());
    let mut total = conv(side, config.in_channels, config.ch, 3)
        + conv(small, inner, 2 * z, 3)
        + conv(small, 2 * z, 2 * e, 1)
        + conv(small, e, z, 1)
        + conv(small, z, inner, 3)
        + conv(side, width(0), config.out_ch, 3)
        + 2.0 * mid;
    let mut c = config.ch;
    for l in 0..levels {
        let s = side >> l;
        for _ in 0..config.num_res_blocks {
            total += block(s, c, width(l));
            c = width(l);
            total += if attends(l) { attention(s, c) } else { 0.0 };
        }
        if l + 1 < levels {
            total += conv(s / 2, c, c, 3);
        }
    }
    let mut c = inner;
    for l in (0..levels).rev() {
        let s = side >> l;
        for _ in 0..=config.num_res_blocks {
            total += block(s, c, width(l));
            c = width(l);
            total += if attends(l) { attention(s, c) } else { 0.0 };
        }
        if l > 0 {
            total += conv(2 * s, c, c, 3);
        }
    }
    total
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
