//! Features on disk: extracted once, shared by processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tintype::files::{Identity, write_durably};
use tintype::weights::{TensorView, open, write_safetensors};

use super::extractor::{FeatureExtractor, Features};
use crate::data::fingerprint::Fingerprint;
use crate::data::made::{IDENTITY, create_folder, is_numbered, sweep};

const NAMES: [&str; 3] = ["features", "spatial", "logits"];

/// A feature cache: a folder with one file per shard.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    identity: Identity,
}

impl Cache {
    /// The cache of a set of images, below `root`.
    ///
    /// * `identity`: what the images are; every part carries it
    pub fn new(root: &Path, set: Fingerprint, identity: Identity) -> Self {
        Self { folder: root.join(set.to_string()), identity }
    }

    /// What a part is called in a message.
    pub(super) fn name(&self, part: usize) -> String {
        format!("part {part} of {}", self.folder.display())
    }

    /// What a part is made from.
    fn identity(&self, extractor: &FeatureExtractor, part: usize) -> Identity {
        self.identity.clone().with("extractor", extractor.key()).with("part", part)
    }

    fn file(&self, extractor: &FeatureExtractor, part: usize) -> PathBuf {
        self.folder.join(extractor.key()).join(format!("part_{part:05}.safetensors"))
    }

    /// Whether the features of all extractors are there.
    pub(super) fn has(&self, extractors: &[FeatureExtractor], part: usize) -> bool {
        extractors.iter().all(|extractor| self.file(extractor, part).exists())
    }

    /// Removes what killed processes left of parts; only while no other process writes them.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or a file cannot be removed.
    pub(super) fn sweep(&self, extractors: &[FeatureExtractor]) -> Result<()> {
        extractors.iter().try_for_each(|extractor| {
            let is_part = |name: &str| is_numbered(name, "part_", ".safetensors");
            sweep(&self.folder.join(extractor.key()), is_part)
        })
    }

    /// Adds a part.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn write(
        &self,
        extractor: &FeatureExtractor,
        part: usize,
        rows: &Features,
    ) -> Result<()> {
        let path = self.file(extractor, part);
        let folder = path.parent().unwrap_or(&self.folder);
        create_folder(folder)?;
        let mut tensors = BTreeMap::new();
        for ((name, values), width) in
            NAMES.iter().zip([&rows.features, &rows.spatial, &rows.logits]).zip(rows.widths)
        {
            if let Some(n) = values.len().checked_div(width) {
                let view = TensorView::from_f32(vec![n, width], values);
                tensors.insert(name.to_string(), view.map_err(anyhow::Error::msg)?);
            }
        }
        let metadata = BTreeMap::from([
            ("sizes".into(), serde_json::to_string(&rows.sizes)?),
            (IDENTITY.into(), self.identity(extractor, part).text()),
        ]);
        let bytes = write_safetensors(&tensors, &metadata).map_err(anyhow::Error::msg)?;
        Ok(write_durably(&path, &bytes)?)
    }

    /// Reads a part of `n` images.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is damaged, or was made from something else.
    pub(super) fn read(
        &self,
        extractor: &FeatureExtractor,
        part: usize,
        n: usize,
    ) -> Result<Features> {
        let path = self.file(extractor, part);
        let file = open(&path)?;
        let recorded = file.metadata.get(IDENTITY).map(String::as_str);
        self.identity(extractor, part).check(&path, recorded)?;
        let mut rows = Features::default();
        let parts = [&mut rows.features, &mut rows.spatial, &mut rows.logits];
        for (i, (name, values)) in NAMES.iter().zip(parts).enumerate() {
            if let Some(view) = file.tensors.get(*name) {
                *values = view.to_f32();
                rows.widths[i] = view.shape.last().copied().unwrap_or(0);
            }
        }
        let sizes = file.metadata.get("sizes").and_then(|text| serde_json::from_str(text).ok());
        rows.sizes = sizes.unwrap_or_default();
        ensure!(rows.len() == n, "{} is damaged; delete it", path.display());
        Ok(rows)
    }
}
