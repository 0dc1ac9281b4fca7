//! Training dataset of cached latents.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tintype::generate::LatentStats;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::open;

use super::classes::check_null_class;
use super::epoch_sampler::SampleIndex;
use super::record::{DataRecord, labels};
use crate::data::encode::STATS_FILE;
use crate::data::hdf5::Hdf5Store;
use crate::data::latents::LatentShards;
use crate::data::running::{Running, of_channels};

/// How many latents a run records a checksum of.
const CHECKED: usize = 64;

/// Latents of a dataset.
pub struct Latents {
    kind: Kind,
    /// The class of every item.
    pub labels: Vec<Option<usize>>,
    /// Shape of one latent.
    pub shape: [usize; 3],
    /// What the latents are normalised with.
    pub stats: LatentStats,
}

enum Kind {
    /// LightningDiT's: fixed posterior samples, with horizontal flips.
    Samples(LatentShards),
    /// REPA-E's: posterior mean and standard deviation, resampled at every access. One for all ranks.
    Moments(Arc<Hdf5Store>),
}

impl Latents {
    /// Opens a folder of shards or an `.h5` file. Statistics are read from `stats`, else from the
    /// file beside the shards, else computed from the latents.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, there are no latents, their shape is not `[C, h, w]`, the statistics are those of other
    /// latents, or a channel is constant of which they are computed.
    pub fn open(path: &Path, stats: Option<&Path>) -> Result<Self> {
        let label = |l: i64| usize::try_from(l).ok();
        let beside = path.join(STATS_FILE);
        let given = stats.map(Path::to_path_buf).or_else(|| beside.exists().then_some(beside));
        let given = match given {
            Some(file) => Some(LatentStats::from_weights(&open(&file)?)?),
            None => None,
        };
        let latents = if path.extension().is_some_and(|e| e == "h5") {
            let store = Hdf5Store::shared(path)?;
            ensure!(!store.items.is_empty(), "{} has no latents", path.display());
            store.labels()?;
            let labels = store.items.iter().map(|item| store.label(item)).collect();
            let (_, shape) = store.moments(&store.items[0])?;
            ensure!(
                shape.len() == 3 && shape[0] % 2 == 0,
                "{}: moments of shape {shape:?} are not [2·C, h, w]",
                path.display()
            );
            let shape = [shape[0] / 2, shape[1], shape[2]];
            let stats = match given {
                Some(stats) => stats,
                None => {
                    moment_statistics(&store, shape).with_context(|| path.display().to_string())?
                }
            };
            Self { kind: Kind::Moments(store), labels, shape, stats }
        } else {
            let shards = LatentShards::open(path)?;
            ensure!(!shards.is_empty(), "{} has no latents", path.display());
            let labels = shards.labels().into_iter().map(label).collect();
            let stats = match given {
                Some(stats) => stats,
                None => shards.statistics().with_context(|| path.display().to_string())?,
            };
            Self { shape: shards.shape, kind: Kind::Samples(shards), labels, stats }
        };
        ensure!(
            latents.stats.fits(latents.shape),
            "the latents have shape {:?} and their statistics {:?}",
            latents.shape,
            latents.stats.shape
        );
        let stats = latents.stats.mean.iter().chain(&latents.stats.std);
        if !stats.clone().all(|v| v.is_finite()) {
            // Statistics of latents that are not finite: name one.
            for item in 0..latents.len() {
                latents.draw(SampleIndex { item, index: 0, global_index: 0 }, 0, false)?;
            }
            bail!("the statistics of the latents in {} are not finite", path.display());
        }
        Ok(latents)
    }

    /// What a run records of them: names, labels, sizes and statistics.
    pub fn record(&self) -> DataRecord {
        let LatentStats { mean, std, .. } = &self.stats;
        let parts = [labels(&self.labels), format!("{:?} {mean:?} {std:?}", self.shape)];
        let names: &[String] = match &self.kind {
            Kind::Samples(_) => &[],
            Kind::Moments(store) => &store.items,
        };
        let record = DataRecord::new(self.len(), parts.into_iter().chain(names.iter().cloned()));
        DataRecord { values: Some(self.checksum()), ..record }
    }

