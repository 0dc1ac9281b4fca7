//! LightningDiT's latent shards (`checkpoints` §2).

use std::path::{Path, PathBuf};

use super::source::filter::in_hidden;
use tintype::generate::LatentStats;
use tintype::weights::{Weights, WeightsError, open};

/// A folder of `*.safetensors` shards with `latents`, `latents_flip` and `labels`.
#[derive(Debug)]
pub struct LatentShards {
    shards: Vec<Weights>,
    rows: Vec<usize>,
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
    ///   or the shapes of two shards differ.
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
        let mut rows = Vec::new();
        let mut shape = None;
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
        }
        let shape = shape.ok_or_else(|| problem("there is no *.safetensors file in it"))?;
        Ok(Self { shards, rows, shape })
    }

    /// Number of latents.
    pub fn len(&self) -> usize {
        self.rows.iter().sum()
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
        let mut first = index;
        for (shard, &rows) in self.shards.iter().zip(&self.rows) {
            if first < rows {
                return shard.tensors[name].row_f32(first, size);
            }
            first -= rows;
        }
        panic!("latent {index} of {}", self.len())
    }

    /// What an item is called in a message: its shard and its row.
    pub fn name(&self, index: usize) -> String {
        let mut row = index;
        for (shard, &rows) in self.shards.iter().zip(&self.rows) {
            if row < rows {
                return format!("latent {row} of {}", shard.file);
            }
            row -= rows;
        }
        format!("latent {index}")
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
    pub fn statistics(&self) -> LatentStats {
        let [c, h, w] = self.shape;
        let [mean, squares] = self.moments(c);
        let n = (self.counted() * h * w) as f64;
        let deviation = |squares: f64| (squares / (n - 1.0)).sqrt() as f32;
        LatentStats::of_channels(single(mean), squares.into_iter().map(deviation).collect())
    }

    /// Mean and **population** variance of each position of the unflipped latents, `[C, h, w]`, as RAE's statistics:
    /// of all, or of 10,000 evenly spaced ones where there are more.
    pub fn moments_of_positions(&self) -> [Vec<f32>; 2] {
        let n = self.counted() as f64;
        let [mean, squares] = self.moments(self.shape.iter().product());
        [single(mean), squares.into_iter().map(|squares| (squares / n) as f32).collect()]
    }

    /// How many latents statistics are computed of.
    fn counted(&self) -> usize {
        self.len().min(10_000)
    }

    /// Means, and sums of squared differences from them, of `groups` equal parts of a latent.
    fn moments(&self, groups: usize) -> [Vec<f64>; 2] {
        let (count, size) = (self.counted(), self.shape.iter().product::<usize>());
        let each = size / groups.max(1);
        // One latent at a time: those of a RAE have 200,000 values.
        let add = |sums: &mut [f64], value: &dyn Fn(usize, f64) -> f64| {
            for i in 0..count {
                let latent = self.latent(i * self.len() / count, false);
                for (at, v) in latent.into_iter().enumerate() {
                    sums[at / each] += value(at / each, v as f64);
                }
            }
        };
        let mut mean = vec![0.0f64; groups];
        add(&mut mean, &|_, v| v);
        let n = (count * each) as f64;
        mean.iter_mut().for_each(|sum| *sum /= n);
        let mut squares = vec![0.0f64; groups];
        add(&mut squares, &|group, v| (v - mean[group]).powi(2));
        [mean, squares]
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

fn single(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|v| v as f32).collect()
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
    use std::collections::BTreeMap;

    use tempfile::TempDir;
    use tintype::weights::{Dtype, TensorView, write_safetensors};

    use super::*;

    #[test]
    fn shards_are_in_the_order_of_their_numbers() {
        let folder = TempDir::new().expect("a folder");
        for (rank, shard) in [(1, 0), (0, 1000), (0, 999), (100, 3), (0, 100)] {
            let latents = || TensorView::from_f32(vec![1, 1, 1, 1], &[0.0]).expect("one value");
            let label = i64::from(10_000 * rank + shard).to_le_bytes().to_vec();
            let label = TensorView::from_bytes(Dtype::I64, vec![1], label).expect("one value");
            let tensors = BTreeMap::from([
                ("latents".to_string(), latents()),
                ("latents_flip".to_string(), latents()),
                ("labels".to_string(), label),
            ]);
            let bytes = write_safetensors(&tensors, &BTreeMap::new()).expect("it fits");
            let name = format!("latents_rank{rank:02}_shard{shard:03}.safetensors");
            std::fs::write(folder.path().join(name), bytes).expect("it is written");
        }
        let shards = LatentShards::open(folder.path()).expect("shards");
        assert_eq!(shards.labels(), [100, 999, 1000, 10_000, 1_000_003]);
    }
}
