//! One shard of a store: its images, decoded in place, and what became of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use tintype::weights::{Dtype, TensorView, open};

use super::Progress;
use crate::data::crop::center_crop;
use crate::data::decode::decode;
use crate::data::made::{IDENTITY, is_numbered, write_shard};
use crate::data::source::{Item, Skipped, Source};

pub(super) fn is_shard(name: &str) -> bool {
    is_numbered(name, "images_", ".safetensors")
}

pub(super) fn shard_name(number: usize) -> String {
    format!("images_{number:05}.safetensors")
}

/// What became of a shard's images.
pub(super) struct Finished {
    pub images: usize,
    pub skipped: Vec<Skipped>,
    pub enlarged: usize,
}

/// A shard that an earlier run finished.
pub(super) fn finished(path: &Path, identity: &str) -> Option<Finished> {
    let weights = open(path).ok()?;
    let metadata = |key: &str| weights.metadata.get(key);
    if metadata(IDENTITY).map(String::as_str) != Some(identity) {
        return None;
    }
    Some(Finished {
        images: weights.tensors.get("labels")?.len(),
        skipped: serde_json::from_str(metadata("skipped")?).ok()?,
        enlarged: metadata("enlarged")?.parse().ok()?,
    })
}

/// The decoded images of a shard.
pub(super) struct Decoded {
    /// `[n, side, side, 3]`
    pub pixels: Vec<u8>,
    /// `[n]`; −1 for none.
    pub labels: Vec<i64>,
    pub skipped: Vec<Skipped>,
    pub enlarged: usize,
}

/// Decodes a shard's images, each into its place; `None` if cancelled. An image that is damaged is left out; a disk
/// that fails is an error, since a shard without the images that it kept back would count as finished.
pub(super) fn decode_shard(
    source: &Source,
    items: &[Item],
    side: usize,
    progress: &Progress,
) -> anyhow::Result<Option<Decoded>> {
    let image_bytes = side * side * 3;
    let mut pixels = vec![0u8; items.len() * image_bytes];
    let enlarged = AtomicUsize::new(0);
    let one = |(pixels, item): (&mut [u8], &Item)| {
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let encoded = match source.read(item) {
            Err(e) if e.is_of_system() => {
                let name = &item.name;
                return Err(
                    anyhow::Error::new(e).context(format!("the image {name} cannot be read"))
                );
            }
            encoded => encoded.map_err(|e| e.problem().to_string()),
        };
        let image = encoded.and_then(|bytes| decode(&bytes)).map(|image| {
            let smaller = image.width.min(image.height) < side;
            enlarged.fetch_add(usize::from(smaller), Ordering::Relaxed);
            pixels.copy_from_slice(&center_crop(&image, side).pixels);
        });
        progress.images.fetch_add(1, Ordering::Relaxed);
        Ok(Some(image))
    };
    let decoded: anyhow::Result<Vec<Option<Result<(), String>>>> =
        pixels.par_chunks_exact_mut(image_bytes).zip(items).map(one).collect();
    let (mut labels, mut skipped) = (Vec::new(), Vec::new());
    for (at, (item, image)) in items.iter().zip(decoded?).enumerate() {
        let Some(image) = image else { return Ok(None) };
        match image {
            Ok(()) => {
                // It moves up to the ones before.
                let to = labels.len() * image_bytes;
                if labels.len() < at {
                    pixels.copy_within(at * image_bytes..(at + 1) * image_bytes, to);
                }
                labels.push(item.label.map_or(-1, |label| label as i64));
            }
            Err(reason) => skipped.push(Skipped { name: item.name.clone(), reason }),
        }
    }
    pixels.truncate(labels.len() * image_bytes);
    Ok(Some(Decoded { pixels, labels, skipped, enlarged: enlarged.into_inner() }))
}

impl Decoded {
    /// Writes the shard; returns the checksum of its file.
    pub fn write(self, path: &Path, side: usize, identity: &str) -> anyhow::Result<u32> {
        let n = self.labels.len();
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let view = |dtype, shape: &[usize], bytes| {
            TensorView::from_bytes(dtype, shape.to_vec(), bytes).map_err(anyhow::Error::msg)
        };
        let tensors = BTreeMap::from([
            ("images".to_string(), view(Dtype::U8, &[n, side, side, 3], self.pixels)?),
            ("labels".to_string(), view(Dtype::I64, &[n], labels)?),
        ]);
        let metadata = BTreeMap::from([
            (IDENTITY.to_string(), identity.to_string()),
            ("skipped".to_string(), serde_json::to_string(&self.skipped)?),
            ("enlarged".to_string(), self.enlarged.to_string()),
        ]);
        write_shard(path, &tensors, &metadata)
    }
}
