//! The shape of an HDiT, as k-diffusion's JSON files give it, and what its authors sample with.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::diffusion::guidance::Guidance;
use crate::model::tensors::{metadata, needs_configuration};
use crate::model::{
    Architecture, DiffusionModel, Family, InvalidConfig, LatentSpace, MAX_CLASSES, MAX_DEPTH,
    MAX_PATCH, MAX_SIDE, MAX_WIDTH, Process, Untrained, bounded, ensure, patch_values,
};
use crate::settings::{Sampler, Settings};
use crate::weights::{Weights, WeightsError};

/// The attention of one level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum LevelAttention {
    /// Every token attends to every token.
    Global {
        /// Width of a head, a multiple of 8 that divides the level's width.
        #[serde(default = "default_d_head")]
        d_head: usize,
    },
    /// K×K neighborhoods with NATTEN's border handling.
    Neighborhood {
        /// Width of a head, a multiple of 8 that divides the level's width.
        #[serde(default = "default_d_head")]
        d_head: usize,
        /// Odd side K of the neighborhood in tokens; no larger than the level's grid.
        #[serde(default = "default_kernel")]
        kernel_size: usize,
    },
    /// Swin's windows, every other layer shifted by half a window.
    ShiftedWindow {
        /// Width of a head, a multiple of 8 that divides the level's width.
        #[serde(default = "default_d_head")]
        d_head: usize,
        /// Side of a window in tokens; divides both sides of the level's grid.
        window_size: usize,
    },
    /// Feed-forward only.
    None,
}

fn default_d_head() -> usize {
    64
}
fn default_kernel() -> usize {
    7
}

/// A value for every level, or one for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    All(f64),
    /// Outermost first.
    Each(Vec<f64>),
}

/// The `model` section of a k-diffusion configuration; levels are listed outermost first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HDiTConfig {
    /// Image channels.
    pub input_channels: usize,
    /// Image height and width in pixels.
    pub input_size: [usize; 2],
    /// Patch height and width in pixels.
    pub patch_size: [usize; 2],
    /// Layers of each level; every level but the innermost has them twice, down and up.
    pub depths: Vec<usize>,
    /// Width of each level.
    pub widths: Vec<usize>,
    /// Feed-forward width of each level; three times the width if absent.
    #[serde(default)]
    pub d_ffs: Option<Vec<usize>>,
    /// Attention of each level; neighborhoods of 7 and a global innermost level if absent.
    #[serde(default)]
    pub self_attns: Option<Vec<LevelAttention>>,
    /// Width of the mapping network, even.
    #[serde(default = "default_mapping_width")]
    pub mapping_width: usize,
    /// Blocks of the mapping network.
    #[serde(default = "default_mapping_depth")]
    pub mapping_depth: usize,
    /// Feed-forward width of the mapping network; three times its width if absent.
    #[serde(default)]
    pub mapping_d_ff: Option<usize>,
    /// Length of an extra condition vector; 0 for none.
    #[serde(default)]
    pub mapping_cond_dim: usize,
    /// Dropout of the mapping network in training, a probability.
    #[serde(default)]
    pub mapping_dropout_rate: f64,
    /// Dropout of the levels in training, a probability.
    #[serde(default = "default_dropout")]
    pub dropout_rate: PerLevel,
    /// Standard deviation of the data in −1…1, positive.
    #[serde(default = "default_sigma_data")]
    pub sigma_data: f64,
    /// Smallest noise level σ of sampling, positive.
    #[serde(default = "default_sigma_min")]
    pub sigma_min: f64,
    /// Largest noise level σ of sampling, above `sigma_min`.
    #[serde(default = "default_sigma_max")]
    pub sigma_max: f64,
    /// Classes, 0 for none; lives in the `dataset` section of the file. The null class is one more.
    #[serde(default)]
    pub num_classes: usize,
    /// Class dropout in training, a probability, of the `dataset` section. The null class has a row always,
    /// which is trained where this is positive.
    #[serde(default = "default_class_dropout", skip_serializing_if = "is_default_class_dropout")]
    pub cond_dropout_rate: f64,
}

fn default_class_dropout() -> f64 {
    0.1
}
/// Left out, so that configurations compare with those of earlier versions.
fn is_default_class_dropout(rate: &f64) -> bool {
    *rate == default_class_dropout()
}

