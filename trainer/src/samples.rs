//! Sets of samples on disk: a folder of PNG files or an `.npz` with `arr_0`, written in any order by any
//! number of processes and resumable.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tintype::image::Rgb;
use tintype::noise::{ImageKey, Stream, uniforms};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use tintype::files::{Identity, temporary_name, write_whole};

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
    let key = ImageKey { seed, image: u64::MAX };
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
    /// Starts or resumes a folder of samples of one identity.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created, its `samples.json` has another identity, or it cannot be written.
    pub fn folder(path: &Path, identity: &Identity) -> Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("--out {} cannot be written", path.display()))?;
        identity.claim(&path.join("samples.json"))?;
        Ok(Self::Folder(path.into()))
    }

    /// Starts or resumes an archive of samples of one identity.
    ///
    /// # Errors
    ///
    /// If the folder of the archive cannot be created, or the record beside it has another identity or cannot be
    /// written.
    pub fn npz(
        path: &Path,
        n: usize,
        [width, height]: [usize; 2],
        identity: &Identity,
    ) -> Result<Self> {
        let beside = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        identity.claim(&beside(".json"))?;
        let raw = RawFile {
            path: path.into(),
            raw: beside(".raw"),
            done: beside(".done"),
            shape: [n, height, width],
        };
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
    /// If the marks of an unfinished archive (`NAME.done`) are there and cannot be read.
    pub fn missing(&self, range: std::ops::Range<usize>) -> Result<Vec<usize>> {
        match self {
            Self::Folder(folder) => Ok(range.filter(|&i| !png(folder, i).exists()).collect()),
            Self::Npz(file) if file.path.exists() => Ok(Vec::new()),
            Self::Npz(file) => {
                let done = file.done()?;
                Ok(range.filter(|&i| done.get(i) != Some(&1)).collect())
            }
        }
    }

    /// Adds a sample.
    ///
    /// # Errors
    ///
    /// If the image cannot be encoded or written.
    pub fn write(&self, index: usize, image: &Rgb) -> Result<()> {
        match self {
            Self::Folder(folder) => Ok(write_whole(&png(folder, index), &image.to_png(&[])?)?),
            Self::Npz(file) => file.write(index, image),
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

fn png(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:06}.png"))
}

/// Pixels of an unfinished archive.
#[derive(Debug)]
pub struct RawFile {
    path: PathBuf,
    raw: PathBuf,
    /// One byte a sample, 1 where its pixels are there.
    done: PathBuf,
    /// Samples, height, width.
    shape: [usize; 3],
}

impl RawFile {
    fn done(&self) -> Result<Vec<u8>> {
        match std::fs::read(&self.done) {
            Ok(done) => Ok(done),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(|| self.done.display().to_string()),
        }
    }

    fn write(&self, index: usize, image: &Rgb) -> Result<()> {
        let at = |path: &Path, offset: u64, bytes: &[u8]| -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        };
        // The mark comes after the pixels, so a kill between them only makes the sample again.
        at(&self.raw, (index * image.pixels.len()) as u64, &image.pixels)
            .and_then(|()| at(&self.done, index as u64, &[1]))
            .with_context(|| format!("{} cannot be written", self.raw.display()))
    }

    /// Streams the pixels into the archive (Zip64 where it must) and removes them.
    fn pack(&self) -> Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let [n, height, width] = self.shape;
        let temporary = temporary_name(&self.path);
        let result = (|| -> Result<()> {
            let size = (n * height * width * 3) as u64;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .large_file(size >= u32::MAX as u64);
            let mut archive = ZipWriter::new(File::create(&temporary)?);
            archive.start_file("arr_0.npy", options)?;
            archive.write_all(&npy_header(&[n, height, width, 3]))?;
            let mut raw = BufReader::new(File::open(&self.raw)?).take(size);
            let copied = std::io::copy(&mut raw, &mut archive)?;
            ensure!(copied == size, "{} has {copied} of {size} bytes", self.raw.display());
            archive.finish()?;
            std::fs::rename(&temporary, &self.path)?;
            Ok(())
        })();
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result.with_context(|| format!("{} cannot be written", self.path.display()))?;
        let _ = std::fs::remove_file(&self.raw);
        let _ = std::fs::remove_file(&self.done);
        Ok(())
    }
}

/// Version 1 of numpy's format, for bytes in C order.
fn npy_header(shape: &[usize]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
    let shape = shape.join(", ");
    let mut text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}");
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.push_str(&" ".repeat(padding % 64));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let samples = Samples::npz(&path, 3, [3, 2], &identity).unwrap();
        assert_eq!(samples.missing(0..3).unwrap(), [0, 1, 2]);
        samples.write(2, &image(7)).unwrap();
        samples.write(0, &image(5)).unwrap();
        let again = Samples::npz(&path, 3, [3, 2], &identity).unwrap();
        assert_eq!(again.missing(0..3).unwrap(), [1]);
        again.write(1, &image(6)).unwrap();
        again.finish().unwrap();
        assert!(again.missing(0..3).unwrap().is_empty());
        let array = crate::data::npz::Npz::open(&path).unwrap().bytes("arr_0").unwrap();
        assert_eq!(array.shape(), [3, 2, 3, 3]);
        let first: Vec<u8> =
            array.outer_iter().map(|i| i.iter().copied().next().unwrap()).collect();
        assert_eq!(first, [5, 6, 7]);
        let other = Identity::default().with("seed", 2);
        assert!(Samples::npz(&path, 3, [3, 2], &other).is_err());
    }
}
