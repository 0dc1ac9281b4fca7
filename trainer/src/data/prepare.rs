//! From encoded images to a store: decode, crop, write, shard by shard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use anyhow::Context;
use rayon::prelude::*;
use tintype::files::{Identity, write_durably};
use tintype::image::Rgb;
use tintype::weights::{Dtype, TensorView, open};

use super::crop::center_crop;
use super::fingerprint::Fingerprint;
use super::jpeg;
use super::made::{
    IDENTITY, Other, check_shards, create_folder, is_numbered, remove, sweep, write_shard,
};
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
    /// Files of shards that others wrote and this run has read as a whole: they have the checksums that were recorded
    /// of them, or there were none and they are recorded as they were found.
    pub read: BTreeSet<String>,
    /// How many of those are recorded as they were found: shards of another process, or of an earlier run that was not
    /// finished.
    pub as_found: usize,
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
/// * An image cannot be read: the disk fails, or the file has gone or changed since it was listed. One that is damaged
///   is left out.
/// * None of the images can be decoded.
///
/// # Panics
///
/// If [`Plan::side`] or [`Plan::world`] is 0.
pub fn prepare(source: &Source, plan: &Plan, progress: &Progress) -> anyhow::Result<Outcome> {
    let image_bytes = plan.side * plan.side * 3;
    let per_shard = (SHARD_BYTES / image_bytes).clamp(1, 10_000);
    prepare_shards(source, plan, per_shard, progress)
}

/// [`prepare`] with so many images in a shard.
fn prepare_shards(
    source: &Source,
    plan: &Plan,
    per_shard: usize,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    create_folder(&plan.out)?;
    let identity = Identity::default()
        .with("source", source.fingerprint().to_string())
        .with("images", source.items.len())
        .with("side", plan.side)
        .with("images_per_shard", per_shard);
    claim(source, plan, &identity)?;
    // Of a store of another making, nothing is left now.
    let recorded = recorded_checksums(&plan.out);
    let identity_text = identity.text();
    let chunks: Vec<&[Item]> = source.items.chunks(per_shard).collect();
    let mut checksums = Checksums::default();
    let mut resumed = 0;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        // While a shard is written, the next one is decoded: there are two in memory.
        let mut writing: Option<(usize, ScopedJoinHandle<'_, anyhow::Result<u32>>)> = None;
        for (number, items) in chunks.iter().enumerate() {
            if progress.stop.load(Ordering::Relaxed) {
                break;
            }
            let is_own = number % plan.world == plan.rank;
            let path = plan.out.join(shard_name(number));
            // Each process compares its own with what is recorded, and makes those again that differ. What is recorded
            // of others is kept, and compared by whoever verifies the whole store.
            let own = recorded.get(&number).filter(|_| is_own);
            if finished(&path, &identity_text).is_some() && is_intact(&path, own) {
                resumed += 1;
                progress.resume(items.len());
                checksums.read.extend(own.map(|checksum| (number, *checksum)));
                continue;
            }
            if !is_own {
                continue;
            }
            let Some(shard) = decode_shard(source, items, plan.side, progress)? else {
                break; // stopped
            };
            // A disk that is slower than decoding makes it wait here.
            if let Some((number, writer)) = writing.take() {
                checksums.written.insert(number, joined(writer)?);
            }
            let identity = &identity_text;
            let writer = scope.spawn(move || shard.write(&path, plan.side, identity));
            writing = Some((number, writer));
        }
        if let Some((number, writer)) = writing {
            checksums.written.insert(number, joined(writer)?);
        }
        Ok(())
    })?;
    checksums.recorded = recorded;
    describe(source, plan, &identity, checksums, (chunks.len(), resumed), progress)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// CRC-32C of shards by their numbers.
#[derive(Default)]
struct Checksums {
    /// Of those that this run has written, as they were written.
    written: BTreeMap<usize, u32>,
    /// Of files that this run has read and that have them.
    read: BTreeMap<usize, u32>,
    /// In the description of an earlier run.
    recorded: BTreeMap<usize, u32>,
}

/// The checksums of an earlier store's shards by their numbers.
fn recorded_checksums(out: &Path) -> BTreeMap<usize, u32> {
    let text = std::fs::read(out.join(STORE_FILE)).unwrap_or_default();
    let description: Option<Description> = serde_json::from_slice(&text).ok();
    let shards = description.into_iter().flat_map(|description| description.shards).enumerate();
    shards
        .filter(|(number, shard)| shard.file == shard_name(*number))
        .map(|(number, shard)| (number, shard.crc32c))
        .collect()
}

