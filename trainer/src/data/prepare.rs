//! From encoded images to a store: decode, crop, write, shard by shard.

mod shard;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use anyhow::Context;
use tintype::files::{Identity, write_durably};

use self::shard::{decode_shard, finished, is_shard, shard_name};
use super::fingerprint::Fingerprint;
use super::hdf5::{identity_of, list_of};
use super::made::{Other, check_shards, create_folder, remove, sweep};
use super::source::{Item, Skipped, Source};
use super::store::{Description, STORE_FILE, Shard, file_crc32c};

/// Bytes of a shard, about.
const SHARD_BYTES: usize = 128 << 20;
/// The list of what was left out.
const SKIPPED_FILE: &str = "skipped.txt";

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
    // Before the description is removed because only the names of the classes differ.
    let recorded = recorded_checksums(&plan.out, &identity);
    claim(source, plan, &identity)?;
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

/// The checksums of an earlier store's shards by their numbers; none of a store of another making.
fn recorded_checksums(out: &Path, identity: &Identity) -> BTreeMap<usize, u32> {
    let path = out.join(STORE_FILE);
    let text = std::fs::read(&path).unwrap_or_default();
    let description: Option<Description> = serde_json::from_slice(&text).ok();
    let is_same = |description: &Description| {
        let recorded = description.identity.as_ref().map(Identity::text);
        identity.check_part(&path, recorded.as_deref()).is_ok()
    };
    let description = description.filter(is_same);
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
        let has_same_shards = identity.check_part(&path, recorded.as_deref()).is_ok();
        let compared = of_store(identity, source).check(&path, recorded.as_deref());
        let own = [STORE_FILE, SKIPPED_FILE].map(|name| plan.out.join(name));
        let is_removed = plan.other.settle(compared, &own.each_ref().map(|file| file.as_path()))?;
        // The `.h5` file of a store does not hold the names of its classes.
        if is_removed && !has_same_shards {
            remove_hdf5(source, &plan.out)?;
        }
    }
    check_shards(&plan.out, is_shard, identity, plan.other)?;
    if plan.world == 1 {
        sweep(&plan.out, |name| is_shard(name) || [STORE_FILE, SKIPPED_FILE].contains(&name))?;
    }
    Ok(())
}

/// Removes the `images.h5` of a store, but none of another tool, and not the one that is the source.
fn remove_hdf5(source: &Source, out: &Path) -> anyhow::Result<()> {
    let [file, partial] = ["images.h5", "images.h5.partial"].map(|name| out.join(name));
    let is_own = |file: &Path| identity_of(file).is_ok_and(|identity| identity.is_some());
    if source.is_read_from(&file) || (file.exists() && !is_own(&file)) {
        return Ok(());
    }
    let was_begun = file.exists() || is_own(&partial);
    // The list last: alone it does not tell whose it is.
    for file in [&file, &partial, &list_of(&file)].into_iter().filter(|_| was_begun) {
        remove(file)?;
    }
    Ok(())
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
