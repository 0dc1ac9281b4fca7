//! Latents of a store, encoded once: LightningDiT's shards or REPA-E's HDF5.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::files::{Identity, write_durably};
use tintype::generate::bytes;
use tintype::image::Rgb;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{Dtype, TensorView, open};

use super::encoder::ImageEncoder;
use super::hdf5::{GROUP, Hdf5Writer, Payload, item_name};
use super::latents::LatentShards;
use super::made::{
    IDENTITY, Other, check_shards, create_folder, is_numbered, remove, sweep, write_shard,
};
use super::prepare::Progress;
use super::pt;
use super::store::ImageStore;
use crate::rank::Rank;

/// Bytes of one shard's latents, about; LightningDiT puts at most 10,000 into one.
const SHARD_BYTES: usize = 64 << 20;
/// The same of a RAE's, which are 24 times as large: of ImageNet they are some thousand files nevertheless. Every process
/// that trains maps all of them for each of its devices, and Linux lets it map 65,530.
const TOKEN_SHARD_BYTES: usize = 512 << 20;
/// LightningDiT's statistics beside its shards.
pub const STATS_FILE: &str = "latents_stats.pt";

/// The plan of an encoding.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A folder for shards, or a file that ends in `.h5`.
    pub out: PathBuf,
    /// Batch size.
    pub batch: usize,
    /// Random seed of the posterior samples.
    pub seed: u64,
    /// Rank of this process.
    pub rank: Rank,
    /// Free bytes of the disk that it goes to, where they can be told.
    pub free: Option<u64>,
    /// What happens to latents of another making.
    pub other: Other,
}

/// The encoder and what identifies it.
#[derive(Debug)]
pub struct Encoder {
    /// The network.
    pub network: ImageEncoder,
    /// Fingerprint of its weights.
    pub fingerprint: String,
    /// Its device.
    pub device: Device,
}

impl Encoder {
    /// Images in −1…1, `[B, 3, side, side]`.
    fn images(&self, planes: Vec<f32>, side: usize) -> Tensor<4> {
        let b = planes.len() / (3 * side * side);
        Tensor::from_data(TensorData::new(planes, [b, 3, side, side]), &self.device)
    }
}

/// Result of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All shards are complete.
    Done,
    /// This rank is done, others are not.
    Partial,
    /// It was cancelled.
    Stopped,
}

/// Encodes every image and its horizontal flip, in LightningDiT's format: posterior samples, or the tokens of a RAE.
///
/// What is done has no statistics yet, or has those of the same latents: [`write_statistics`].
///
/// # Errors
///
/// * The folder has shards that were made of another store, with other weights, another seed or number of
///   processes ([`IdentityError`](tintype::files::IdentityError)), unless [`Plan::other`] lets them be removed.
/// * [`Plan::free`] bytes are less than the shards take that are missing.
/// * The folder or a shard cannot be written.
///
/// # Panics
///
/// If the store is empty or [`Plan::batch`] is 0.
pub fn to_shards(
    store: &ImageStore,
    encoder: &Encoder,
    plan: &Plan,
    progress: &Progress,
) -> Result<Outcome> {
    create_folder(&plan.out)?;
    let identity = match encoder.network.has_posterior() {
        true => identity(store, encoder, "posterior samples").with("seed", plan.seed),
        false => identity(store, encoder, "tokens"),
    };
    let identity = identity.with("mirrored", true).with("processes", plan.rank.world);
    if check_shards(&plan.out, is_shard, &identity, plan.other)? {
        remove(&plan.out.join(STATS_FILE))?;
    }
    if plan.rank.world == 1 {
        sweep(&plan.out, |name| is_shard(name) || name == STATS_FILE)?;
    }
    let identity = identity.text();
    let first = encoder.images(store.planes(0), store.side());
    let latent = encoder.network.latents(first, |[c, h, w]| vec![0.0; c * h * w]);
    let [_, c, h, w] = latent.dims();
    let most = if encoder.network.has_posterior() { SHARD_BYTES } else { TOKEN_SHARD_BYTES };
    let rows = (most / (c * h * w * 4)).clamp(1, 10_000);
    let shards = |rank: usize| -> Vec<(PathBuf, Vec<usize>)> {
        let all: Vec<usize> = Rank { rank, ..plan.rank }.share(store.len()).collect();
        let shard = |(number, items): (usize, &[usize])| {
            let name = format!("latents_rank{rank:02}_shard{number:03}.safetensors");
            (plan.out.join(name), items.to_vec())
        };
        all.chunks(rows).enumerate().map(shard).collect()
    };
    let is_there =
        |(path, items): &(PathBuf, Vec<usize>)| is_finished(path, &identity, items.len());
    let missing = (0..plan.rank.world).flat_map(&shards).filter(|shard| !is_there(shard));
    let images: usize = missing.map(|(_, items)| items.len()).sum();
    check_space(plan, images as u64 * (2 * 4 * c * h * w + 8) as u64)?;
    for shard in shards(plan.rank.rank) {
        if is_there(&shard) {
            progress.resume(shard.1.len());
        } else if !encode_shard(store, encoder, plan, &shard, &identity, [c, h, w], progress)? {
            return Ok(Outcome::Stopped);
        }
    }
    // Of processes that started together, the last one finds all of them.
    let others = (0..plan.rank.world).filter(|&rank| rank != plan.rank.rank);
    let complete = others.flat_map(&shards).all(|shard| is_there(&shard));
    Ok(if complete { Outcome::Done } else { Outcome::Partial })
}

