//! Comparing, with a tolerance for each kind of value.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tintype::burn::tensor::{FloatDType, Tensor};

use crate::golden::Golden;

/// How close is right.
#[derive(Clone, Copy, Debug)]
pub enum Tolerance {
    /// `‖a − b‖ / ‖b‖` over the whole tensor.
    RelativeL2(f64),
    /// The largest `|a − b|`.
    Absolute(f64),
    /// The largest `|a − b| / |b|`.
    Relative(f64),
    /// The file's own `tol` entry (k-diffusion goldens); exact integers, 1e-6 relative floats
    /// without one.
    Stated,
    /// Bit for bit.
    Exact,
    /// 8-bit images: ±1 on at most 0.1 % of the values, or on one of fewer than 1000.
    Image,
}

/// Forward passes, block outputs and trajectories in float32.
pub const FORWARD: Tolerance = Tolerance::RelativeL2(1e-5);
/// Scalar losses.
pub const LOSS: Tolerance = Tolerance::Relative(2e-6);
/// Gradients, per tensor.
pub const GRADIENT: Tolerance = Tolerance::RelativeL2(2e-5);
/// Tables.
pub const TABLE: Tolerance = Tolerance::Absolute(1e-6);

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// The error over the tolerance; at most 1 passes.
    pub ratio: f64,
    /// Relative L2 error, for the table.
    pub relative: f64,
}

/// All comparisons of one entry.
pub struct Checks {
    golden: Option<Golden>,
    stated: Value,
    done: Vec<Check>,
    seen: BTreeSet<String>,
}

impl Checks {
    /// For a file of reference values; folders bring their own.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn new(path: &Path) -> Result<Self> {
        let golden = match path.is_dir() {
            true => None,
            false => Some(Golden::open(path)?),
        };
        let mut checks =
            Self { golden: None, stated: Value::Null, done: Vec::new(), seen: BTreeSet::new() };
        if let Some(golden) = golden {
            checks.expect(golden);
        }
        Ok(checks)
    }

    /// Sets the file that the expected values are in.
    pub fn expect(&mut self, golden: Golden) {
        self.stated = golden.json("tol").unwrap_or(Value::Null);
        self.golden = Some(golden);
    }

    /// The comparisons.
    pub fn done(&self) -> &[Check] {
        &self.done
    }

    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.done.iter().filter(|c| c.ratio.is_nan() || c.ratio > 1.0)
    }

    /// Whether the file expects this.
    pub fn wants(&self, name: &str) -> bool {
        self.golden.as_ref().is_some_and(|g| g.has(name))
    }

    /// Fails if an expected value was not compared.
    ///
    /// # Errors
    ///
    /// If nothing was expected, nothing was compared, or an expected value was not.
    pub fn finish(&self) -> Result<()> {
        let Some(golden) = &self.golden else { bail!("nothing was expected") };
        let missed: Vec<_> = golden.outputs().filter(|n| !self.seen.contains(*n)).collect();
        ensure!(missed.is_empty(), "never compared: {missed:?}");
        ensure!(!self.done.is_empty(), "nothing was compared");
        Ok(())
    }

    /// Compares a tensor if the file expects it.
    ///
    /// # Errors
    ///
    /// If the file expects another shape. A value outside its tolerance is recorded, not an error.
    ///
    /// # Shapes
    ///
    /// * `actual`: the shape that the file has, or one value for a scalar
    pub fn tensor_if<const D: usize>(
        &mut self,
        name: &str,
        actual: &Tensor<D>,
        tolerance: Tolerance,
    ) -> Result<()> {
        match self.wants(name) {
            true => self.tensor(name, actual, tolerance),
            false => Ok(()),
        }
    }

    /// Compares a tensor.
    ///
    /// # Errors
    ///
    /// If the file has no such tensor, or one of another shape. A value outside its tolerance is
    /// recorded, not an error.
    ///
    /// # Shapes
    ///
    /// * `actual`: the shape that the file has, or one value for a scalar
    pub fn tensor<const D: usize>(
        &mut self,
        name: &str,
        actual: &Tensor<D>,
        tolerance: Tolerance,
    ) -> Result<()> {
        let shape = actual.dims().to_vec();
        let wide = match actual.dtype() {
            tintype::burn::tensor::DType::F64 => actual.clone(),
            _ => actual.clone().cast(FloatDType::F32),
        };
        let values: Vec<f64> = wide.into_data().iter::<f64>().collect();
        if let Some(golden) = &self.golden {
            let expected = &golden.view(name)?.shape;
            let scalar = expected.is_empty() && shape.iter().product::<usize>() == 1;
            ensure!(scalar || *expected == shape, "{name}: {shape:?} instead of {expected:?}");
        }
        self.values(name, &values, tolerance)
    }

    /// Compares values in row-major order.
    ///
    /// # Errors
    ///
    /// If the file has no such tensor, or another number of values. A value outside its tolerance
    /// is recorded, not an error.
    ///
    /// # Panics
    ///
    /// If the file's `tol` entry states fewer tolerances than there are steps.
    pub fn values(&mut self, name: &str, actual: &[f64], tolerance: Tolerance) -> Result<()> {
        let Some(golden) = &self.golden else { bail!("nothing was expected") };
        let (expected, shape) = (golden.values(name)?, golden.view(name)?.shape.clone());
        let is_float = golden.view(name)?.dtype.is_float();
        ensure!(
            expected.len() == actual.len(),
            "{name}: {} values instead of {}",
            actual.len(),
            expected.len()
        );
        let entry = self.stated.get(name).cloned();
        let ratio = match (tolerance, entry) {
            (Tolerance::Stated, Some(entry)) => stated(&entry, actual, &expected, &shape),
            (Tolerance::Stated, None) if is_float => {
                measure(Tolerance::Relative(1e-6), actual, &expected)
            }
            (Tolerance::Stated, None) => measure(Tolerance::Exact, actual, &expected),
            (tolerance, _) => measure(tolerance, actual, &expected),
        };
        self.record(name, ratio, relative_l2(actual, &expected));
        Ok(())
    }

    /// Compares values that are not in the file under `out.`.
    ///
    /// # Errors
    ///
    /// If the numbers of values differ. A value outside its tolerance is recorded, not an error.
    pub fn against(
        &mut self,
        name: &str,
        actual: &[f64],
        expected: &[f64],
        tolerance: Tolerance,
    ) -> Result<()> {
        ensure!(
            expected.len() == actual.len(),
            "{name}: {} values instead of {}",
            actual.len(),
            expected.len()
        );
        let ratio = measure(tolerance, actual, expected);
        self.record(name, ratio, relative_l2(actual, expected));
        Ok(())
    }

    fn record(&mut self, name: &str, ratio: f64, relative: f64) {
        self.seen.insert(name.into());
        self.done.push(Check { name: name.into(), ratio, relative });
    }
}

