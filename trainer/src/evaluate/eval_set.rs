//! A set under evaluation: images, precomputed statistics, or both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use ndarray::{Array1, Array2};
use tintype::files::Identity;

use super::extractor::Kind;
use super::frechet::Statistics;
use super::images::Images;
use crate::data::npz::{Npz, write_statistics};

/// Names of mean and covariance in `.npz` archives. Inception's are those of pytorch-fid and ADM.
const NAMES: [(FeatureSpace, &str, &str); 4] = [
    (FeatureSpace::Network(Kind::Inception), "mu", "sigma"),
    (FeatureSpace::Spatial, "mu_s", "sigma_s"),
    (FeatureSpace::Network(Kind::DinoV2), "mu_dinov2", "sigma_dinov2"),
    (FeatureSpace::Network(Kind::Clip), "mu_clip", "sigma_clip"),
];

/// The feature space of statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeatureSpace {
    /// Features of a network.
    Network(Kind),
    /// Inception's spatial features (sFID).
    Spatial,
}

impl FeatureSpace {
    /// Its feature extractor.
    pub fn kind(self) -> Kind {
        match self {
            Self::Network(kind) => kind,
            Self::Spatial => Kind::Inception,
        }
    }
}

/// Samples or reference of an evaluation.
#[derive(Debug)]
pub struct EvalSet {
    /// Path of the set.
    pub path: PathBuf,
    /// Precomputed statistics.
    pub statistics: BTreeMap<FeatureSpace, Statistics>,
    /// Images; `None` if the file holds only statistics.
    pub images: Option<Images>,
}

impl EvalSet {
    /// Opens images (see [`Images::open`]) or an `.npz` with `mu` and `sigma`. ADM's reference
    /// batches hold both: statistics of all images, and a subset of the images.
    ///
    /// # Errors
    ///
    /// If the images cannot be opened, or an archive has neither images nor usable statistics.
    pub fn open(path: &Path, count: Option<usize>) -> Result<Self> {
        let mut statistics = BTreeMap::new();
        if path.extension().is_some_and(|e| e == "npz") {
            let mut npz = Npz::open(path)?;
            let there = npz.names()?;
            for (feature, mu, sigma) in NAMES {
                if there.iter().any(|name| name == mu) {
                    statistics.insert(feature, npz.statistics_named(mu, sigma)?);
                }
            }
            if statistics.is_empty() && !there.iter().any(|name| name == "arr_0") {
                bail!(
                    "{} has neither images (arr_0) nor statistics (mu, sigma), but {}",
                    path.display(),
                    there.join(", ")
                );
            }
        }
        let images = Images::open(path, count)?;
        Ok(Self { path: path.into(), statistics, images })
    }
}

/// Whether statistics may be written: there is no file of that name, or one of the same identity.
///
/// # Errors
///
/// [`IdentityError`](tintype::files::IdentityError) if it was made from something else, or by another tool.
pub fn claim(path: &Path, identity: &Identity) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    Ok(identity.check(path, recorded(path).as_deref())?)
}

/// [`claim`] before all of the identity is known.
///
/// # Errors
///
/// As [`claim`].
pub fn claim_part(path: &Path, identity: &Identity) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    Ok(identity.check_part(path, recorded(path).as_deref())?)
}

/// The identity of an archive; `None` if it is none, or of another tool.
fn recorded(path: &Path) -> Option<String> {
    Npz::open(path).ok()?.identity()
}

/// Writes statistics in pytorch-fid's format, which [`EvalSet::open`] reads.
///
/// # Errors
///
/// If the archive cannot be written.
pub fn save(
    path: &Path,
    statistics: &BTreeMap<FeatureSpace, Statistics>,
    identity: &Identity,
) -> Result<()> {
    let named = NAMES.iter().filter_map(|(feature, mu, sigma)| {
        let Statistics { mu: mean, sigma: covariance } = statistics.get(feature)?;
        Some((*mu, mean, *sigma, covariance))
    });
    let named: Vec<(&str, &Array1<f64>, &str, &Array2<f64>)> = named.collect();
    write_statistics(path, &named, identity)
}
