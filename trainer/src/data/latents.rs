//! LightningDiT's latent shards (`checkpoints` §2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::made::IDENTITY;
use super::rows::Rows;
use super::running::{ConstantChannel, Running, of_channels};
use super::source::filter::in_hidden;
use tintype::generate::LatentStats;
use tintype::weights::{Weights, WeightsError, open};

/// A folder of `*.safetensors` shards with `latents`, `latents_flip` and `labels`.
#[derive(Debug)]
pub struct LatentShards {
    shards: Vec<Weights>,
    rows: Rows,
    /// Shape of one latent.
    pub shape: [usize; 3],
}

impl LatentShards {
    /// Opens every shard of a folder, in the order of the numbers in their names.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Io`]: the folder or a shard cannot be read.
    /// * [`WeightsError::Format`]: the folder has no shard, a shard is damaged or lacks a tensor,
    ///   the shapes of two shards differ, or `encode` was not run to its end.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let problem = |problem: &str| WeightsError::Format {
            file: folder.display().to_string(),
            problem: problem.into(),
        };
        let entries = std::fs::read_dir(folder)
            .map_err(|source| WeightsError::Io { path: folder.display().to_string(), source })?;
        let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        let is_shard = |name: &str| name.ends_with(".safetensors") && !in_hidden(name);
        files.retain(|f| f.file_name().is_some_and(|name| is_shard(&name.to_string_lossy())));
        files.sort_by_cached_key(|file| (filled(file), file.clone()));
        let shards = files.iter().map(|f| open(f)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Rows::default();
        let mut shape = None;
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for shard in &shards {
            let get = |name: &str| shard.tensors.get(name).map(|view| view.shape.clone());
            let (Some(latents), Some(flip), Some(labels)) =
                (get("latents"), get("latents_flip"), get("labels"))
            else {
                return Err(problem("a shard lacks latents, latents_flip or labels"));
            };
            let &[n, c, h, w] = latents.as_slice() else {
                return Err(problem("latents have not four axes"));
            };
            if flip != latents || labels != [n] || shape.is_some_and(|s| s != [c, h, w]) {
                return Err(problem("the shards do not agree in their shapes"));
            }
            shape = Some([c, h, w]);
            rows.push(n);
            if let Some(identity) = shard.metadata.get(IDENTITY) {
                *found.entry(identity).or_default() += n;
            }
        }
        let shape = shape.ok_or_else(|| problem("there is no *.safetensors file in it"))?;
        for (identity, n) in found {
            // Shards of other tools and of earlier versions do not tell.
            let identity: Option<Value> = serde_json::from_str(identity).ok();
            let images = identity.and_then(|identity| identity.get("images")?.as_u64());
            if let Some(images) = images.filter(|images| *images > n as u64) {
                return Err(problem(&format!(
                    "it has latents of {n} of the {images} images; run `tintype encode` to its end"
                )));
            }
        }
        Ok(Self { shards, rows, shape })
    }

    /// Number of latents.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the dataset is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One latent, `[C, H, W]`, or that of the flipped image.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn latent(&self, index: usize, flipped: bool) -> Vec<f32> {
        let name = if flipped { "latents_flip" } else { "latents" };
        let size: usize = self.shape.iter().product();
        let Some((shard, row)) = self.rows.place(index) else {
            panic!("latent {index} of {}", self.len());
        };
        self.shards[shard].tensors[name].row_f32(row, size)
    }

    /// What an item is called in a message: its shard and its row.
    pub fn name(&self, index: usize) -> String {
        match self.rows.place(index) {
            Some((shard, row)) => format!("latent {row} of {}", self.shards[shard].file),
            None => format!("latent {index}"),
        }
    }

    /// All labels in order.
    pub fn labels(&self) -> Vec<i64> {
        self.shards.iter().flat_map(|s| s.tensors["labels"].to_i64()).collect()
    }

    /// All latents in order, flipped ones where asked for, `[len, C, H, W]`.
    pub fn latents(&self, flipped: bool) -> Vec<f32> {
        let name = if flipped { "latents_flip" } else { "latents" };
        self.shards.iter().flat_map(|s| s.tensors[name].to_f32()).collect()
    }

    /// Per-channel mean and **unbiased** standard deviation of the unflipped latents: of all, or of
    /// 10,000 evenly spaced ones where there are more.
    ///
    /// # Errors
    ///
    /// If a channel is constant.
    pub fn statistics(&self) -> Result<LatentStats, ConstantChannel> {
        of_channels(&self.running(self.shape[0], &[false]))
    }

    /// Mean and **population** variance of each position of latents and of those of the flipped images, which weigh the
    /// same, `[C, h, w]`: RAE's statistics, whose images are flipped at random. Of all, or of 10,000 evenly spaced images
    /// where there are more.
    pub fn moments_of_positions(&self) -> [Vec<f32>; 2] {
        let positions = self.running(self.shape.iter().product(), &[false, true]);
        let all = |value: fn(&Running) -> f32| positions.iter().map(value).collect();
        [all(Running::mean), all(Running::population_variance)]
    }

    /// What `groups` equal parts of a latent hold, each read once.
    fn running(&self, groups: usize, flips: &[bool]) -> Vec<Running> {
        let (count, size) = (self.len().min(10_000), self.shape.iter().product::<usize>());
        let each = (size / groups.max(1)).max(1);
        let mut all = vec![Running::default(); groups];
        // One latent at a time: those of a RAE have 200,000 values.
        for i in 0..count {
            for &flipped in flips {
                let latent = self.latent(i * self.len() / count, flipped);
                for (group, values) in all.iter_mut().zip(latent.chunks_exact(each)) {
                    values.iter().for_each(|&value| group.add(value));
                }
            }
        }
        all
    }

    /// `(z − mean)/std · multiplier` of every latent.
    ///
    /// # Panics
    ///
    /// If `stats` are not those of such latents.
    pub fn normalised(&self, stats: &LatentStats, multiplier: f32, flipped: bool) -> Vec<f32> {
        let mut all = self.latents(flipped);
        for latent in all.chunks_exact_mut(self.shape.iter().product::<usize>().max(1)) {
            stats.normalize_values(latent);
        }
        all.into_iter().map(|v| v * multiplier).collect()
    }
}

