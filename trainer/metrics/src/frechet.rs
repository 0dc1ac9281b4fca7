//! The Fréchet distance of two Gaussians (FID, Heusel et al., arXiv 1706.08500), in float64.

use faer::{Mat, Side};
use ndarray::{Array1, Array2, ArrayView2};

/// Mean and covariance of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `[d]`
    pub mu: Array1<f64>,
    /// `[d, d]`
    pub sigma: Array2<f64>,
}

/// Statistics that no distance can be made of.
#[derive(Debug, thiserror::Error)]
pub enum FrechetError {
    /// NaN or infinite values.
    #[error("the covariance has no eigendecomposition; its values are not finite")]
    NotFinite,
    /// Different feature sizes.
    #[error("the statistics are of {0} and {1} features; they come from different networks")]
    Sizes(usize, usize),
    /// Fewer than two samples.
    #[error("{0} samples have no covariance; at least 2 are needed")]
    TooFew(usize),
}

/// The parts of a distance; it is `mean + trace_a + trace_b − 2·trace_of_root`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// `‖μ₁ − μ₂‖²`
    pub mean: f64,
    /// `tr Σ₁`
    pub trace_a: f64,
    /// `tr Σ₂`
    pub trace_b: f64,
    /// `tr (Σ₁Σ₂)^½`
    pub trace_of_root: f64,
}

impl Terms {
    /// The distance. Of equal statistics it is 0 but for rounding, and may be slightly negative.
    pub fn distance(&self) -> f64 {
        self.mean + self.trace_a + self.trace_b - 2.0 * self.trace_of_root
    }
}

/// Sums of features and of their products: what statistics are made of, batch by batch, on any
/// number of processes. Sums are around a first guess of the mean, which keeps their digits.
#[derive(Clone, Debug)]
pub struct Accumulator {
    n: usize,
    shift: Array1<f64>,
    sum: Array1<f64>,
    products: Array2<f64>,
}

impl Accumulator {
    /// Nothing yet; `shift` is near the mean of what will come (zeros if nothing is known), and the
    /// same for accumulators that are merged.
    pub fn new(shift: Array1<f64>) -> Self {
        let d = shift.len();
        Self { n: 0, shift, sum: Array1::zeros(d), products: Array2::zeros((d, d)) }
    }

    /// Adds features `[n, d]`.
    ///
    /// # Panics
    ///
    /// If d is not the length of `shift`.
    pub fn add(&mut self, features: ArrayView2<'_, f64>) {
        let centred = &features - &self.shift;
        self.n += centred.nrows();
        self.sum += &centred.sum_axis(ndarray::Axis(0));
        self.products += &gram(&centred);
    }

    /// Adds what another one has seen; both have the same shift.
    ///
    /// # Panics
    ///
    /// If the other one is of another number of features.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.sum += &other.sum;
        self.products += &other.products;
    }

    /// How many samples were seen.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Mean and unbiased covariance.
    ///
    /// # Errors
    ///
    /// [`FrechetError::TooFew`] of fewer than two samples.
    pub fn statistics(&self) -> Result<Statistics, FrechetError> {
        if self.n < 2 {
            return Err(FrechetError::TooFew(self.n));
        }
        let n = self.n as f64;
        let mean = &self.sum / n;
        let mut sigma = self.products.clone();
        for ((i, j), v) in sigma.indexed_iter_mut() {
            *v = (*v - n * mean[i] * mean[j]) / (n - 1.0);
        }
        Ok(Statistics { mu: mean + &self.shift, sigma })
    }
}

/// `xᵀx` of `[n, d]`, on all cores.
fn gram(x: &Array2<f64>) -> Array2<f64> {
    let m = mat(x);
    let product = m.transpose() * &m;
    Array2::from_shape_fn((x.ncols(), x.ncols()), |(i, j)| product[(i, j)])
}

fn mat(x: &Array2<f64>) -> Mat<f64> {
    Mat::from_fn(x.nrows(), x.ncols(), |i, j| x[[i, j]])
}

/// Mean and unbiased covariance of features `[n, d]`, n ≥ 2, with `ridge` on the diagonal.
///
/// Of fewer samples they are not finite.
pub fn statistics(features: &Array2<f64>, ridge: f64) -> Statistics {
    let (n, d) = features.dim();
    let mu: Array1<f64> = features.sum_axis(ndarray::Axis(0)) / n as f64;
    let mut sigma = gram(&(features - &mu)) / (n as f64 - 1.0);
    for i in 0..d {
        sigma[[i, i]] += ridge;
    }
    Statistics { mu, sigma }
}

/// A Gaussian as the distance needs it: mean and a factor of the covariance.
#[derive(Clone, Debug)]
pub struct Gaussian {
    mu: Array1<f64>,
    /// `[d, k]` with `Σ = A Aᵀ`
    factor: Mat<f64>,
    trace: f64,
}