fn default_mapping_width() -> usize {
    256
}
fn default_mapping_depth() -> usize {
    2
}
fn default_dropout() -> PerLevel {
    PerLevel::All(0.0)
}
fn default_sigma_data() -> f64 {
    1.0
}
fn default_sigma_min() -> f64 {
    0.01
}
fn default_sigma_max() -> f64 {
    80.0
}

/// A whole number, also as a float or a text.
fn whole(value: &serde_json::Value) -> Option<usize> {
    if let Some(number) = value.as_u64() {
        return usize::try_from(number).ok();
    }
    let number: f64 = match value.as_str() {
        Some(text) => text.trim().parse().ok()?,
        None => value.as_f64()?,
    };
    let is_whole = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
    is_whole.then_some(number as usize)
}

impl HDiTConfig {
    /// Reads a k-diffusion JSON file (`model` and `dataset` sections).
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the text is no such file, its model is of another type, or its
    /// numbers describe no network.
    pub fn from_json(text: &str) -> Result<Self, InvalidConfig> {
        let invalid = |e: &dyn std::fmt::Display| InvalidConfig(format!("JSON: {e}"));
        let file: serde_json::Value = serde_json::from_str(text).map_err(|e| invalid(&e))?;
        let model = file.get("model").ok_or_else(|| invalid(&"there is no \"model\" section"))?;
        if let Some(kind) = model.get("type").filter(|kind| *kind != "image_transformer_v2") {
            return Err(InvalidConfig(format!(
                "model type {kind} is not supported, only \"image_transformer_v2\""
            )));
        }
        let mut config: Self = serde_json::from_value(model.clone()).map_err(|e| invalid(&e))?;
        let classes = file.pointer("/dataset/num_classes").filter(|value| !value.is_null());
        if let Some(classes) = classes {
            config.num_classes = whole(classes).ok_or_else(|| {
                InvalidConfig(format!("num_classes {classes} is not a number of classes"))
            })?;
        }
        if let Some(rate) = file.pointer("/dataset/cond_dropout_rate").and_then(|v| v.as_f64()) {
            config.cond_dropout_rate = rate;
        }
        config.validate()?;
        Ok(config)
    }

    /// Feed-forward width of a level.
    ///
    /// # Panics
    ///
    /// If there is no such level.
    pub fn d_ff(&self, level: usize) -> usize {
        self.d_ffs.as_ref().map_or(3 * self.widths[level], |d_ffs| d_ffs[level])
    }

    /// Dropout of a level in training.
    pub(super) fn dropout(&self, level: usize) -> f64 {
        match &self.dropout_rate {
            PerLevel::All(rate) => *rate,
            PerLevel::Each(rates) => rates[level],
        }
    }

    /// Attention of a level.
    ///
    /// # Panics
    ///
    /// If `self_attns` is given and lists no such level.
    pub fn attention(&self, level: usize) -> LevelAttention {
        match &self.self_attns {
            Some(levels) => levels[level],
            None if level + 1 == self.depths.len() => LevelAttention::Global { d_head: 64 },
            None => LevelAttention::Neighborhood { d_head: 64, kernel_size: 7 },
        }
    }