/// Whether a file has the checksum that is recorded of it. A damaged one is made again.
fn is_intact(path: &Path, recorded: Option<&u32>) -> bool {
    recorded.is_none_or(|recorded| file_crc32c(path).is_ok_and(|found| found == *recorded))
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

/// The decoded images of a shard.
struct Decoded {
    /// `[n, side, side, 3]`
    pixels: Vec<u8>,
    /// `[n]`; −1 for none.
    labels: Vec<i64>,
    skipped: Vec<Skipped>,
    enlarged: usize,
}

/// Decodes a shard's images, each into its place; `None` if cancelled. An image that is damaged is left out; a disk
/// that fails is an error, since a shard without the images that it kept back would count as finished.
fn decode_shard(
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
    fn write(self, path: &Path, side: usize, identity: &str) -> anyhow::Result<u32> {
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

/// Writes the description once every shard is there. Shards of which no checksum is known are read for one.
fn describe(
    source: &Source,
    plan: &Plan,
    identity: &Identity,
    checksums: Checksums,
    (count, resumed): (usize, usize),
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let identity_text = identity.text();
    let Checksums { written, mut read, recorded } = checksums;
    let mut outcome = Outcome {
        images: 0,
        skipped: source.skipped.clone(),
        enlarged: 0,
        resumed,
        read: BTreeSet::new(),
        as_found: 0,
        complete: true,
    };
    let mut counts = Vec::new();
    for number in 0..count {
        let Some(shard) = finished(&plan.out.join(shard_name(number)), &identity_text) else {
            outcome.complete = false;
            continue;
        };
        outcome.images += shard.images;
        outcome.skipped.extend(shard.skipped);
        outcome.enlarged += shard.enlarged;
        counts.push(shard.images);
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
    let mut shards = Vec::new();
    for (number, count) in counts.into_iter().enumerate() {
        let file = shard_name(number);
        let known = written.get(&number).or_else(|| read.get(&number)).copied();
        let crc32c = match (known, recorded.get(&number)) {
            (Some(crc32c), _) => crc32c,
            _ if progress.stop.load(Ordering::Relaxed) => {
                outcome.complete = false;
                return Ok(outcome);
            }
            // A fresh one of a file that is damaged would bless the damage.
            (None, Some(recorded)) => *recorded,
            (None, None) => {
                let path = plan.out.join(&file);
                let found = file_crc32c(&path)
                    .with_context(|| format!("{} cannot be read", path.display()))?;
                read.insert(number, found);
                outcome.as_found += 1;
                found
            }
        };
        shards.push(Shard { file, count, crc32c });
    }
    outcome.read = read.keys().map(|number| shard_name(*number)).collect();
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tintype::weights::write_safetensors;

    use super::*;
    use crate::data::made::names;
    use crate::data::source::Options;
    use crate::data::store::ImageStore;

    const SIDE: usize = 8;
    const COUNT: usize = 7;
    const PER_SHARD: usize = 3;
    /// An image in a shard with others, and all of a shard.
    const DAMAGED: [usize; 2] = [1, 6];
    /// Half a file.
    const HALF: &[u8] = b"P6";

    fn picture(i: usize) -> Rgb {
        let (width, height) = (5 + 2 * i, 12);
        let pixels = (0..width * height * 3).map(|at| (at * (i + 3) % 251) as u8).collect();
        Rgb { width, height, pixels }
    }

    fn name(i: usize) -> String {
        format!("{}/{i}.ppm", ["a", "b"][i / 4])
    }

    /// Images in two classes, and an empty folder for a store.
    fn sources() -> (TempDir, Source, Plan) {
        let place = TempDir::new().expect("a folder");
        for i in 0..COUNT {
            let Rgb { width, height, pixels } = picture(i);
            let header = format!("P6 {width} {height} 255\n");
            let whole = [header.as_bytes(), &pixels].concat();
            let file = place.path().join("images").join(name(i));
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
            let bytes = if DAMAGED.contains(&i) { HALF } else { &whole };
            std::fs::write(file, bytes).expect("it is written");
        }
        let images = place.path().join("images");
        let source = Source::open(&images, &Options::default()).expect("a source");
        let out = place.path().join("store");
        let plan = Plan { side: SIDE, out, rank: 0, world: 1, other: Other::Refuse };
        (place, source, plan)
    }

    fn run(source: &Source, plan: &Plan) -> anyhow::Result<Outcome> {
        prepare_shards(source, plan, PER_SHARD, &Progress::default())
    }

    fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
        let one = |name: String| {
            let bytes = std::fs::read(out.join(&name)).expect("it is there");
            (name, bytes)
        };
        names(out).expect("a folder").into_iter().map(one).collect()
    }

    fn files(numbers: &[usize]) -> BTreeSet<String> {
        numbers.iter().map(|number| shard_name(*number)).collect()
    }

    /// The bytes of a shard, made image by image.
    fn shard(source: &Source, number: usize) -> Vec<u8> {
        let items = number * PER_SHARD..COUNT.min((number + 1) * PER_SHARD);
        let (bad, good): (Vec<usize>, Vec<usize>) = items.partition(|i| DAMAGED.contains(i));
        let pixels = good.iter().flat_map(|i| center_crop(&picture(*i), SIDE).pixels).collect();
        let labels = good.iter().flat_map(|i| ((i / 4) as i64).to_le_bytes()).collect();
        let reason = decode(HALF).expect_err("half a file");
        let skipped = |i: &usize| Skipped { name: name(*i), reason: reason.clone() };
        let skipped: Vec<Skipped> = bad.iter().map(skipped).collect();
        let enlarged = good.iter().filter(|i| picture(**i).width < SIDE).count();
        let identity = Identity::default()
            .with("source", source.fingerprint().to_string())
            .with("images", COUNT)
            .with("side", SIDE)
            .with("images_per_shard", PER_SHARD);
        let (n, view) = (good.len(), TensorView::from_bytes);
        let images = view(Dtype::U8, vec![n, SIDE, SIDE, 3], pixels).expect("as many bytes");
        let labels = view(Dtype::I64, vec![n], labels).expect("as many bytes");
        let tensors = [("images".to_string(), images), ("labels".to_string(), labels)];
        let metadata = [
            (IDENTITY.to_string(), identity.text()),
            ("skipped".to_string(), serde_json::to_string(&skipped).expect("JSON")),
            ("enlarged".to_string(), enlarged.to_string()),
        ];
        write_safetensors(&tensors.into(), &metadata.into()).expect("it fits")
    }

    #[test]
    fn shards_hold_what_can_be_read_and_are_read_again_once() {
        let (_place, source, plan) = sources();
        let first = run(&source, &plan).expect("it is prepared");
        assert!(first.complete && first.read.is_empty());
        let counts = (first.images, first.skipped.len(), first.enlarged, first.resumed);
        assert_eq!(counts, (5, 2, 1, 0));
        let whole = contents(&plan.out);
        let there: Vec<&str> = whole.keys().map(String::as_str).collect();
        let shards = [0, 1, 2].map(shard_name);
        assert_eq!(there[..3], shards);
        assert_eq!(there[3..], [SKIPPED_FILE, STORE_FILE]);
        for (number, file) in shards.iter().enumerate() {
            assert!(whole[file] == shard(&source, number), "{file}");
        }
        let store = ImageStore::open(&plan.out).expect("a store");
        assert_eq!(store.labels(), [0usize, 0, 0, 1, 1].map(Some));
        for (index, i) in [0, 2, 3, 4, 5].into_iter().enumerate() {
            assert_eq!(store.image(index), center_crop(&picture(i), SIDE));
        }
        store.verify().expect("what was written has the checksums of what was to be written");
        drop(store);

        // What is done is compared with its checksums.
        let again = run(&source, &plan).expect("it is done");
        assert_eq!((again.resumed, again.as_found, again.read), (3, 0, files(&[0, 1, 2])));
        assert!(again.complete && contents(&plan.out) == whole);
        // A killed process left no checksums, and half of its work.
        std::fs::remove_file(plan.out.join(STORE_FILE)).expect("it was there");
        std::fs::remove_file(plan.out.join(shard_name(1))).expect("it was there");
        let resumed = run(&source, &plan).expect("it is prepared");
        assert_eq!((resumed.resumed, resumed.as_found, resumed.read), (2, 2, files(&[0, 2])));
        assert!(resumed.complete && contents(&plan.out) == whole);
        // A damaged shard is made again.
        let mut damaged = whole[&shard_name(0)].clone();
        *damaged.last_mut().expect("it is not empty") ^= 1;
        std::fs::write(plan.out.join(shard_name(0)), damaged).expect("it is written");
        let repaired = run(&source, &plan).expect("it is prepared");
        assert_eq!((repaired.resumed, repaired.as_found, repaired.read), (2, 0, files(&[1, 2])));
        assert!(repaired.complete && contents(&plan.out) == whole);
    }

    #[test]
    fn processes_share_the_shards() {
        let (_place, source, plan) = sources();
        run(&source, &plan).expect("it is prepared");
        let whole = contents(&plan.out);
        std::fs::remove_dir_all(&plan.out).expect("it was there");
        let [first, second] = [0, 1].map(|rank| Plan { rank, world: 2, ..plan.clone() });
        let outcome = run(&source, &first).expect("its shards are written");
        assert!(!outcome.complete && outcome.read.is_empty());
        let there: BTreeSet<String> = names(&plan.out).expect("a folder").into_iter().collect();
        assert_eq!(there, files(&[0, 2]));
        let outcome = run(&source, &second).expect("it is prepared");
        assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 2, 2));
        assert_eq!(outcome.read, files(&[0, 2]));
        assert!(contents(&plan.out) == whole);
    }

    #[test]
    fn damage_in_a_shard_of_another_process_is_not_recorded() {
        let (_place, source, plan) = sources();
        run(&source, &plan).expect("it is prepared");
        let whole = contents(&plan.out);
        let mut damaged = whole[&shard_name(1)].clone();
        *damaged.last_mut().expect("it is not empty") ^= 1;
        std::fs::write(plan.out.join(shard_name(1)), damaged).expect("it is written");
        let [first, second] = [0, 1].map(|rank| Plan { rank, world: 2, ..plan.clone() });
        let outcome = run(&source, &first).expect("its own shards are there");
        assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 3, 0));
        assert_eq!(outcome.read, files(&[0, 2]));
        let store = ImageStore::open(&plan.out).expect("a store");
        let error = store.verify_except(&outcome.read).expect_err("a wrong checksum").to_string();
        assert!(error.contains(&shard_name(1)), "{error}");
        assert!(error.contains("its checksum is wrong"), "{error}");
        drop(store);
        // The one whose shard it is makes it again.
        let outcome = run(&source, &second).expect("it is prepared");
        assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 2, 0));
        assert!(outcome.read.is_empty() && contents(&plan.out) == whole);
        let store = ImageStore::open(&plan.out).expect("a store");
        store.verify_except(&outcome.read).expect("it is whole again");
    }

    #[test]
    fn an_image_that_cannot_be_read_ends_the_work() {
        let (place, source, plan) = sources();
        let file = place.path().join("images").join(name(4));
        let away = place.path().join("away");
        std::fs::rename(&file, &away).expect("it was there");
        let error = format!("{:#}", run(&source, &plan).expect_err("it was listed"));
        assert!(error.contains("the image b/4.ppm cannot be read"), "{error}");
        let there = names(&plan.out).expect("a folder");
        assert_eq!(there, [shard_name(0)], "the shard before is kept");
        // It is back, unlike the fingerprint that the shard has.
        std::fs::rename(&away, &file).expect("it is away");
        let plan = Plan { other: Other::Remove, ..plan };
        let outcome = run(&source, &plan).expect("it is prepared");
        let counts = (outcome.images, outcome.skipped.len(), outcome.resumed);
        assert_eq!(counts, (COUNT - DAMAGED.len(), DAMAGED.len(), 0));
    }
    #[test]
    fn a_shard_that_cannot_be_written_ends_the_work_and_what_is_done_stays() {
        let (_place, source, plan) = sources();
        let taken = plan.out.join(shard_name(1));
        std::fs::create_dir_all(taken.join("in the way")).expect("a folder");
        let error = run(&source, &plan).expect_err("a folder is there").to_string();
        assert!(error.contains("images_00001.safetensors cannot be written"), "{error}");
        std::fs::remove_dir_all(&taken).expect("it was there");
        let done = BTreeMap::from([(shard_name(0), shard(&source, 0))]);
        assert!(contents(&plan.out) == done);
        let outcome = run(&source, &plan).expect("it is prepared");
        assert_eq!((outcome.resumed, outcome.read), (1, files(&[0])));
    }

    #[test]
    fn what_is_cancelled_writes_nothing_more() {
        let (_place, source, plan) = sources();
        let progress = Progress::default();
        progress.stop.store(true, Ordering::Relaxed);
        let outcome = prepare_shards(&source, &plan, PER_SHARD, &progress).expect("it stops");
        assert!(!outcome.complete && contents(&plan.out).is_empty());
    }
}
