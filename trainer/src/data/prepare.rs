//! From encoded images to a store: decode, crop, write, shard by shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;
use tintype::files::{Identity, write_durably};
use tintype::image::Rgb;
use tintype::weights::{Dtype, TensorView, open, write_safetensors};

use super::crop::center_crop;
use super::fingerprint::Fingerprint;
use super::jpeg;
use super::made::{IDENTITY, Other, check_shards, create_folder, is_numbered, remove, sweep};
use super::source::{Item, Skipped, Source};
use super::store::{Description, STORE_FILE, Shard, file_crc32c};

/// Bytes of a shard, about.
const SHARD_BYTES: usize = 128 << 20;
/// The list of what was left out.
const SKIPPED_FILE: &str = "skipped.txt";
/// The first bytes of what macOS keeps beside a file on other systems' disks.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];
/// An encoded image may not claim to decode to more than this.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// The plan of a store.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Side of the square images.
    pub side: usize,
    /// The store's folder.
    pub out: PathBuf,
    /// Rank of this process; each rank writes every `world`-th shard.
    pub rank: usize,
    /// World size.
    pub world: usize,
    /// What happens to shards, and to a store, of another source or side.
    pub other: Other,
}

/// Result of a preparation.
#[derive(Debug)]
pub struct Outcome {
    /// Images in the store.
    pub images: usize,
    /// Images of the source that were left out.
    pub skipped: Vec<Skipped>,
    /// Images that were smaller than the side and enlarged.
    pub enlarged: usize,
    /// Shards of an earlier run.
    pub resumed: usize,
    /// Whether all shards of all ranks are complete.
    pub complete: bool,
}

/// Progress counters, shared with a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Images done, including those of an earlier run.
    pub images: AtomicU64,
    /// Images done by an earlier run.
    pub resumed: AtomicU64,
    /// Set to cancel; finished shards are kept.
    pub stop: AtomicBool,
}

impl Progress {
    /// Counts images of an earlier run.
    pub fn resume(&self, images: usize) {
        self.images.fetch_add(images as u64, Ordering::Relaxed);
        self.resumed.fetch_add(images as u64, Ordering::Relaxed);
    }

    /// Images done by this run.
    pub fn made(&self) -> u64 {
        self.images.load(Ordering::Relaxed) - self.resumed.load(Ordering::Relaxed)
    }
}

/// Writes the missing shards of a store.
///
/// # Errors
///
/// * There are shards or a description in the folder that were made from another source or for another side
///   ([`IdentityError`](tintype::files::IdentityError)), unless [`Plan::other`] lets them be removed.
/// * The folder, a shard, `skipped.txt` or the description cannot be written or read back.
/// * None of the images can be decoded.
///
/// # Panics
///
/// If [`Plan::side`] or [`Plan::world`] is 0.
pub fn prepare(source: &Source, plan: &Plan, progress: &Progress) -> anyhow::Result<Outcome> {
    create_folder(&plan.out)?;
    let image_bytes = plan.side * plan.side * 3;
    let per_shard = (SHARD_BYTES / image_bytes).clamp(1, 10_000);
    let identity = Identity::default()
        .with("source", source.fingerprint().to_string())
        .with("images", source.items.len())
        .with("side", plan.side)
        .with("images_per_shard", per_shard);
    let recorded = recorded_checksums(&plan.out);
    claim(source, plan, &identity)?;
    let identity_text = identity.text();
    let chunks: Vec<&[Item]> = source.items.chunks(per_shard).collect();
    let mut resumed = 0;
    for (number, items) in chunks.iter().enumerate() {
        let path = plan.out.join(shard_name(number));
        // A damaged one is made again.
        let is_intact = || match recorded.get(&shard_name(number)) {
            Some(checksum) => file_crc32c(&path).is_ok_and(|found| found == *checksum),
            None => true,
        };
        if finished(&path, &identity_text).is_some() && is_intact() {
            resumed += 1;
            progress.resume(items.len());
            continue;
        }
        if number % plan.world != plan.rank {
            continue;
        }
        let Some(bytes) = encode_shard(source, items, plan.side, &identity_text, progress)? else {
            break; // stopped
        };
        write_durably(&path, &bytes)?;
    }
    describe(source, plan, &identity, chunks.len(), resumed)
}

