//! Sets of images: folders, archives, `.npz` batches, image stores.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tintype::image::Rgb;

use crate::data::batch::Batch;
use crate::data::decode::decode;
use crate::data::fingerprint::Fingerprint;
use crate::data::source::{Options, Skipped, Source};
use crate::data::store::{ImageStore, STORE_FILE};

/// A set of images in a fixed order.
#[derive(Debug)]
pub struct Images {
    path: PathBuf,
    kind: Kind,
    /// Number of images used.
    count: usize,
}

#[derive(Debug)]
enum Kind {
    Source(Source),
    Batch(Batch),
    Store(ImageStore),
}

impl Kind {
    /// Number of images, used or not.
    fn len(&self) -> usize {
        match self {
            Self::Source(source) => source.items.len(),
            Self::Batch(batch) => batch.len(),
            Self::Store(store) => store.len(),
        }
    }
}

impl Images {
    /// Opens a folder, a `.tar`, a `.zip`, an `images.h5`, a store, or an `.npz` with `arr_0`;
    /// `None` for an `.npz` without one. `count` uses the first images only.
    ///
    /// # Errors
    ///
    /// If the set cannot be opened, has no images, or fewer than `count`.
    pub fn open(path: &Path, count: Option<usize>) -> Result<Option<Self>> {
        let kind = if path.extension().is_some_and(|e| e == "npz") {
            match Batch::open(path)? {
                Some(batch) => Kind::Batch(batch),
                None => return Ok(None),
            }
        } else if path.join(STORE_FILE).exists() {
            Kind::Store(ImageStore::open_verified(path)?)
        } else {
            // Every image counts, whatever its class.
            let options = Options { unlabelled: true, ..Options::default() };
            Kind::Source(Source::open(path, &options)?)
        };
        let there = kind.len();
        let count = count.unwrap_or(there);
        ensure!(there > 0, "{} has no images", path.display());
        ensure!(count <= there, "{} has {there} images, not {count}", path.display());
        Ok(Some(Self { path: path.into(), kind, count }))
    }

    /// Path of the set.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether only the first images of the set are used.
    pub fn is_part(&self) -> bool {
        self.count < self.kind.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Images that the set leaves out, in a sentence; `None` if there are none.
    pub fn left_out(&self) -> Option<String> {
        let path = self.path.display();
        match &self.kind {
            Kind::Source(source) if !source.skipped.is_empty() => {
                let show = |Skipped { name, reason }: &Skipped| format!("{name} ({reason})");
                let shown: Vec<String> = source.skipped.iter().take(3).map(show).collect();
                let n = source.skipped.len();
                let such = if n > shown.len() { "such as " } else { "" };
                Some(format!("left out of {path}, {n} of its images: {such}{}", shown.join(", ")))
            }
            Kind::Store(store) if store.description.skipped > 0 => Some(format!(
                "{} images were left out when {path} was prepared; its skipped.txt lists them",
                store.description.skipped
            )),
            _ => None,
        }
    }

    /// Decodes images. An image that cannot be decoded is an error: skipping it would change the
    /// metric.
    ///
    /// # Errors
    ///
    /// If an image cannot be read or decoded.
    ///
    /// # Panics
    ///
    /// If the range ends behind the last image of the folder, archive or store.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<Rgb>> {
        match &self.kind {
            Kind::Batch(batch) => Ok(batch.read(range)?),
            Kind::Store(store) => Ok(range.map(|i| store.image(i)).collect()),
            Kind::Source(source) => {
                let one = |i: usize| {
                    let item = &source.items[i];
                    let bytes = source.read(item)?;
                    decode(&bytes).map_err(anyhow::Error::msg).with_context(|| {
                        let file = self.path.join(&item.name);
                        format!("{} is not an image; replace or remove it", file.display())
                    })
                };
                range.into_par_iter().map(one).collect()
            }
        }
    }

    /// Identifies the set by names, sizes and modification times of its files, or by checksums if
    /// available.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = match &self.kind {
            Kind::Store(store) => store.fingerprint(),
            Kind::Source(source) => source.fingerprint(),
            Kind::Batch(_) => {
                let mut fingerprint = Fingerprint::default();
                fingerprint.add_file(&self.path);
                fingerprint
            }
        };
        fingerprint.add(&self.count.to_string());
        fingerprint
    }
}
