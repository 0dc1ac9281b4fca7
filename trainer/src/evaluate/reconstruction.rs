//! Image similarity: PSNR and SSIM.

/// `20·log₁₀(255/√mse)` of two 8-bit images, in dB; infinite for equal ones.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (*a as f64 - *b as f64).powi(2));
    let mse = squares.sum::<f64>() / a.len() as f64;
    20.0 * (255.0 / mse.sqrt()).log10()
}

/// One plane of an image and its size.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// Row-major values.
    pub values: &'a [f64],
    /// Features.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;

/// The SSIM map (Wang et al., 2004) of two planes of a data range `range`, as torchmetrics ≥ 1.4.2
/// computes it: Gaussian window 11×11, σ 1.5, reflected borders, as large as the planes.
///
/// # Panics
///
/// If the planes are empty, or `b` is smaller than `a`.
pub fn ssim_map(a: Plane<'_>, b: Plane<'_>, range: f64) -> Vec<f64> {
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let products = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).collect::<Vec<_>>();
    let blur = |values: &[f64]| blur(Plane { values, ..a });
    let (mu_a, mu_b) = (blur(a.values), blur(b.values));
    let aa = blur(&products(a.values, a.values));
    let bb = blur(&products(b.values, b.values));
    let ab = blur(&products(a.values, b.values));
    (0..a.values.len())
        .map(|i| {
            let (ma, mb) = (mu_a[i], mu_b[i]);
            let (va, vb) = ((aa[i] - ma * ma).max(0.0), (bb[i] - mb * mb).max(0.0));
            let covariance = ab[i] - ma * mb;
            (2.0 * ma * mb + c1) * (2.0 * covariance + c2)
                / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        })
        .collect()
}

fn blur(plane: Plane<'_>) -> Vec<f64> {
    let Plane { values, height, width } = plane;
    let weight = |k: usize| {
        let x = k as f64 - RADIUS as f64;
        (-(x * x) / (2.0 * SIGMA * SIGMA)).exp()
    };
    let mut window: Vec<f64> = (0..=2 * RADIUS).map(weight).collect();
    let total: f64 = window.iter().sum();
    window.iter_mut().for_each(|w| *w /= total);
    let mut rows = Vec::with_capacity(values.len()); // blurred along rows
    let mut padded = vec![0.0; width + 2 * RADIUS];
    for row in values.chunks_exact(width) {
        for (x, value) in padded.iter_mut().enumerate() {
            *value = row[reflected(x, width)];
        }
        let tap = |part: &[f64]| part.iter().zip(&window).map(|(v, w)| v * w).sum::<f64>();
        rows.extend(padded.windows(window.len()).map(tap));
    }
    let mut out = vec![0.0; values.len()];
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        for (k, w) in window.iter().enumerate() {
            let y = reflected(y + k, height);
            let row = &rows[y * width..(y + 1) * width];
            out.iter_mut().zip(row).for_each(|(o, v)| *o += w * v);
        }
    }
    out
}

/// Index `i − RADIUS` reflected into `0..n` without repeating the edge.
fn reflected(i: usize, n: usize) -> usize {
    let i = i.abs_diff(RADIUS);
    if i < n { i } else { (2 * (n - 1)).saturating_sub(i) }
}
