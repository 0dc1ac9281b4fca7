//! The kernel distance (KID, Bińkowski et al., arXiv 1801.01401).

use ndarray::{Array2, ArrayView2, Axis, s};

use super::numpy::RandomState;

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

/// torch-fidelity's: mean and population deviation over `subsets` random ones of `size` samples,
/// drawn without replacement from one generator, the first set's before the second's.
pub fn subset_distance(
    x: &Array2<f64>,
    y: &Array2<f64>,
    subsets: usize,
    size: usize,
    seed: u32,
) -> (f64, f64) {
    let mut random = RandomState::new(seed);
    let values: Vec<f64> = (0..subsets)
        .map(|_| {
            let mut pick = |set: &Array2<f64>| {
                let chosen = random.choice(set.nrows(), size);
                set.select(Axis(0), &chosen)
            };
            let (x, y) = (pick(x), pick(y));
            mmd_squared(x.view(), y.view())
        })
        .collect();
    super::mean_and_deviation(&values)
}

fn mmd_squared(x: ArrayView2<f64>, y: ArrayView2<f64>) -> f64 {
    let d = x.ncols() as f64;
    let kernel =
        |a: &ArrayView2<f64>, b: &ArrayView2<f64>| a.dot(&b.t()).mapv(|v| (v / d + 1.0).powi(3));
    let (m, n) = (x.nrows() as f64, y.nrows() as f64);
    let within = |k: Array2<f64>, n: f64| (k.sum() - k.diag().sum()) / (n * (n - 1.0));
    within(kernel(&x, &x), m) + within(kernel(&y, &y), n) - 2.0 * kernel(&x, &y).sum() / (m * n)
}
