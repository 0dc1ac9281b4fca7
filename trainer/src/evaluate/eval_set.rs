//! A set under evaluation: images, precomputed statistics, or both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
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
    /// Statistics are those of all images: where only the first `count` are used, they are passed over.
    ///
    /// # Errors
    ///
    /// If the images cannot be opened, or an archive has neither images nor usable statistics, or no images where
    /// `count` is given.
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
        ensure!(
            images.is_some() || count.is_none(),
            "{} has no images, of which --count could take some",
            path.display()
        );
        if images.as_ref().is_some_and(Images::is_part) {
            statistics.clear();
        }
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

#[cfg(test)]
mod tests {
    use ndarray::Array4;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;
    use crate::data::npz::add;

    #[test]
    fn statistics_of_all_images_are_not_those_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let stored = CompressionMethod::Stored;
        let [both, alone] = ["both.npz", "alone.npz"].map(|name| folder.path().join(name));
        for path in [&both, &alone] {
            let mut npz = ZipWriter::new(std::fs::File::create(path).expect("a file"));
            add(&mut npz, "mu", stored, &Array1::<f64>::zeros(4)).expect("it is written");
            add(&mut npz, "sigma", stored, &Array2::<f64>::eye(4)).expect("it is written");
            if *path == both {
                let images = Array4::<u8>::zeros((3, 8, 8, 3));
                add(&mut npz, "arr_0", stored, &images).expect("it is written");
            }
            npz.finish().expect("it is written");
        }
        for (count, known) in [(None, 1), (Some(3), 1), (Some(2), 0)] {
            let set = EvalSet::open(&both, count).expect("a set");
            assert_eq!(set.statistics.len(), known, "{count:?}");
        }
        let error = EvalSet::open(&alone, Some(2)).expect_err("no images").to_string();
        assert!(error.contains("--count"), "{error}");
    }
}
