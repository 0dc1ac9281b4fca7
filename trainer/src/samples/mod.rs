//! Sets of samples on disk: a folder of PNG files or an `.npz` with `arr_0`, written in any order by any
//! number of processes and resumable.

mod claim;
mod raw;

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tintype::files::{Identity, rename, sync, sync_folder, temporary_name};
use tintype::image::Rgb;
use tintype::noise::{ImageKey, Stream, uniforms};

use crate::data::made::{create_folder, is_numbered, names, sweep};
use claim::claim;

pub use claim::Replace;
pub use raw::RawFile;

/// The record of a folder of samples.
const RECORD: &str = "samples.json";

/// Class labels of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LabelSampling {
    /// Balanced: each class equally often, shuffled
    Equal,
    /// Uniformly random
    Random,
}

/// The class of every sample: a function of the seed alone, whatever the number of processes.
///
/// # Errors
///
/// If classes are given [equally](LabelSampling::Equal) and `n` is no multiple of `classes`.
pub fn labels(how: LabelSampling, n: usize, classes: usize, seed: u64) -> Result<Vec<usize>> {
    let key = ImageKey::new(seed, u64::MAX);
    let u = uniforms(key, Stream::Order, 2, n);
    match how {
        LabelSampling::Random => Ok(u.iter().map(|u| (u * classes as f64) as usize).collect()),
        LabelSampling::Equal => {
            ensure!(
                n.is_multiple_of(classes),
                "--count {n} is not a multiple of the {classes} classes; use a multiple, or --labels random"
            );
            let mut labels: Vec<usize> = (0..n).map(|i| i / (n / classes)).collect();
            for i in (1..n).rev() {
                labels.swap(i, (u[i] * (i + 1) as f64) as usize);
            }
            Ok(labels)
        }
    }
}

/// A set of samples being written.
#[derive(Debug)]
pub enum Samples {
    /// `000000.png`, …
    Folder(PathBuf),
    /// Raw pixels by index in `NAME.raw`, later packed into the archive.
    Npz(RawFile),
}

impl Samples {
    /// The record of what a folder of samples was made from.
    pub fn record_of_folder(folder: &Path) -> PathBuf {
        folder.join(RECORD)
    }

    /// The same of an archive.
    pub fn record_of_npz(archive: &Path) -> PathBuf {
        beside(archive, ".json")
    }

    /// Starts or resumes a folder of samples of one identity.
    ///
    /// # Errors
    ///
    /// * [`IdentityError`](tintype::files::IdentityError) if there are samples of another making in it, unless
    ///   `other` lets them be removed.
    /// * The folder cannot be created, or it cannot be written.
    pub fn folder(path: &Path, identity: &Identity, other: Replace) -> Result<Self> {
        create_folder(path)?;
        let is_own = |name: &str| is_numbered(name, "", ".png");
        let record = Self::record_of_folder(path);
        let others = || -> Result<Vec<PathBuf>> {
            let names = names(path)?.into_iter().filter(|name| is_own(name));
            Ok(names.map(|name| path.join(name)).collect())
        };
        claim(identity, &record, &others, other)?;
        if other.alone {
            sweep(path, |name| is_own(name) || name == RECORD)?;
        }
        Ok(Self::Folder(path.into()))
    }

    /// Starts or resumes an archive of samples of one identity.
    ///
    /// # Errors
    ///
    /// * [`IdentityError`](tintype::files::IdentityError) if it has samples of another making, unless `other` lets
    ///   them be removed.
    /// * The folder of the archive cannot be created, or the record beside it cannot be written.
    pub fn npz(
        path: &Path,
        n: usize,
        [width, height]: [usize; 2],
        identity: &Identity,
        other: Replace,
    ) -> Result<Self> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder {
            create_folder(folder)?;
        }
        let raw = RawFile {
            path: path.into(),
            raw: beside(path, ".raw"),
            done: beside(path, ".done"),
            shape: [n, height, width],
        };
        let others = || -> Result<Vec<PathBuf>> {
            let files = [&raw.path, &raw.raw, &raw.done].into_iter();
            Ok(files.filter(|file| file.exists()).cloned().collect())
        };
        let record = Self::record_of_npz(path);
        claim(identity, &record, &others, other)?;
        if other.alone {
            let own = [path.to_path_buf(), record];
            let own = own.map(|file| file.file_name().unwrap_or_default().to_os_string());
            sweep(folder.unwrap_or(Path::new(".")), |name| own.iter().any(|own| own == name))?;
        }
        Ok(Self::Npz(raw))
    }

    /// The folder or the archive.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Npz(file) => &file.path,
        }
    }

    /// Which of the samples `range` are missing.
    ///
    /// # Errors
    ///
    /// If the folder, or the marks of an unfinished archive (`NAME.done`), are there and cannot be read.
    pub fn missing(&self, range: std::ops::Range<usize>) -> Result<Vec<usize>> {
        match self {
            Self::Folder(folder) => {
                // One listing, where each question would be one to a server on a network's disk.
                let there: HashSet<String> = names(folder)?.into_iter().collect();
                Ok(range.filter(|&i| !there.contains(&png_name(i))).collect())
            }
            Self::Npz(file) if file.path.exists() => Ok(Vec::new()),
            Self::Npz(file) => {
                let done = file.done()?;
                Ok(range.filter(|&i| done.get(i) != Some(&1)).collect())
            }
        }
    }

    /// Adds samples by index. They count as there once they have reached the disk.
    ///
    /// # Errors
    ///
    /// If an image cannot be encoded or written.
    pub fn write(&self, images: &[(usize, Rgb)]) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let write = |(index, image): &(usize, Rgb)| -> Result<()> {
                    write_synced(&folder.join(png_name(*index)), &image.to_png(&[])?)
                };
                images.par_iter().try_for_each(write)?;
                match images.first() {
                    Some((index, _)) => sync_folder(&folder.join(png_name(*index)))
                        .with_context(|| format!("{} cannot be written", folder.display())),
                    None => Ok(()),
                }
            }
            Self::Npz(file) => file.write(images),
        }
    }

    /// Packs a complete archive; a folder is complete as it is.
    ///
    /// # Errors
    ///
    /// If pixels are missing, or the archive cannot be written. A folder gives no error.
    pub fn finish(&self) -> Result<()> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Npz(file) => file.pack(),
        }
    }
}