/// Refuses to begin what the disk has no room for: of a large store a RAE's latents are terabytes.
fn check_space(plan: &Plan, needed: u64) -> Result<()> {
    if let Some(free) = plan.free.filter(|free| *free < needed) {
        bail!(
            "{}: the latents that are missing take {} and {} is free there",
            plan.out.display(),
            bytes(needed),
            bytes(free)
        );
    }
    Ok(())
}

/// What latents of a store are made from.
fn identity(store: &ImageStore, encoder: &Encoder, kind: &str) -> Identity {
    Identity::default()
        .with("latents", kind)
        .with("store", store.fingerprint().to_string())
        .with("images", store.len())
        .with("side", store.side())
        .with("encoder", encoder.fingerprint.as_str())
}

/// `latents_rank00_shard000.safetensors`, …
fn is_shard(name: &str) -> bool {
    let rest = name.strip_prefix("latents_rank").and_then(|name| name.split_once("_shard"));
    rest.is_some_and(|(rank, shard)| {
        is_numbered(rank, "", "") && is_numbered(shard, "", ".safetensors")
    })
}

/// Whether a shard of this identity is there; one that cannot be opened is made again.
fn is_finished(path: &Path, identity: &str, rows: usize) -> bool {
    let Ok(weights) = open(path) else { return false };
    weights.metadata.get(IDENTITY).is_some_and(|recorded| recorded == identity)
        && weights.tensors.get("labels").is_some_and(|labels| labels.len() == rows)
}