    /// A checksum of evenly spaced latents: it tells those of another encoder, whose labels and given statistics are
    /// the same.
    fn checksum(&self) -> String {
        let count = self.len().min(CHECKED);
        let items = (0..count).map(|i| i * self.len() / count);
        let crc = items.fold(0, |crc, item| {
            let values = match &self.kind {
                Kind::Samples(shards) => {
                    [shards.latent(item, false), shards.latent(item, true)].concat()
                }
                // One that cannot be read is an error when it is drawn.
                Kind::Moments(store) => {
                    store.moments(&store.items[item]).map_or(Vec::new(), |(values, _)| values)
                }
            };
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            crc32c::crc32c_append(crc, &bytes)
        });
        format!("{crc:08x}")
    }

    /// Number of latents.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the dataset is empty.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One unnormalized latent `[C, h, w]`; a new posterior sample if the dataset holds moments.
    ///
    /// # Errors
    ///
    /// If the moments cannot be read from their file or have another shape than the first, or a value is not
    /// finite.
    ///
    /// # Panics
    ///
    /// If the item of `place` is not below [`len`](Self::len).
    pub fn draw(&self, sample: SampleIndex, seed: u64, flipped: bool) -> Result<Vec<f32>> {
        match &self.kind {
            Kind::Samples(shards) => {
                let latent = shards.latent(sample.item, flipped);
                ensure!(is_finite(&latent), "{} is not finite", shards.name(sample.item));
                Ok(latent)
            }
            Kind::Moments(store) => {
                let name = &store.items[sample.item];
                let moments = moments(store, name, self.shape)?;
                ensure!(is_finite(&moments), "the latent {name} is not finite");
                let (mean, std) = moments.split_at(moments.len() / 2);
                let key = ImageKey::new(seed, sample.global_index);
                let eps = normals(key, Stream::Posterior, 0, mean.len());
                Ok(mean.iter().zip(std).zip(eps).map(|((m, s), e)| m + s * e).collect())
            }
        }
    }

    /// Checks that the network has a null class where labels are dropped or missing.
    ///
    /// # Errors
    ///
    /// If it has none, because `class_dropout_prob` is 0, and a label would be replaced by it.
    pub fn check_dropout(&self, dropout: f64, class_dropout_prob: f64) -> Result<()> {
        check_null_class(&self.labels, dropout, class_dropout_prob)
    }

    /// Whether there are latents of flipped images.
    pub fn has_flips(&self) -> bool {
        matches!(self.kind, Kind::Samples(_))
    }
}

fn is_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// The moments of an item, mean first, each of the given shape.
fn moments(store: &Hdf5Store, name: &str, [c, h, w]: [usize; 3]) -> Result<Vec<f32>> {
    let (moments, shape) = store.moments(name)?;
    ensure!(
        shape == [2 * c, h, w],
        "the moments of {name} have shape {shape:?}, not {:?}",
        [2 * c, h, w]
    );
    Ok(moments)
}

