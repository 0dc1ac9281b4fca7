//! A file of reference values whose families of names are computed in any order: what was compared is
//! remembered, and at the end nothing may be left.

use std::collections::BTreeSet;

use anyhow::Result;
use ndarray::Array2;

use super::loss_networks::all_seen;
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

/// Compares what a file has under a name and remembers that it was.
pub struct Book<'a> {
    pub golden: &'a Golden,
    pub checks: &'a mut Checks,
    seen: BTreeSet<String>,
}

impl<'a> Book<'a> {
    /// Nothing was compared yet.
    pub fn new(golden: &'a Golden, checks: &'a mut Checks) -> Self {
        Self { golden, checks, seen: BTreeSet::new() }
    }

    /// Compares, where the file has the name.
    ///
    /// # Errors
    ///
    /// If the file has another number of values under this name.
    pub fn check(&mut self, name: &str, actual: &[f64], tolerance: Tolerance) -> Result<()> {
        if self.golden.has(name) {
            self.checks.values(name, actual, tolerance)?;
            self.see(name);
        }
        Ok(())
    }

    /// This name is an input.
    pub fn see(&mut self, name: &str) {
        self.seen.insert(name.into());
    }

    /// An input `[n, d]`.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    ///
    /// # Panics
    ///
    /// If the tensor has not two axes.
    pub fn matrix(&mut self, name: &str) -> Result<Array2<f64>> {
        self.see(name);
        let view = self.golden.view(name)?;
        Ok(Array2::from_shape_vec((view.shape[0], view.shape[1]), view.to_f64())?)
    }

    /// Fails if the file has values that nothing compared, besides inputs that begin like these.
    ///
    /// # Errors
    ///
    /// If there is such a value.
    pub fn finish(self, inputs: &[&str]) -> Result<()> {
        all_seen(self.golden, &self.seen, inputs)
    }
}