fn relative_l2(actual: &[f64], expected: &[f64]) -> f64 {
    let difference: f64 = actual.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm.max(f64::MIN_POSITIVE)).sqrt() }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // NaN must not hide behind a maximum.
    values.fold(0.0, |m, v| if v.is_nan() || m.is_nan() { f64::NAN } else { f64::max(m, v) })
}

/// The error over the tolerance.
fn measure(tolerance: Tolerance, actual: &[f64], expected: &[f64]) -> f64 {
    let pairs = || actual.iter().zip(expected);
    match tolerance {
        Tolerance::RelativeL2(limit) => relative_l2(actual, expected) / limit,
        Tolerance::Absolute(limit) => largest(pairs().map(|(a, b)| (a - b).abs())) / limit,
        Tolerance::Relative(limit) => {
            largest(pairs().map(|(a, b)| {
                if a == b { 0.0 } else { (a - b).abs() / b.abs().max(f64::MIN_POSITIVE) }
            })) / limit
        }
        Tolerance::Exact | Tolerance::Stated => {
            if pairs().all(|(a, b)| a == b) {
                0.0
            } else {
                f64::INFINITY
            }
        }
        Tolerance::Image => {
            let worst = largest(pairs().map(|(a, b)| (a - b).abs()));
            let off = pairs().filter(|(a, b)| a != b).count() as f64;
            // One level is allowed, and no measure: a value beside the middle of two levels falls to either, in small
            // images as in others.
            let allowed = (actual.len() as f64 * 1e-3).max(1.0);
            if worst > 1.0 { worst } else { off / allowed }
        }
    }
}

/// k-diffusion goldens: `|a − b| ≤ atol + rtol·|b|`, with their special cases.
fn stated(entry: &Value, actual: &[f64], expected: &[f64], shape: &[usize]) -> f64 {
    let number = |key: &str| entry.get(key).and_then(Value::as_f64);
    let rtol = number("rtol").unwrap_or(0.0);
    if let Some(limit) = number("log_atol_interior") {
        const EDGES: usize = 7;
        let edge_limit = number("log_f32_vs_f64_edges");
        return largest(actual.iter().zip(expected).enumerate().map(|(i, (a, b))| {
            let limit = match (i < EDGES, edge_limit) {
                (false, _) => limit,
                // The float32 reference itself is this far from the formula there.
                (true, Some(edge)) => limit + 2.0 * edge,
                (true, None) if *b == 0.0 || !b.is_finite() => return 0.0,
                (true, None) => limit,
            };
            if a == b { 0.0 } else { (a.ln() - b.ln()).abs() / limit }
        }));
    }
    if let (Some(within), Some(limit)) = (number("min_fraction_within"), number("atol_all")) {
        // AdamW amplifies the rounding of gradients near zero: a few elements may be further off.
        let atol = number("atol").unwrap_or(0.0);
        let errors = || actual.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let outside = errors().filter(|e| e.is_nan() || *e > atol).count();
        let allowed = ((1.0 - within) * actual.len() as f64).max(1.0);
        return (outside as f64 / allowed.floor()).max(largest(errors()) / limit);
    }
    let per_step: Option<Vec<f64>> = entry
        .get("atol_per_step")
        .and_then(Value::as_array)
        .map(|steps| steps.iter().filter_map(Value::as_f64).collect());
    let atol = number("atol").unwrap_or(0.0);
    let step = expected.len() / shape.first().copied().unwrap_or(1).max(1);
    largest(actual.iter().zip(expected).enumerate().map(|(i, (a, b))| {
        let atol = per_step.as_ref().map_or(atol, |steps| steps[i / step.max(1)]);
        if a == b { 0.0 } else { (a - b).abs() / (atol + rtol * b.abs()) }
    }))
}