    /// Checks that the numbers describe a network.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let levels = self.depths.len();
        ensure!(levels > 0, "depths is empty");
        ensure!(levels <= 16, "depths lists {levels} levels, above 16");
        for (name, depth) in [
            ("depths list", self.depths.iter().copied().fold(0, usize::saturating_add)),
            ("mapping_depth is", self.mapping_depth),
        ] {
            ensure!(depth <= MAX_DEPTH, "{name} {depth} blocks, above {MAX_DEPTH}");
        }
        ensure!(
            (0.0..=1.0).contains(&self.cond_dropout_rate),
            "cond_dropout_rate {} is not in 0…1",
            self.cond_dropout_rate
        );
        let listed = |what: &str, n: Option<usize>| match n {
            Some(n) if n != levels => {
                Err(InvalidConfig(format!("{what} lists {n} levels, depths {levels}")))
            }
            _ => Ok(()),
        };
        listed("widths", Some(self.widths.len()))?;
        listed("d_ffs", self.d_ffs.as_ref().map(Vec::len))?;
        listed("self_attns", self.self_attns.as_ref().map(Vec::len))?;
        if let PerLevel::Each(rates) = &self.dropout_rate {
            listed("dropout_rate", Some(rates.len()))?;
        }
        ensure!(self.input_channels > 0, "input_channels must be positive");
        let largest = |sizes: &[usize]| sizes.iter().copied().max().unwrap_or(0);
        bounded([
            ("input_channels", self.input_channels, MAX_WIDTH),
            ("input_size", largest(&self.input_size), MAX_SIDE),
            ("widths:", largest(&self.widths), MAX_WIDTH),
            ("d_ffs:", self.d_ffs.as_deref().map_or(0, largest), MAX_WIDTH),
            ("mapping_width", self.mapping_width, MAX_WIDTH),
            ("mapping_d_ff", self.mapping_d_ff.unwrap_or(0), MAX_WIDTH),
            ("mapping_cond_dim", self.mapping_cond_dim, MAX_WIDTH),
            ("num_classes", self.num_classes, MAX_CLASSES),
            (
                "patch_size · input_channels",
                patch_values(self.patch_size, self.input_channels),
                MAX_PATCH,
            ),
        ])?;
        let (mapping, d_ff) = (self.mapping_width, self.mapping_d_ff);
        ensure!(
            mapping > 0 && mapping.is_multiple_of(2) && d_ff != Some(0),
            "mapping_width must be even, and its widths positive"
        );
        ensure!(self.sigma_data > 0.0, "sigma_data must be positive");
        ensure!(
            0.0 < self.sigma_min && self.sigma_min < self.sigma_max,
            "0 < sigma_min < sigma_max does not hold"
        );
        for (axis, name) in [(0, "height"), (1, "width")] {
            let cell = self.patch_size[axis].saturating_mul(1 << (levels - 1));
            ensure!(cell > 0, "patch_size must be positive");
            ensure!(
                self.input_size[axis].is_multiple_of(cell) && self.input_size[axis] > 0,
                "the image {name} {} is not divisible by patch·2^(levels−1) = {cell}",
                self.input_size[axis]
            );
        }
        for level in 0..levels {
            ensure!(
                self.widths[level] > 0 && self.d_ff(level) > 0,
                "level {level}: widths must be positive"
            );
            let grid = [0, 1].map(|axis| (self.input_size[axis] / self.patch_size[axis]) >> level);
            let d_head = match self.attention(level) {
                LevelAttention::Global { d_head } => d_head,
                LevelAttention::Neighborhood { d_head, kernel_size } => {
                    ensure!(
                        kernel_size % 2 == 1 && grid[0].min(grid[1]) >= kernel_size,
                        "level {level}: kernel_size {kernel_size} must be odd and fit {grid:?}"
                    );
                    d_head
                }
                LevelAttention::ShiftedWindow { d_head, window_size } => {
                    ensure!(
                        window_size > 0 && grid.iter().all(|n| n.is_multiple_of(window_size)),
                        "level {level}: windows of {window_size} do not tile {grid:?}"
                    );
                    d_head
                }
                LevelAttention::None => continue,
            };
            ensure!(
                d_head > 0 && d_head.is_multiple_of(8) && self.widths[level].is_multiple_of(d_head),
                "level {level}: d_head {d_head} must be a multiple of 8 that divides the width {}",
                self.widths[level]
            );
        }
        Ok(())
    }
}

/// HDiT in checkpoints.
pub static FAMILY: Family = Family { name: "HDiT", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    if !weights.contains("patch_in.proj.weight") {
        return Ok(None);
    }
    let reason = "an HDiT needs its JSON configuration";
    let json = metadata(weights).ok_or_else(|| needs_configuration(weights, reason))?;
    let mut config = HDiTConfig::from_json(json)?;
    // Configurations leave out the classes of a data set that k-diffusion asks for them.
    let table = weights.tensors.get("class_emb.weight").and_then(|table| table.shape.first());
    if let (0, Some(rows)) = (config.num_classes, table) {
        config.num_classes = rows.saturating_sub(1);
        config.validate()?;
    }
    Ok(Some(config.into()))
}

impl DiffusionModel for HDiTConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn state_shape(&self) -> [usize; 3] {
        [self.input_channels, self.input_size[0], self.input_size[1]]
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        None
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn null_class(&self) -> Option<usize> {
        (self.num_classes > 0 && self.cond_dropout_rate > 0.0).then_some(self.num_classes)
    }

    fn process(&self) -> Process {
        Process::Denoiser { sigma_min: self.sigma_min, sigma_max: self.sigma_max }
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::KARRAS
    }

