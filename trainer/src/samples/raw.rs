//! Pixels of samples in any order, and the archive that they become.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tintype::files::{rename, sync, sync_folder, temporary_name};
use tintype::image::Rgb;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use crate::data::made::remove;

/// Pixels of an unfinished archive.
#[derive(Debug)]
pub struct RawFile {
    pub(super) path: PathBuf,
    pub(super) raw: PathBuf,
    /// One byte a sample, 1 where its pixels are there.
    pub(super) done: PathBuf,
    /// Samples, height, width.
    pub(super) shape: [usize; 3],
}

impl RawFile {
    pub(super) fn done(&self) -> Result<Vec<u8>> {
        match std::fs::read(&self.done) {
            Ok(done) => Ok(done),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(|| self.done.display().to_string()),
        }
    }

    pub(super) fn write(&self, images: &[(usize, Rgb)]) -> Result<()> {
        let open =
            |path: &Path| OpenOptions::new().create(true).truncate(false).write(true).open(path);
        // The marks come after the pixels have reached the disk: a kill or a loss of power between them only makes
        // the samples again.
        let written = (|| -> std::io::Result<()> {
            let mut raw = open(&self.raw)?;
            for (index, image) in images {
                raw.seek(SeekFrom::Start((index * image.pixels.len()) as u64))?;
                raw.write_all(&image.pixels)?;
            }
            sync(&raw)?;
            let mut done = open(&self.done)?;
            for (index, _) in images {
                done.seek(SeekFrom::Start(*index as u64))?;
                done.write_all(&[1])?;
            }
            Ok(())
        })();
        written.with_context(|| format!("{} cannot be written", self.raw.display()))
    }

    /// Streams the pixels into the archive (Zip64 where it must) and removes them.
    pub(super) fn pack(&self) -> Result<()> {
        if self.path.exists() {
            return self.tidy(); // after a kill below
        }
        let [n, height, width] = self.shape;
        let temporary = temporary_name(&self.path);
        let result = (|| -> Result<()> {
            let size = (n * height * width * 3) as u64;
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                // Equal samples are equal files.
                .last_modified_time(DateTime::default())
                .large_file(size >= u32::MAX as u64);
            let mut archive = ZipWriter::new(File::create(&temporary)?);
            archive.start_file("arr_0.npy", options)?;
            archive.write_all(&npy_header(&[n, height, width, 3]))?;
            let mut raw = BufReader::new(File::open(&self.raw)?).take(size);
            let copied = std::io::copy(&mut raw, &mut archive)?;
            ensure!(copied == size, "{} has {copied} of {size} bytes", self.raw.display());
            sync(&archive.finish()?)?;
            rename(&temporary, &self.path)?;
            Ok(sync_folder(&self.path)?)
        })();
        if result.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        result.with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.tidy()
    }

    /// Removes the pixels of a finished archive.
    fn tidy(&self) -> Result<()> {
        remove(&self.raw)?;
        remove(&self.done)
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