/// The name of a file with its numbers filled up with zeros: shard 1000 comes behind shard 999, and not behind shard 100.
fn filled(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (mut filled, mut rest) = (String::new(), &*name);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (text, numbered) = rest.split_at(start);
        let end = numbered.find(|c: char| !c.is_ascii_digit()).unwrap_or(numbered.len());
        let (number, behind) = numbered.split_at(end);
        filled.push_str(text);
        filled.push_str(&format!("{number:0>20}"));
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tintype::weights::{Dtype, TensorView, write_safetensors};

    use super::*;

    /// A shard of latents `[n, C, 1, w]` and those of the flipped images.
    fn write(
        folder: &TempDir,
        name: &str,
        [c, w]: [usize; 2],
        latents: [&[f32]; 2],
        labels: &[i64],
    ) {
        let [latents, flipped] = latents.map(|values| {
            TensorView::from_f32(vec![labels.len(), c, 1, w], values).expect("as many values")
        });
        let bytes = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let labels = TensorView::from_bytes(Dtype::I64, vec![labels.len()], bytes);
        let tensors = BTreeMap::from([
            ("latents".to_string(), latents),
            ("latents_flip".to_string(), flipped),
            ("labels".to_string(), labels.expect("as many labels")),
        ]);
        let bytes = write_safetensors(&tensors, &BTreeMap::new()).expect("it fits");
        std::fs::write(folder.path().join(name), bytes).expect("it is written");
    }

    #[test]
    fn shards_are_in_the_order_of_their_numbers() {
        let folder = TempDir::new().expect("a folder");
        for (rank, shard) in [(1, 0), (0, 1000), (0, 999), (100, 3), (0, 100)] {
            let name = format!("latents_rank{rank:02}_shard{shard:03}.safetensors");
            write(&folder, &name, [1, 1], [&[0.0], &[0.0]], &[10_000 * rank + shard]);
        }
        let shards = LatentShards::open(folder.path()).expect("shards");
        assert_eq!(shards.labels(), [100, 999, 1000, 10_000, 1_000_003]);
    }

    #[test]
    fn statistics_of_positions_are_over_flips_too() {
        let folder = TempDir::new().expect("a folder");
        write(&folder, "0.safetensors", [1, 2], [&[0.0, 4.0], &[4.0, 2.0]], &[0]);
        write(&folder, "1.safetensors", [1, 2], [&[2.0, 6.0], &[6.0, 0.0]], &[0]);
        let shards = LatentShards::open(folder.path()).expect("shards");
        // Of 0, 4, 2 and 6, and of 4, 2, 6 and 0.
        assert_eq!(shards.moments_of_positions(), [vec![3.0; 2], vec![5.0; 2]]);
        let stats = shards.statistics().expect("it varies");
        assert_eq!((stats.mean, stats.shape), (vec![3.0], [1, 1, 1]));
        assert!((stats.std[0].powi(2) - 20.0 / 3.0).abs() < 1e-5, "{}", stats.std[0]);
    }

    #[test]
    fn a_constant_channel_has_no_statistics_and_a_constant_position_has() {
        let folder = TempDir::new().expect("a folder");
        let values: &[f32] = &[0.0, 1.0, 0.5, 0.5, 0.0, 1.0, 0.5, 0.5];
        write(&folder, "0.safetensors", [2, 2], [values; 2], &[0, 1]);
        let shards = LatentShards::open(folder.path()).expect("shards");
        let error = shards.statistics().expect_err("channel 1 is constant").to_string();
        assert!(error.contains("channel 1") && error.contains("0.5 everywhere"), "{error}");
        // Readers add to the variance.
        assert_eq!(shards.moments_of_positions(), [vec![0.0, 1.0, 0.5, 0.5], vec![0.0; 4]]);
    }

    #[test]
    fn a_part_of_a_store_is_refused() {
        let [made, folder] = [(); 2].map(|()| TempDir::new().expect("a folder"));
        write(&made, "0.safetensors", [1, 1], [&[0.0, 1.0], &[1.0, 0.0]], &[0, 1]);
        let tensors = open(&made.path().join("0.safetensors")).expect("a shard").tensors;
        let shard = |number: usize| {
            let identity = r#"{"images":4,"side":16}"#.to_string();
            let metadata = BTreeMap::from([(IDENTITY.to_string(), identity)]);
            let bytes = write_safetensors(&tensors, &metadata).expect("it fits");
            let name = format!("{number}.safetensors");
            std::fs::write(folder.path().join(name), bytes).expect("it is written");
        };
        shard(0);
        let error = LatentShards::open(folder.path()).expect_err("half of it").to_string();
        assert!(error.contains("latents of 2 of the 4 images"), "{error}");
        shard(1);
        assert_eq!(LatentShards::open(folder.path()).expect("all of it").len(), 4);
    }
}
