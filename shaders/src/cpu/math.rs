//! Elementary functions that compilers vectorise: no branches, no calls.

/// eˣ to about 1 unit in the last place for |x| < 87; saturates beyond.
///
/// `x = n·ln 2 + r` with |r| ≤ ln 2 / 2, a polynomial of degree 6 for eʳ (Cephes), and 2ⁿ put
/// into the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it leaves the nearest integer in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e_r = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    e_r * f32::from_bits((exponent.wrapping_add(127) << 23) as u32)
}

/// `x·sigmoid(x)`
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The same and its derivative.
#[inline(always)]
pub(crate) fn silu_with_slope(x: f32) -> (f32, f32) {
    let e = exp(-x);
    let s = 1.0 / (1.0 + e);
    (x * s, s + x * s * (e * s)) // 1 − s is e·s, without cancellation
}

const SQRT_8_OVER_PI: f32 = 1.595_769;

/// GELU with the tanh approximation, as `x·sigmoid(2u)`, `u = √(2/π)(x + 0.044715x³)`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    x / (1.0 + exp(-SQRT_8_OVER_PI * (x + 0.044_715 * x * x * x)))
}

/// The derivative of [`gelu_tanh`].
#[inline(always)]
pub(crate) fn gelu_tanh_slope(x: f32) -> f32 {
    let cubic = 0.044_715 * x * x;
    let e = exp(-SQRT_8_OVER_PI * x * (1.0 + cubic));
    let s = 1.0 / (1.0 + e);
    s + x * s * (e * s) * SQRT_8_OVER_PI * (1.0 + 3.0 * cubic)
}

/// The exact GELU, `x/2·(1 + erf(x/√2))`, to about 3e-7·|x|.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// The same and its derivative.
#[inline(always)]
pub(crate) fn gelu_with_slope(x: f32) -> (f32, f32) {
    let (cdf, density) = normal(x);
    (x * cdf, cdf + x * density)
}

/// Distribution function (Abramowitz & Stegun 7.1.26) and density of the normal distribution.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_7;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    let e = exp(-z * z);
    let cdf = 0.5 * (p * t * e); // half of 1 − erf(z)
    (if x < 0.0 { cdf } else { 1.0 - cdf }, 0.398_942_3 * e)
}

/// A float16 by its bits. Every kind of number is computed, and one is chosen.
#[inline(always)]
pub(crate) fn from_f16(bits: u16) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    const ONE: u32 = 1 << 23; // the least exponent
    // Exponent and mantissa where a float32 has them.
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let normal = magnitude + REBIAS;
    // Infinite or NaN: an exponent of ones again.
    let endless = magnitude + 2 * REBIAS;
    // Subnormal: 2⁻¹⁴ is added as the implicit one, and subtracted as a number.
    let above = f32::from_bits(magnitude + REBIAS + ONE);
    let small = (above - f32::from_bits(REBIAS + ONE)).to_bits();
    let finite = if magnitude < ONE { small } else { normal };
    let value = if magnitude < 31 * ONE { finite } else { endless };
    f32::from_bits((u32::from(bits & 0x8000) << 16) | value)
}

/// A bfloat16 by its bits, which are the upper half of a float32's.
#[inline(always)]
pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

// Chunks are arrays, and loops count: what iterators call is not inlined into code for wider vectors than the crate's
// own where the compiler does without ThinLTO, and is then called for every chunk, or every row.

/// One of many parts: their halves on each other while these are vectors, and then one after another. Halves to the
/// end would have the compiler take pairs for vectors from the beginning.
#[inline(always)]
fn folded<const N: usize>(mut parts: [f32; N], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut count = N;
    while count > 8 {
        count /= 2;
        for i in 0..count {
            parts[i] = f(parts[i], parts[count + i]);
        }
    }
    let mut one = parts[0];
    for part in &parts[1..count] {
        one = f(one, *part);
    }
    one
}

#[inline(always)]
fn folded_sum<const N: usize>(parts: [f32; N]) -> f32 {
    folded(
        parts,
        #[inline(always)]
        |a, b| a + b,
    )
}

/// Sum in sixteen interleaved parts, which vector registers hold.
#[inline(always)]
fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (mut parts, mut last) = ([0.0f32; 16], 0.0f32);
    let (chunks, rest) = values.as_chunks::<16>();
    for i in 0..rest.len() {
        last += f(rest[i]);
    }
    for chunk in chunks {
        for i in 0..16 {
            parts[i] += f(chunk[i]);
        }
    }
    folded_sum(parts) + last
}

/// `Σ v`
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    sum_of(
        values,
        #[inline(always)]
        |v| v,
    )
}

/// `Σ (v − centre)²`
#[inline(always)]
pub(crate) fn sum_of_squares(values: &[f32], centre: f32) -> f32 {
    sum_of(
        values,
        #[inline(always)]
        |v| (v - centre) * (v - centre),
    )
}