    fn default_settings(&self) -> Settings {
        let scale = if self.null_class().is_some() { 1.3 } else { 1.0 };
        let guidance = Guidance { high: f64::MAX, ..Guidance::new(scale) };
        Settings::new(Sampler::DpmPp3mSde, 50, guidance)
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::TensorView;

    #[test]
    fn k_diffusion_files_are_read_with_their_defaults() {
        let text = r#"{
            "model": {
                "type": "image_transformer_v2", "input_channels": 3, "input_size": [256, 256],
                "patch_size": [4, 4], "depths": [2, 2, 4], "widths": [128, 256, 512],
                "loss_config": "karras", "loss_weighting": "soft-min-snr",
                "dropout_rate": [0.0, 0.0, 0.1], "mapping_dropout_rate": 0.0,
                "augment_prob": 0.0, "sigma_data": 0.5, "sigma_min": 1e-2, "sigma_max": 160,
                "sigma_sample_density": {"type": "cosine-interpolated"}
            },
            "dataset": {"type": "huggingface", "location": "nelorth/oxford-flowers"},
            "optimizer": {"type": "adamw", "lr": 5e-4}
        }"#;
        let config = HDiTConfig::from_json(text).expect("it parses");
        let preset = crate::preset::find("hdit-flowers-256").expect("a preset").architecture;
        assert_eq!(Architecture::from(config), preset);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let flowers = crate::preset::find("hdit-flowers-256").expect("a preset").architecture;
        let flowers: &HDiTConfig = flowers.downcast().expect("an HDiT");
        let message = |change: fn(&mut HDiTConfig)| {
            let mut config = flowers.clone();
            change(&mut config);
            config.validate().expect_err("it does not fit").0
        };
        assert!(message(|c| c.input_size = [250, 256]).contains("height 250"));
        assert!(message(|c| c.widths = vec![128]).contains("widths lists 1"));
        assert!(message(|c| c.widths[1] = 250).contains("level 1"));
        assert!(message(|c| c.sigma_min = 1e3).contains("sigma_min"));
        assert!(message(|c| c.widths[1] = 0).contains("level 1: widths"));
        assert!(message(|c| c.d_ffs = Some(vec![0; 3])).contains("level 0: widths"));
        assert!(message(|c| c.input_channels = 0).contains("input_channels"));
        assert!(message(|c| c.mapping_width = 0).contains("mapping_width"));
        assert!(message(|c| c.mapping_d_ff = Some(0)).contains("mapping_width"));
        assert!(message(|c| c.input_size = [1 << 40; 2]).contains("input_size 1099511627776 is"));
        assert!(message(|c| c.widths[2] = usize::MAX).contains("widths:"));
        assert!(message(|c| c.depths = vec![2000, 2000, 97]).contains("depths list 4097 blocks"));
        assert!(message(|c| c.d_ffs = Some(vec![1, 1, usize::MAX])).contains("d_ffs:"));
        assert!(message(|c| c.input_channels = usize::MAX).contains("input_channels"));
        assert!(message(|c| c.mapping_width = 1 << 40).contains("mapping_width 1099511627776"));
        assert!(message(|c| c.mapping_d_ff = Some(usize::MAX)).contains("mapping_d_ff"));
        assert!(message(|c| c.mapping_cond_dim = usize::MAX).contains("mapping_cond_dim"));
        assert!(message(|c| c.num_classes = usize::MAX).contains("num_classes"));
        let patch = message(|c| (c.input_size, c.patch_size) = ([4096; 2], [1024; 2]));
        assert!(patch.contains("patch_size · input_channels 3145728 is above"), "{patch}");
        assert!(HDiTConfig::from_json("{}").expect_err("empty").0.contains("model"));
        let other = r#"{"model": {"type": "image_v1"}}"#;
        assert!(HDiTConfig::from_json(other).expect_err("other").0.contains("image_v1"));
    }

    #[test]
    fn a_table_tells_as_many_classes_as_a_network_has() {
        let flowers = crate::preset::find("hdit-flowers-256").expect("a preset").architecture;
        let config = serde_json::json!({ "model": flowers.config() }).to_string();
        let recognized = |rows: usize| {
            let empty = TensorView::from_f32(vec![rows, 0], &[]).expect("no values");
            let names = ["class_emb.weight", "patch_in.proj.weight"];
            let tensors = names.map(|name| (name.to_string(), empty.clone())).into();
            let metadata = [("config".to_string(), config.clone())].into();
            recognize(&Weights { tensors, metadata, ..Weights::default() })
        };
        let few = recognized(11).expect("valid").expect("an HDiT");
        assert_eq!(few.num_classes(), 10);
        let error = recognized(usize::MAX).expect_err("absurd").to_string();
        assert!(error.contains("num_classes"), "{error}");
    }
}
