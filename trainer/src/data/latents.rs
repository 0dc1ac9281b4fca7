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
    /// Opens every shard of a folder, in the order of their names.
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
        files.sort();
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
        const ENOUGH: usize = 10_000;
        let [c, h, w] = self.shape;
        let count = self.len().min(ENOUGH);
        let values: Vec<f32> =
            (0..count).flat_map(|i| self.latent(i * self.len() / count, false)).collect();
        let n = (count * h * w) as f64;
        let channel =
            |k: usize| values.chunks_exact(h * w).skip(k).step_by(c).flatten().map(|&v| v as f64);
        let mean: Vec<f64> = (0..c).map(|k| channel(k).sum::<f64>() / n).collect();
        let deviation = |k: usize| {
            let squares: f64 = channel(k).map(|v| (v - mean[k]).powi(2)).sum();
            (squares / (n - 1.0)).sqrt() as f32
        };
        LatentStats {
            std: (0..c).map(deviation).collect(),
            mean: mean.iter().map(|&m| m as f32).collect(),
        }
    }

    /// `(z − mean)/std · multiplier` of every latent.
    ///
    /// # Panics
    ///
    /// If `stats` has fewer channels than the latents.
    pub fn normalised(&self, stats: &LatentStats, multiplier: f32, flipped: bool) -> Vec<f32> {
        let [c, h, w] = self.shape;
        let channel = |i: usize| i / (h * w) % c;
        let normal = |(i, v): (usize, f32)| {
            (v - stats.mean[channel(i)]) / stats.std[channel(i)] * multiplier
        };
        self.latents(flipped).into_iter().enumerate().map(normal).collect()
    }
}