/// Largest value.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let (mut parts, mut last) = ([f32::NEG_INFINITY; 16], f32::NEG_INFINITY);
    let (chunks, rest) = values.as_chunks::<16>();
    for i in 0..rest.len() {
        last = last.max(rest[i]);
    }
    for chunk in chunks {
        for i in 0..16 {
            parts[i] = parts[i].max(chunk[i]);
        }
    }
    let largest = folded(
        parts,
        #[inline(always)]
        |a, b| a.max(b),
    );
    largest.max(last)
}

/// `a += b`
#[inline(always)]
pub(crate) fn add(a: &mut [f32], b: &[f32]) {
    let b = &b[..a.len()];
    for i in 0..a.len() {
        a[i] += b[i];
    }
}

/// The larger of each pair of values, in the place of the first.
#[inline(always)]
pub(crate) fn max_with(a: &mut [f32], b: &[f32]) {
    let b = &b[..a.len()];
    for i in 0..a.len() {
        a[i] = if b[i] > a[i] { b[i] } else { a[i] };
    }
}

/// Zero in place of what is negative; what is not a number stays.
#[inline(always)]
pub(crate) fn relu(values: &mut [f32]) {
    for i in 0..values.len() {
        values[i] = if values[i] < 0.0 { 0.0 } else { values[i] };
    }
}

/// `a += b·factor`
#[inline(always)]
pub(crate) fn add_scaled(a: &mut [f32], b: &[f32], factor: f32) {
    let b = &b[..a.len()];
    for i in 0..a.len() {
        a[i] += b[i] * factor;
    }
}

/// Dot product in interleaved parts.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (mut parts, mut last) = ([0.0f32; 32], 0.0f32);
    let b = &b[..a.len()];
    let ((ca, rest_a), (cb, rest_b)) = (a.as_chunks::<32>(), b.as_chunks::<32>());
    for i in 0..rest_a.len() {
        last += rest_a[i] * rest_b[i];
    }
    for chunk in 0..ca.len() {
        let (x, y) = (&ca[chunk], &cb[chunk]);
        for i in 0..32 {
            parts[i] += x[i] * y[i];
        }
    }
    folded_sum(parts) + last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let worst = (-8690..=8790)
            .map(|i| i as f32 / 100.0 + 0.003)
            .map(|x| ((exp(x) as f64 - (x as f64).exp()) / (x as f64).exp()).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
    }

    #[test]
    fn every_number_of_16_bits_is_widened_exactly() {
        use burn_backend::{bf16, f16};
        let same = |found: f32, expected: f32| {
            let both_nan = found.is_nan() && expected.is_nan();
            both_nan || found.to_bits() == expected.to_bits()
        };
        for bits in 0..=u16::MAX {
            assert!(same(from_f16(bits), f16::from_bits(bits).to_f32()), "float16 {bits:#06x}");
            assert!(same(from_bf16(bits), bf16::from_bits(bits).to_f32()), "bfloat16 {bits:#06x}");
        }
    }

    #[test]
    fn activations_are_those_of_float64() {
        for i in -400..=400 {
            let x = i as f64 / 40.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let gelu = 0.5 * x * (1.0 + u.tanh());
            assert!((gelu_tanh(x as f32) as f64 - gelu).abs() < 1e-6 * (1.0 + x.abs()), "{x}");
            let exact = 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
            assert!((super::gelu(x as f32) as f64 - exact).abs() < 5e-7 * (1.0 + x.abs()), "{x}");
            let expected = x / (1.0 + (-x).exp());
            assert!((silu(x as f32) as f64 - expected).abs() < 1e-6 * (1.0 + x.abs()), "{x}");
        }
    }

    #[test]
    fn slopes_are_those_of_float64() {
        for i in -400..=400 {
            let x = i as f64 / 40.0;
            let close = |slope: f32, expected: f64| {
                assert!((slope as f64 - expected).abs() < 1e-6, "{slope} at {x}, not {expected}");
            };
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let t = (root * (x + 0.044715 * x.powi(3))).tanh();
            let inner = root * (1.0 + 3.0 * 0.044715 * x * x);
            close(gelu_tanh_slope(x as f32), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner);
            let cdf = 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
            let density = 0.5 * root * (-0.5 * x * x).exp();
            let (value, slope) = gelu_with_slope(x as f32);
            assert_eq!(value, super::gelu(x as f32));
            close(slope, cdf + x * density);
            let s = 1.0 / (1.0 + (-x).exp());
            let (value, slope) = silu_with_slope(x as f32);
            assert!((value - silu(x as f32)).abs() < 1e-6 * (1.0 + value.abs()), "{x}");
            close(slope, s * (1.0 + x * (1.0 - s)));
        }
    }
}