/// The name of a file with something after it.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn png_name(index: usize) -> String {
    format!("{index:06}.png")
}

/// Writes a file under a temporary name, and renames it once its bytes have reached the disk. The folder is left
/// to the caller, who has many files.
fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_name(path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| sync(&file)))
        .and_then(|()| rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::made::Other;

    #[test]
    fn equal_labels_are_exactly_balanced_and_shuffled() {
        let all = labels(LabelSampling::Equal, 500, 10, 3).unwrap();
        for class in 0..10 {
            assert_eq!(all.iter().filter(|&&l| l == class).count(), 50);
        }
        assert!(all.windows(2).filter(|w| w[0] != w[1]).count() > 300);
        assert!(labels(LabelSampling::Equal, 501, 10, 3).is_err());
        let random = labels(LabelSampling::Random, 5000, 10, 3).unwrap();
        assert!((0..10).all(|c| (400..600).contains(&random.iter().filter(|&&l| l == c).count())));
    }

    #[test]
    fn an_archive_is_filled_in_any_order_and_read_as_numpy_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let identity = Identity::default().with("seed", 1);
        let image = |v: u8| Rgb { width: 3, height: 2, pixels: vec![v; 18] };
        let open = |identity: &Identity, other: Other| {
            Samples::npz(&path, 3, [3, 2], identity, Replace { other, ..Replace::NOTHING })
        };
        let samples = open(&identity, Other::Refuse).unwrap();
        assert_eq!(samples.missing(0..3).unwrap(), [0, 1, 2]);
        samples.write(&[(2, image(7)), (0, image(5))]).unwrap();
        let again = open(&identity, Other::Refuse).unwrap();
        assert_eq!(again.missing(0..3).unwrap(), [1]);
        again.write(&[(1, image(6))]).unwrap();
        again.finish().unwrap();
        assert!(again.missing(0..3).unwrap().is_empty());
        let array = crate::data::npz::Npz::open(&path).unwrap().bytes("arr_0").unwrap();
        assert_eq!(array.shape(), [3, 2, 3, 3]);
        let first: Vec<u8> =
            array.outer_iter().map(|i| i.iter().copied().next().unwrap()).collect();
        assert_eq!(first, [5, 6, 7]);
        let other = Identity::default().with("seed", 2);
        assert!(open(&other, Other::Refuse).is_err());
        assert!(path.exists());
        let replaced = open(&other, Other::Remove).unwrap();
        assert_eq!(replaced.missing(0..3).unwrap(), [0, 1, 2]);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_of_other_samples_is_refused_and_its_own_files_alone_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let open = |seed: u64, other: Other| {
            let identity = Identity::default().with("seed", seed);
            Samples::folder(path, &identity, Replace { other, ..Replace::NOTHING })
        };
        let image = Rgb { width: 1, height: 1, pixels: vec![1, 2, 3] };
        open(1, Other::Refuse).unwrap().write(&[(0, image.clone()), (1, image)]).unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        let error = open(2, Other::Refuse).unwrap_err().to_string();
        assert!(error.contains("seed was 1, not 2"), "{error}");
        assert!(open(1, Other::Remove).unwrap().missing(0..2).unwrap().is_empty());
        assert_eq!(open(2, Other::Remove).unwrap().missing(0..2).unwrap(), [0, 1]);
        assert_eq!(names(path).unwrap(), ["notes.txt", "samples.json"]);
        // Samples of earlier versions have no record.
        std::fs::remove_file(path.join("samples.json")).unwrap();
        std::fs::write(path.join("000000.png"), "a sample").unwrap();
        let error = open(2, Other::Refuse).unwrap_err().to_string();
        assert!(error.contains("earlier version"), "{error}");
    }
}