/// Per-channel mean and standard deviation of posterior samples, from the moments of at most 10,000
/// evenly spaced items.
fn moment_statistics(store: &Hdf5Store, [c, h, w]: [usize; 3]) -> Result<LatentStats> {
    let count = store.items.len().min(10_000);
    let mut channels = vec![Running::default(); c];
    for i in 0..count {
        let moments = moments(store, &store.items[i * store.items.len() / count], [c, h, w])?;
        let (mean, std) = moments.split_at(c * h * w);
        for (at, (&mean, &std)) in mean.iter().zip(std).enumerate() {
            channels[at / (h * w)].add_drawn(mean, std);
        }
    }
    Ok(of_channels(&channels)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use tempfile::TempDir;
    use tintype::files::Identity;
    use tintype::weights::{Dtype, TensorView, write_safetensors};

    use super::*;
    use crate::data::hdf5::{Hdf5Writer, Payload};
    use crate::data::made::Other;
    use crate::train::checkpoint::tests::state;
    use crate::train::checkpoint::{State, check_same};
    use crate::train::record::Record;

    fn floats(shape: &[usize], values: &[f32]) -> TensorView {
        TensorView::from_f32(shape.to_vec(), values).expect("they fit")
    }

    fn write<const N: usize>(path: &Path, tensors: [(&str, TensorView); N]) {
        let named = tensors.map(|(name, view)| (name.to_string(), view));
        let bytes = write_safetensors(&BTreeMap::from(named), &BTreeMap::new()).expect("it fits");
        std::fs::write(path, bytes).expect("it is written");
    }

    /// The record of latents in a folder, with statistics that are given.
    fn recorded(folder: &TempDir, latents: &str) -> DataRecord {
        let stats = folder.path().join("stats.safetensors");
        write(&stats, [("mean", floats(&[1], &[0.0])), ("std", floats(&[1], &[1.0]))]);
        Latents::open(&folder.path().join(latents), Some(&stats)).expect("they open").record()
    }

    /// Two latents of two values each, and those of the flipped images.
    fn shards(latents: [f32; 4], flipped: [f32; 4]) -> DataRecord {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join("latents")).expect("a folder");
        let labels = TensorView::from_bytes(Dtype::I64, vec![2], vec![0; 16]).expect("they fit");
        write(
            &folder.path().join("latents/shard000.safetensors"),
            [
                ("latents", floats(&[2, 1, 1, 2], &latents)),
                ("latents_flip", floats(&[2, 1, 1, 2], &flipped)),
                ("labels", labels),
            ],
        );
        recorded(&folder, "latents")
    }

    /// The moments of one latent of two values.
    fn moments(values: [f32; 4]) -> DataRecord {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("moments.h5");
        let writer = Hdf5Writer::open(&path, &Identity::default(), Other::Refuse);
        let writer = writer.expect("it opens").expect("it is new");
        let item = || "00000/img-mean-std-00000000.npy".to_string();
        let payload = Payload::Floats(values.to_vec(), vec![2, 1, 2]);
        writer.append(0, vec![(item(), payload)]).expect("it is written");
        writer.finish(&[(item(), 0)], false).expect("it ends");
        recorded(&folder, "moments.h5")
    }

    #[test]
    fn latents_of_another_encoder_are_noticed_on_resume() {
        let of = |data: &DataRecord| {
            let record = Record { settings: Value::Null, data: data.clone() };
            State { record: Some(record), ..state(1) }
        };
        let resumed = |then: &DataRecord, now: &DataRecord, allowed: bool| {
            let checkpoint = Path::new("run/checkpoints/00000001");
            check_same(&of(then), &of(now), checkpoint, allowed).map_err(|e| e.to_string())
        };
        let (a, b, c) = ([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.5]);
        assert_eq!(resumed(&shards(a, b), &shards(a, b), false), Ok(None));
        for (then, now) in [
            (shards(a, b), shards(c, b)),
            (shards(a, a), shards(a, c)), // those of the flipped images alone
            (moments(a), moments(c)),
        ] {
            assert_eq!(then.fingerprint, now.fingerprint, "names, labels and sizes are the same");
            let values = |data: &DataRecord| data.values.clone().expect("a checksum");
            let differs = format!("data.values {:?} → {:?}", values(&then), values(&now));
            let error = resumed(&then, &now, false).expect_err("other latents");
            assert!(error.contains(&differs), "{error}");
            let note = resumed(&then, &now, true).expect("it is meant").expect("a note");
            assert!(note.contains(&differs), "{note}");
            // Earlier versions recorded none.
            assert_eq!(resumed(&DataRecord { values: None, ..then }, &now, false), Ok(None));
        }
    }
}