/// The checksums of an earlier store's shards.
fn recorded_checksums(out: &Path) -> BTreeMap<String, u32> {
    let text = std::fs::read(out.join(STORE_FILE)).unwrap_or_default();
    let description: Option<Description> = serde_json::from_slice(&text).ok();
    let shards = description.into_iter().flat_map(|description| description.shards);
    shards.map(|shard| (shard.file, shard.crc32c)).collect()
}

/// The identity of a whole store: that of its shards, and the names of the classes.
fn of_store(shards: &Identity, source: &Source) -> Identity {
    let mut classes = Fingerprint::default();
    source.classes.iter().for_each(|class| classes.add(class));
    shards.clone().with("classes", classes.to_string())
}

/// Makes sure that what is in the folder already has the same identity.
fn claim(source: &Source, plan: &Plan, identity: &Identity) -> anyhow::Result<()> {
    let path = plan.out.join(STORE_FILE);
    // The description goes first, so that it never describes shards of another making.
    if let Ok(text) = std::fs::read(&path) {
        // Half a description has no identity.
        let description: Option<Description> = serde_json::from_slice(&text).ok();
        let recorded = description.and_then(|description| description.identity);
        let recorded = recorded.map(|recorded| recorded.text());
        let compared = of_store(identity, source).check(&path, recorded.as_deref());
        let own = [STORE_FILE, SKIPPED_FILE, "images.h5", "images.h5.partial", "images_h5.json"];
        let own = own.map(|name| plan.out.join(name));
        plan.other.settle(compared, &own.each_ref().map(|file| file.as_path()))?;
    }
    check_shards(&plan.out, is_shard, identity, plan.other)?;
    if plan.world == 1 {
        sweep(&plan.out, |name| is_shard(name) || [STORE_FILE, SKIPPED_FILE].contains(&name))?;
    }
    Ok(())
}

fn is_shard(name: &str) -> bool {
    is_numbered(name, "images_", ".safetensors")
}

fn shard_name(number: usize) -> String {
    format!("images_{number:05}.safetensors")
}

/// What became of a shard's images.
struct Finished {
    images: usize,
    skipped: Vec<Skipped>,
    enlarged: usize,
}

