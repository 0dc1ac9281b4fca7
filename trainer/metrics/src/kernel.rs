//! The kernel distance (KID, Bińkowski et al., arXiv 1801.01401).

use faer::Mat;
use ndarray::{Array2, ArrayView2, Axis, s};

use crate::numpy::RandomState;

/// Unbiased MMD² with the kernel `(xᵀy/d + 1)³` of features `[n, d]`, averaged over partitions of
/// at most about `max_size` samples, cut at `round(i·n/parts)` as k-diffusion does.
///
/// NaN where a partition has fewer than two samples of a set.
///
/// # Panics
///
/// If `max_size` is 0 or the numbers of features differ.
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
///
/// `size` is 2 to the number of samples of the smaller set.
///
/// # Panics
///
/// If the numbers of features differ.
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
    crate::mean_and_deviation(&values)
}

fn mmd_squared(x: ArrayView2<f64>, y: ArrayView2<f64>) -> f64 {
    let d = x.ncols() as f64;
    let mat = |a: &ArrayView2<f64>| Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]]);
    let (x, y) = (mat(&x), mat(&y));
    let k = |v: f64| (v / d + 1.0).powi(3);
    let sum = |products: &Mat<f64>| -> f64 {
        products.col_iter().map(|c| c.iter().map(|&v| k(v)).sum::<f64>()).sum()
    };
    let within = |a: &Mat<f64>| {
        let products = a * a.transpose();
        let n = a.nrows();
        let diagonal: f64 = (0..n).map(|i| k(products[(i, i)])).sum();
        (sum(&products) - diagonal) / (n as f64 * (n as f64 - 1.0))
    };
    let pairs = x.nrows() as f64 * y.nrows() as f64;
    within(&x) + within(&y) - 2.0 * sum(&(&x * y.transpose())) / pairs
}
