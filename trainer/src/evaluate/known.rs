//! A set as the user names it: images, statistics that somebody computed of them, or both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use ndarray::{Array1, Array2};

use super::frechet::Statistics;
use super::images::Images;
use super::judge::Kind;
use crate::data::npz::{Npz, write_statistics};

/// The names of mean and covariance in archives. Inception's are pytorch-fid's and ADM's.
const NAMES: [(Feature, &str, &str); 4] = [
    (Feature::Of(Kind::Inception), "mu", "sigma"),
    (Feature::Spatial, "mu_s", "sigma_s"),
    (Feature::Of(Kind::DinoV2), "mu_dinov2", "sigma_dinov2"),
    (Feature::Of(Kind::Clip), "mu_clip", "sigma_clip"),
];

/// What statistics are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A network's features.
    Of(Kind),
    /// Inception's spatial features (sFID).
    Spatial,
}

impl Feature {
    /// The network that makes them.
    pub fn kind(self) -> Kind {
        match self {
            Self::Of(kind) => kind,
            Self::Spatial => Kind::Inception,
        }
    }
}

/// A set.
#[derive(Debug)]
pub struct Known {
    /// Its path.
    pub path: PathBuf,
    /// Statistics that the file has.
    pub statistics: BTreeMap<Feature, Statistics>,
    /// Its images, if there are some.
    pub images: Option<Images>,
}

impl Known {
    /// Opens images (see [`Images::open`]) or an `.npz` with `mu` and `sigma`. ADM's reference
    /// batches have both: statistics of all images, and some of the images.
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

/// Writes statistics where pytorch-fid, and [`Known::open`], look for them.
///
/// # Errors
///
/// If the archive cannot be written.
pub fn save(path: &Path, statistics: &BTreeMap<Feature, Statistics>) -> Result<()> {
    let named = NAMES.iter().filter_map(|(feature, mu, sigma)| {
        let Statistics { mu: mean, sigma: covariance } = statistics.get(feature)?;
        Some((*mu, mean, *sigma, covariance))
    });
    let named: Vec<(&str, &Array1<f64>, &str, &Array2<f64>)> = named.collect();
    write_statistics(path, &named)
}
