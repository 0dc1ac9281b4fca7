//! numpy archives: FID statistics, reference batches, samples (`checkpoints` §4).

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use anyhow::Context;
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::{ReadNpyExt, ReadableElement, WriteNpyExt};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use tintype::files::{Identity, rename, sync, sync_folder, temporary_name};
use tintype_metrics::frechet::Statistics;

/// The member with the identity of statistics.
const IDENTITY_FILE: &str = "identity.json";

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct NpzError {
    file: String,
    problem: String,
}

/// An opened archive.
pub struct Npz {
    file: String,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens an archive.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the file cannot be read or is no zip archive.
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let file = path.display().to_string();
        let wrap = |problem: String| NpzError { file: file.clone(), problem };
        let opened = File::open(path).map_err(|e| wrap(e.to_string()))?;
        let archive = ZipArchive::new(BufReader::new(opened)).map_err(|e| wrap(e.to_string()))?;
        Ok(Self { file: file.clone(), archive })
    }

    /// Names of the arrays, without `.npy`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the name of a member cannot be decoded.
    pub fn names(&self) -> Result<Vec<String>, NpzError> {
        let names: Result<Vec<_>, _> = self.archive.file_names().collect();
        let names = names.map_err(|e| self.problem(&e))?;
        Ok(names.iter().map(|n| n.trim_end_matches(".npy").to_string()).collect())
    }

    /// The identity that the archive carries, as JSON; `None` in archives of other tools.
    pub fn identity(&mut self) -> Option<String> {
        let mut entry = self.archive.by_name(IDENTITY_FILE).ok()?;
        let mut text = String::new();
        entry.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// `mu` and `sigma` (float64, or float32 widened).
    ///
    /// # Errors
    ///
    /// As [`statistics_named`](Self::statistics_named).
    pub fn statistics(&mut self) -> Result<Statistics, NpzError> {
        self.statistics_named("mu", "sigma")
    }

    /// Statistics under other names, such as ADM's `mu_s` and `sigma_s`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if an array is missing, is not of floats, or the two are not `[d]` and `[d,
    /// d]`.
    pub fn statistics_named(&mut self, mu: &str, sigma: &str) -> Result<Statistics, NpzError> {
        let mu: ArrayD<f64> = self.floats(mu)?;
        let sigma: ArrayD<f64> = self.floats(sigma)?;
        let d = mu.len();
        if mu.ndim() != 1 || sigma.shape() != [d, d] {
            let shapes = format!("mu is {:?} and sigma {:?}", mu.shape(), sigma.shape());
            return Err(self.problem(&shapes));
        }
        let wrong =
            |e: ndarray::ShapeError| NpzError { file: self.file.clone(), problem: e.to_string() };
        Ok(Statistics {
            mu: mu.into_dimensionality().map_err(wrong)?,
            sigma: sigma.into_dimensionality().map_err(wrong)?,
        })
    }

    /// A float array in float64.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the array is missing, damaged, or neither float64 nor float32.
    pub fn floats(&mut self, name: &str) -> Result<ArrayD<f64>, NpzError> {
        if let Ok(array) = self.array(name) {
            return Ok(array);
        }
        Ok(self.array::<f32>(name)?.mapv(f64::from))
    }

    /// An 8-bit array, such as `arr_0` of a batch of images `[n, H, W, 3]`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the array is missing, damaged, or not 8-bit.
    pub fn bytes(&mut self, name: &str) -> Result<ArrayD<u8>, NpzError> {
        self.array(name)
    }

    fn array<T: ReadableElement>(&mut self, name: &str) -> Result<ArrayD<T>, NpzError> {
        let wrap = |problem: String| NpzError { file: self.file.clone(), problem };
        let member = format!("{name}.npy");
        let entry = self.archive.by_name(&member).map_err(|e| wrap(format!("{member}: {e}")))?;
        ArrayD::read_npy(BufReader::new(entry)).map_err(|e| wrap(format!("{member}: {e}")))
    }

    fn problem(&self, problem: &dyn std::fmt::Display) -> NpzError {
        NpzError { file: self.file.clone(), problem: problem.to_string() }
    }
}

/// Adds an array to an archive.
///
/// # Errors
///
/// If the archive cannot be written.
pub fn add<W: Write + Seek>(
    archive: &mut ZipWriter<W>,
    name: &str,
    method: CompressionMethod,
    array: &impl WriteNpyExt,
) -> anyhow::Result<()> {
    let options = SimpleFileOptions::default().compression_method(method).large_file(true);
    archive.start_file(format!("{name}.npy"), options)?;
    Ok(array.write_npy(archive)?)
}

/// Writes means and covariances under their names, deflated as pytorch-fid does, and beside them the identity, which
/// numpy's readers pass over; under a temporary name first.
///
/// # Errors
///
/// If the archive cannot be written; an older one of the same name is then still there.
pub fn write_statistics(
    path: &Path,
    named: &[(&str, &Array1<f64>, &str, &Array2<f64>)],
    identity: &Identity,
) -> anyhow::Result<()> {
    let temporary = temporary_name(path);
    let written = (|| -> anyhow::Result<()> {
        let mut npz = ZipWriter::new(File::create(&temporary)?);
        for (mu, mean, sigma, covariance) in named {
            add(&mut npz, mu, CompressionMethod::Deflated, *mean)?;
            add(&mut npz, sigma, CompressionMethod::Deflated, *covariance)?;
        }
        npz.start_file(IDENTITY_FILE, SimpleFileOptions::default())?;
        npz.write_all(identity.text().as_bytes())?;
        sync(&npz.finish()?)?;
        rename(&temporary, path)?;
        Ok(sync_folder(path)?)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} cannot be written", path.display()))
}