/// A shard that an earlier run finished.
fn finished(path: &Path, identity: &str) -> Option<Finished> {
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

/// The contents of a shard; `None` if cancelled.
fn encode_shard(
    source: &Source,
    items: &[Item],
    side: usize,
    identity: &str,
    progress: &Progress,
) -> anyhow::Result<Option<Vec<u8>>> {
    let enlarged = AtomicUsize::new(0);
    let decoded: Vec<Option<Result<Rgb, String>>> = items
        .par_iter()
        .map(|item| {
            if progress.stop.load(Ordering::Relaxed) {
                return None;
            }
            let image = source.read(item).map_err(|e| e.problem().to_string());
            let image = image.and_then(|bytes| decode(&bytes)).map(|image| {
                let smaller = image.width.min(image.height) < side;
                enlarged.fetch_add(usize::from(smaller), Ordering::Relaxed);
                center_crop(&image, side)
            });
            progress.images.fetch_add(1, Ordering::Relaxed);
            Some(image)
        })
        .collect();
    let (mut pixels, mut labels, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for (item, image) in items.iter().zip(decoded) {
        match image {
            None => return Ok(None),
            Some(Ok(image)) => {
                pixels.extend_from_slice(&image.pixels);
                labels.push(item.label.map_or(-1, |l| l as i64));
            }
            Some(Err(reason)) => skipped.push(Skipped { name: item.name.clone(), reason }),
        }
    }
    let n = labels.len();
    let labels: Vec<u8> = labels.iter().flat_map(|l: &i64| l.to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::from_bytes(dtype, shape.to_vec(), bytes).map_err(anyhow::Error::msg)
    };
    let tensors = BTreeMap::from([
        ("images".to_string(), view(Dtype::U8, &[n, side, side, 3], pixels)?),
        ("labels".to_string(), view(Dtype::I64, &[n], labels)?),
    ]);
    let metadata = BTreeMap::from([
        (IDENTITY.to_string(), identity.to_string()),
        ("skipped".to_string(), serde_json::to_string(&skipped)?),
        ("enlarged".to_string(), enlarged.into_inner().to_string()),
    ]);
    write_safetensors(&tensors, &metadata).map(Some).map_err(anyhow::Error::msg)
}

/// Decodes an image to 8-bit RGB; transparency is dropped as Pillow's `convert("RGB")` does.
///
/// JPEGs have Pillow's pixels bit for bit ([`jpeg`]). 16-bit values v of other formats become
/// v·255/65535, rounded to the nearest. (Pillow cuts those of coloured PNGs to their high byte, at most
/// one level off, and clips grey ones at 255, which leaves hardly more than white.) Anymaps (PBM,
/// PGM, PPM; binary or text) of any maximum are scaled to 255 the same way.
///
/// # Errors
///
/// A sentence where the format is unknown, the file is damaged, or the image is empty or over 1
/// GiB.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    if bytes.starts_with(&APPLE_DOUBLE) {
        return Err("an AppleDouble file, not an image".into());
    }
    if jpeg::is_jpeg(bytes) {
        return jpeg::decode(bytes, MAX_DECODED_BYTES);
    }
    let mut reader = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| e.to_string())?.to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err("the image is empty".into());
    }
    Ok(Rgb { width, height, pixels: image.into_raw() })
}

/// Writes the description once every shard is there, after reading all of them back.
fn describe(
    source: &Source,
    plan: &Plan,
    identity: &Identity,
    count: usize,
    resumed: usize,
) -> anyhow::Result<Outcome> {
    let identity_text = identity.text();
    let skipped = source.skipped.clone();
    let mut outcome = Outcome { images: 0, skipped, enlarged: 0, resumed, complete: true };
    let mut shards = Vec::new();
    for number in 0..count {
        let path = plan.out.join(shard_name(number));
        let Some(shard) = finished(&path, &identity_text) else {
            outcome.complete = false;
            continue;
        };
        let count = shard.images;
        outcome.images += count;
        outcome.skipped.extend(shard.skipped);
        outcome.enlarged += shard.enlarged;
        shards.push(Shard { file: shard_name(number), count, crc32c: file_crc32c(&path)? });
    }
    if !outcome.complete {
        return Ok(outcome);
    }
    if let (0, Some(Skipped { name, reason })) = (outcome.images, outcome.skipped.first()) {
        // Shards without an image are not work that anybody would miss.
        for number in 0..count {
            remove(&plan.out.join(shard_name(number)))?;
        }
        let n = outcome.skipped.len();
        anyhow::bail!("none of the {n} images can be read; the first is {name}: {reason}");
    }
    let mut skipped_by_reason = BTreeMap::new();
    for Skipped { reason, .. } in &outcome.skipped {
        *skipped_by_reason.entry(reason.clone()).or_default() += 1;
    }
    let description = Description {
        version: 1,
        side: plan.side,
        classes: source.classes.clone(),
        shards,
        skipped: outcome.skipped.len(),
        skipped_by_reason,
        hidden: source.hidden,
        enlarged: outcome.enlarged,
        labelled_by: source.labelled_by.clone(),
        identity: Some(of_store(identity, source)),
    };
    let line = |Skipped { name, reason }: &Skipped| format!("{name}\t{reason}\n");
    let list: String = outcome.skipped.iter().map(line).collect();
    write_durably(&plan.out.join(SKIPPED_FILE), list.as_bytes())?;
    write_durably(&plan.out.join(STORE_FILE), &serde_json::to_vec_pretty(&description)?)?;
    Ok(outcome)
}
