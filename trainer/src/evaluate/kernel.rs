//! The kernel distance (KID, Bińkowski et al., arXiv 1801.01401).

use ndarray::{Array2, ArrayView2, s};

/// Unbiased MMD² with the kernel `(xᵀy/d + 1)³` of features `[n, d]`, averaged over partitions of
/// at most about `max_size` samples, cut at `round(i·n/parts)` as k-diffusion does.
pub fn distance(x: &Array2<f64>, y: &Array2<f64>, max_size: usize) -> f64 {
    let (nx, ny) = (x.nrows(), y.nrows());
    let parts = nx.max(ny).div_ceil(max_size);
    let cut = |n: usize, i: usize| (i as f64 * n as f64 / parts as f64).round_ties_even() as usize;
    let mean: f64 = (0..parts)
        .map(|i| {
            let x = x.slice(s![cut(nx, i)..cut(nx, i + 1), ..]);
            let y = y.slice(s![cut(ny, i)..cut(ny, i + 1), ..]);
            mmd_squared(x, y)
        })
        .sum();
    mean / parts as f64
}

fn mmd_squared(x: ArrayView2<f64>, y: ArrayView2<f64>) -> f64 {
    let d = x.ncols() as f64;
    let kernel =
        |a: &ArrayView2<f64>, b: &ArrayView2<f64>| a.dot(&b.t()).mapv(|v| (v / d + 1.0).powi(3));
    let (m, n) = (x.nrows() as f64, y.nrows() as f64);
    let within = |k: Array2<f64>, n: f64| (k.sum() - k.diag().sum()) / (n * (n - 1.0));
    within(kernel(&x, &x), m) + within(kernel(&y, &y), n) - 2.0 * kernel(&x, &y).sum() / (m * n)
}