/// Encodes the images of a shard, whose latents are `[C, h, w]`, and writes it; tells whether it did, as it does unless
/// it is cancelled.
fn encode_shard(
    store: &ImageStore,
    encoder: &Encoder,
    plan: &Plan,
    (path, items): &(PathBuf, Vec<usize>),
    identity: &str,
    [c, h, w]: [usize; 3],
    progress: &Progress,
) -> Result<bool> {
    let side = store.side();
    // As the file holds them: of a RAE's, which are a gibibyte, there is no copy.
    let latent_bytes = c * h * w * 4;
    let mut samples = [false, true].map(|flipped| (flipped, vec![0u8; items.len() * latent_bytes]));
    for (number, batch) in items.chunks(plan.batch).enumerate() {
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        for (flipped, bytes) in &mut samples {
            let images = batch.iter().flat_map(|&i| {
                let planes = store.planes(i);
                if *flipped { mirror(&planes, side) } else { planes }
            });
            let images = encoder.images(images.collect(), side);
            let z = encoder.network.latents(images, |[c, h, w]| {
                let noise = |&i: &usize| {
                    let key = ImageKey::new(plan.seed, i as u64);
                    normals(key, Stream::Posterior, u32::from(*flipped), c * h * w)
                };
                batch.iter().flat_map(noise).collect()
            });
            let values = z.into_data().convert::<f32>();
            let values =
                values.as_slice::<f32>().map_err(|e| anyhow!("latents cannot be read: {e}"))?;
            // Places without a value would stay zeros.
            ensure!(
                values.len() * 4 == batch.len() * latent_bytes,
                "the encoder gave {} values for {} latents of {c} x {h} x {w}",
                values.len(),
                batch.len()
            );
            let places = bytes[number * plan.batch * latent_bytes..].chunks_exact_mut(4);
            for (place, value) in places.zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        progress.images.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
    let labels: Vec<u8> =
        items.iter().flat_map(|&i| store.label(i).map_or(-1, |l| l as i64).to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::from_bytes(dtype, shape.to_vec(), bytes).map_err(anyhow::Error::msg)
    };
    let n = items.len();
    let [(_, straight), (_, flipped)] = samples;
    let tensors = BTreeMap::from([
        ("latents".to_string(), view(Dtype::F32, &[n, c, h, w], straight)?),
        ("latents_flip".to_string(), view(Dtype::F32, &[n, c, h, w], flipped)?),
        ("labels".to_string(), view(Dtype::I64, &[n], labels)?),
    ]);
    // The keys that LightningDiT's own shards carry, and ours.
    let metadata = BTreeMap::from([
        ("total_size".to_string(), n.to_string()),
        ("dtype".to_string(), "torch.float32".to_string()),
        ("device".to_string(), "cpu".to_string()),
        (IDENTITY.to_string(), identity.to_string()),
    ]);
    write_shard(path, &tensors, &metadata)?;
    Ok(true)
}

/// The horizontal flip of planes `[3, side, side]`.
///
/// # Panics
///
/// If `side` is 0.
pub fn mirror(planes: &[f32], side: usize) -> Vec<f32> {
    planes.chunks_exact(side).flat_map(|row| row.iter().rev().copied()).collect()
}

/// Writes statistics beside finished shards: of posterior samples mean and standard deviation of each channel, as
/// LightningDiT has them; of tokens mean and variance of each position over images and their flips, as RAE has them. They
/// are of at most 10,000 images, whose latents are read once: of a RAE 16 GB.
///
/// # Errors
///
/// If a shard cannot be read, the file cannot be written, or a channel is constant.
pub fn write_statistics(folder: &Path, network: &ImageEncoder) -> Result<()> {
    let shards = LatentShards::open(folder)?;
    let (shape, entries) = match network.has_posterior() {
        true => {
            let stats = shards.statistics().with_context(|| folder.display().to_string())?;
            (vec![1, stats.mean.len(), 1, 1], [("mean", stats.mean), ("std", stats.std)])
        }
        false => {
            let [mean, variance] = shards.moments_of_positions();
            (shards.shape.to_vec(), [("mean", mean), ("var", variance)])
        }
    };
    let entries: Vec<pt::Entry<'_>> =
        entries.iter().map(|(name, values)| pt::Entry { name, shape: &shape, values }).collect();
    Ok(write_durably(&folder.join(STATS_FILE), &pt::to_bytes(&entries)?)?)
}

/// Why the latents of a RAE do not become an `.h5` file.
pub fn no_moments(out: &Path) -> anyhow::Error {
    anyhow!(
        "{}: an .h5 file holds the moments of posteriors, and a RAE's latents have none; write shards to a folder",
        out.display()
    )
}

/// Encodes mean and standard deviation of every image's posterior, in REPA-E's and Hi-DiT's format.
///
/// # Errors
///
/// * The encoder has no posterior, or several processes share the work.
/// * The file, or what an earlier run left of it, was made of another store or with other weights
///   ([`IdentityError`](tintype::files::IdentityError)), unless [`Plan::other`] lets it be removed.
/// * The file or its list cannot be written, or what an earlier run left of it cannot be read.
///
/// # Panics
///
/// If [`Plan::batch`] is 0.
pub fn to_hdf5(
    store: &ImageStore,
    encoder: &Encoder,
    plan: &Plan,
    progress: &Progress,
) -> Result<Outcome> {
    ensure!(
        plan.rank.world == 1,
        "an .h5 file is written by a single process; use one process, or write shards to a folder"
    );
    let ImageEncoder::Vae(network) = &encoder.network else {
        return Err(no_moments(&plan.out));
    };
    let identity = identity(store, encoder, "posterior moments");
    let Some(writer) = Hdf5Writer::open(&plan.out, &identity, plan.other)? else {
        progress.resume(store.len());
        return Ok(Outcome::Done);
    };
    let name = |i: usize| item_name(i, "img-mean-std-", "npy");
    let done = writer.groups()?;
    progress.resume((done * GROUP).min(store.len()));
    let all: Vec<usize> = (0..store.len()).collect();
    for (group, items) in all.chunks(GROUP).enumerate().skip(done) {
        let mut payloads = Vec::new();
        for batch in items.chunks(plan.batch) {
            if progress.stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            let images = batch.iter().flat_map(|&i| store.planes(i)).collect();
            let posterior = network.encode(encoder.images(images, store.side()));
            let std = posterior.std();
            let moments = Tensor::cat(vec![posterior.mean, std], 1); // [B, 2·C, h, w]
            let [_, c2, h, w] = moments.dims();
            let values: Vec<f32> = moments.into_data().convert::<f32>().iter::<f32>().collect();
            for (&i, values) in batch.iter().zip(values.chunks_exact(c2 * h * w)) {
                let shape = [c2, h, w].map(|n| n as u64).to_vec();
                payloads.push((name(i), Payload::Floats(values.to_vec(), shape)));
            }
            progress.images.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        writer.append(group, payloads)?;
    }
    let labels: Vec<(String, i64)> =
        all.iter().map(|&i| (name(i), store.label(i).map_or(-1, |l| l as i64))).collect();
    writer.finish(&labels, false).with_context(|| plan.out.display().to_string())?;
    Ok(Outcome::Done)
}

/// A PNG without compression, as REPA-E stores images.
fn uncompressed_png(image: &Rgb) -> Result<Vec<u8>> {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    use image::{ExtendedColorType, ImageEncoder};
    let mut bytes = Vec::new();
    let none = CompressionType::Uncompressed;
    PngEncoder::new_with_quality(&mut bytes, none, FilterType::NoFilter).write_image(
        &image.pixels,
        image.width as u32,
        image.height as u32,
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// The images of a store as Hi-DiT's `images.h5`: PNG files without compression.
///
/// # Errors
///
/// * The file, or what an earlier run left of it, has the images of another store
///   ([`IdentityError`](tintype::files::IdentityError)), and is not to be removed.
/// * An image cannot be encoded, the file or its list cannot be written, or what an earlier run left of it cannot
///   be read.
pub fn images_to_hdf5(
    store: &ImageStore,
    out: &Path,
    other: Other,
    progress: &Progress,
) -> Result<Outcome> {
    let identity = Identity::default()
        .with("store", store.fingerprint().to_string())
        .with("images", store.len())
        .with("side", store.side());
    let Some(writer) = Hdf5Writer::open(out, &identity, other)? else { return Ok(Outcome::Done) };
    let name = |i: usize| item_name(i, "img", "png");
    let all: Vec<usize> = (0..store.len()).collect();
    for (group, items) in all.chunks(GROUP).enumerate().skip(writer.groups()?) {
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(Outcome::Stopped);
        }
        let payload = |&i: &usize| Ok((name(i), Payload::File(uncompressed_png(&store.image(i))?)));
        writer.append(group, items.iter().map(payload).collect::<Result<_>>()?)?;
    }
    let labels: Vec<(String, i64)> =
        all.iter().map(|&i| (name(i), store.label(i).map_or(-1, |l| l as i64))).collect();
    writer.finish(&labels, true)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_refused() {
        let space = |free: Option<u64>, needed: u64| {
            let (out, rank) = (PathBuf::from("latents"), Rank::ALONE);
            let plan = Plan { out, batch: 1, seed: 0, rank, free, other: Other::Refuse };
            check_space(&plan, needed).map_err(|e| e.to_string())
        };
        assert_eq!(space(None, u64::MAX), Ok(()));
        assert_eq!(space(Some(10), 10), Ok(()));
        let error = space(Some(1 << 30), 2 << 40).expect_err("there is no room");
        assert!(error.contains("latents") && error.contains("2048.0 GiB and 1.0 GiB"), "{error}");
    }
}