impl Gaussian {
    /// From mean and covariance, by symmetric eigendecomposition; eigenvalues that rounding made
    /// negative count as 0.
    ///
    /// # Errors
    ///
    /// [`FrechetError::NotFinite`] where a value is NaN or infinite, or the decomposition does not
    /// converge.
    ///
    /// # Panics
    ///
    /// If the covariance is not square.
    pub fn from_statistics(statistics: &Statistics) -> Result<Self, FrechetError> {
        let Statistics { mu, sigma } = statistics;
        if !sigma.iter().chain(mu).all(|v| v.is_finite()) {
            return Err(FrechetError::NotFinite);
        }
        let d = sigma.nrows();
        let matrix = Mat::from_fn(d, d, |i, j| 0.5 * (sigma[[i, j]] + sigma[[j, i]]));
        let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| FrechetError::NotFinite)?;
        let (vectors, values) = (eigen.U(), eigen.S().column_vector());
        let factor = Mat::from_fn(d, d, |i, j| vectors[(i, j)] * values[j].max(0.0).sqrt());
        Ok(Self { mu: mu.clone(), factor, trace: sigma.diag().sum() })
    }

    /// From features `[n, d]` themselves: with fewer samples than features the covariance has no
    /// full rank, and this loses no digits to that.
    ///
    /// # Errors
    ///
    /// * [`FrechetError::TooFew`] of fewer than two samples
    /// * [`FrechetError::NotFinite`] where a value is NaN or infinite
    pub fn from_features(features: &Array2<f64>) -> Result<Self, FrechetError> {
        let n = features.nrows();
        if n < 2 {
            return Err(FrechetError::TooFew(n));
        }
        let mu = features.sum_axis(ndarray::Axis(0)) / n as f64;
        let centred = (features - &mu) / (n as f64 - 1.0).sqrt();
        if !centred.iter().all(|v| v.is_finite()) {
            return Err(FrechetError::NotFinite);
        }
        let factor = mat(&centred).transpose().to_owned();
        Ok(Self { mu, factor, trace: centred.mapv(|v| v * v).sum() })
    }

    /// The better of both ways for features `[n, d]`.
    ///
    /// # Errors
    ///
    /// * [`FrechetError::TooFew`] of fewer than two samples
    /// * [`FrechetError::NotFinite`] where a value is NaN or infinite, or the decomposition does
    ///   not converge
    pub fn of(features: &Array2<f64>) -> Result<Self, FrechetError> {
        match features.nrows() <= features.ncols() {
            true => Self::from_features(features),
            false => Self::from_statistics(&statistics(features, 0.0)),
        }
    }
}

/// `‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½)`
///
/// # Errors
///
/// * [`FrechetError::Sizes`] where the numbers of features differ
/// * [`FrechetError::NotFinite`] where a value is NaN or infinite, or a decomposition does not
///   converge
///
/// # Panics
///
/// If a covariance is not `[d, d]` for its d means.
pub fn distance(a: &Statistics, b: &Statistics) -> Result<f64, FrechetError> {
    sizes(a.mu.len(), b.mu.len())?;
    let terms = terms(&Gaussian::from_statistics(a)?, &Gaussian::from_statistics(b)?)?;
    Ok(terms.distance())
}

/// The parts of the distance. With `Σ = A Aᵀ`, the trace of the root is the sum of the singular
/// values of `A₁ᵀA₂`: no root of a product that is not symmetric.
///
/// # Errors
///
/// * [`FrechetError::Sizes`] where the numbers of features differ
/// * [`FrechetError::NotFinite`] where the singular values do not converge
pub fn terms(a: &Gaussian, b: &Gaussian) -> Result<Terms, FrechetError> {
    sizes(a.mu.len(), b.mu.len())?;
    let product = a.factor.transpose() * &b.factor;
    let values = product.singular_values().map_err(|_| FrechetError::NotFinite)?;
    Ok(Terms {
        mean: (&a.mu - &b.mu).mapv(|v| v * v).sum(),
        trace_a: a.trace,
        trace_b: b.trace,
        trace_of_root: values.iter().sum(),
    })
}

fn sizes(a: usize, b: usize) -> Result<(), FrechetError> {
    if a == b { Ok(()) } else { Err(FrechetError::Sizes(a, b)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(n: usize, d: usize, offset: f64) -> Array2<f64> {
        Array2::from_shape_fn((n, d), |(i, j)| {
            offset + ((i * 31 + j * 17 + i * j) % 101) as f64 / 50.0
        })
    }

    #[test]
    fn batches_and_merged_parts_are_the_whole() {
        let x = features(57, 5, 1e3);
        let whole = statistics(&x, 0.0);
        let shift = x.row(0).to_owned();
        let mut a = Accumulator::new(shift.clone());
        let mut b = Accumulator::new(shift);
        a.add(x.slice(ndarray::s![..20, ..]));
        b.add(x.slice(ndarray::s![20..21, ..]));
        b.add(x.slice(ndarray::s![21.., ..]));
        a.merge(&b);
        assert_eq!(a.len(), 57);
        let parts = a.statistics().unwrap();
        assert!((&parts.mu - &whole.mu).iter().all(|v| v.abs() < 1e-9));
        assert!((&parts.sigma - &whole.sigma).iter().all(|v| v.abs() < 1e-9));
    }

    #[test]
    fn what_has_no_distance_says_so() {
        let (a, b) = (statistics(&features(9, 4, 0.0), 0.0), statistics(&features(9, 5, 0.0), 0.0));
        assert!(distance(&a, &b).unwrap_err().to_string().contains("4 and 5"));
        let one = features(1, 4, 0.0);
        assert!(Gaussian::of(&one).unwrap_err().to_string().contains("at least 2"));
        let mut broken = a.clone();
        broken.sigma[[0, 1]] = f64::NAN;
        assert!(matches!(distance(&a, &broken), Err(FrechetError::NotFinite)));
        assert!(distance(&a, &a).unwrap().abs() < 1e-9);
    }

    #[test]
    fn features_and_their_statistics_have_the_same_distance() {
        for (n, m) in [(40, 50), (3, 50), (3, 4)] {
            let (x, y) = (features(n, 6, 0.0), features(m, 6, 0.5));
            let of_features = terms(&Gaussian::of(&x).unwrap(), &Gaussian::of(&y).unwrap());
            let of_features = of_features.unwrap().distance();
            let of_statistics = distance(&statistics(&x, 0.0), &statistics(&y, 0.0)).unwrap();
            assert!((of_features - of_statistics).abs() < 1e-6, "{n} {m} {of_features}");
        }
    }
}
