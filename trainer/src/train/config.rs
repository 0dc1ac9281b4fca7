//! The training configuration.
//!
//! An unknown key in any table is an error.

use std::path::{Path, PathBuf};

use super::recipe::Trained;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tintype::model::hdit::HDiTConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::vavae::VaeConfig;

use super::adamw::AdamWConfig;
use super::ema::EmaConfig;
use super::hdit::HDiTLoss;
use super::hidit::HiDiTLoss;
use super::lightningdit::LightningDiTLoss;
use super::preview::PreviewConfig;
use super::vae::VaeLoss;

/// A training configuration, by recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "recipe", rename_all = "lowercase")]
pub enum Config {
    /// Hi-DiT, stage 1 or 2.
    HiDiT(Recipe<HiDiTConfig, HiDiTLoss, LatentData>),
    /// LightningDiT.
    LightningDiT(Recipe<LightningDiTConfig, LightningDiTLoss, LatentData>),
    /// HDiT.
    HDiT(Recipe<HDiTConfig, HDiTLoss, ImageData>),
    /// VA-VAE.
    Vae(Recipe<VaeConfig, VaeLoss, VaeData>),
}

/// The tables that all recipes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recipe<M, L, D> {
    /// The network: a `preset`, explicit hyperparameters, or a preset with overrides.
    pub model: M,
    /// The data.
    pub data: D,
    /// The losses.
    pub loss: L,
    /// Steps, batch, precision.
    pub run: RunConfig,
    /// AdamW.
    pub optimizer: AdamWConfig,
    /// EMA; not used by the autoencoder.
    #[serde(default)]
    pub ema: Option<EmaConfig>,
    /// Initialization of the weights.
    #[serde(default)]
    pub init: Init,
    /// Previews.
    #[serde(default)]
    pub preview: Option<PreviewConfig>,
}

/// Steps, batch size, dtype, logging and checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Global batch size.
    pub batch: usize,
    /// Gradient accumulation: micro-batches per step on each device.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Random seed.
    #[serde(default, deserialize_with = "tintype::settings::seed::deserialize")]
    pub seed: u64,
    /// Dtype of the activations: `f32`, or `bf16` with float32 master weights.
    #[serde(default)]
    pub precision: Activations,
    /// Recompute each block's activations in the backward pass (activation checkpointing).
    #[serde(default)]
    pub recompute: bool,
    /// Steps between lines of the log.
    #[serde(default = "default_log_every")]
    pub log_every: u64,
    /// Steps between checkpoints.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
    /// Number of latest checkpoints to keep.
    #[serde(default = "default_keep_last")]
    pub keep_last: usize,
    /// Also keep checkpoints at multiples of this step; 0 for none.
    #[serde(default)]
    pub keep_every: u64,
    /// Also write TensorBoard event files.
    #[serde(default)]
    pub tensorboard: bool,
    /// Class-balanced sampling.
    #[serde(default)]
    pub balance_classes: bool,
    /// The device's peak in TFLOP/s, for the model FLOP utilisation; measured if absent.
    #[serde(default)]
    pub peak_tflops: Option<f64>,
}

/// Dtype of the activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// float32
    #[default]
    F32,
    /// bfloat16
    Bf16,
}

fn one() -> usize {
    1
}
fn default_log_every() -> u64 {
    50
}
fn default_checkpoint_every() -> u64 {
    1000
}
fn default_keep_last() -> usize {
    2
}

/// Data of latent diffusion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatentData {
    /// A folder of shards or an `.h5` file of `tintype encode`.
    pub latents: PathBuf,
    /// Statistics of the latents; default: those beside the shards, else computed.
    #[serde(default)]
    pub stats: Option<PathBuf>,
    /// The image store that the latents were encoded from, for the pixel stream and the teacher.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// REPA's teacher, `dinov2_vitb14_pretrain.pth`; no alignment without it.
    #[serde(default)]
    pub teacher: Option<PathBuf>,
}

/// Data of pixel-space diffusion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageData {
    /// The store.
    pub images: PathBuf,
}

/// Data and frozen loss networks of the autoencoder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VaeData {
    /// The store.
    pub images: PathBuf,
    /// VGG16 of torchvision, `vgg16-397923af.pth`; needed by LPIPS.
    #[serde(default)]
    pub vgg: Option<PathBuf>,
    /// LPIPS' linear layers, `vgg.pth`; no perceptual loss without both.
    #[serde(default)]
    pub lpips: Option<PathBuf>,
    /// The vision foundation model, a DINOv2 ViT-L/14; no alignment without it.
    #[serde(default)]
    pub teacher: Option<PathBuf>,
}

/// Initialization of the weights.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Init {
    /// A run, one of its checkpoints, or a published checkpoint; default: random initialization.
    #[serde(default)]
    pub from: Option<PathBuf>,
}

impl Config {
    /// Reads a file; paths in it are relative to the current folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
        Self::parse(&text).with_context(|| name.to_string())
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// * The text is not TOML, or its recipe or preset is unknown.
    /// * A key is missing, of another type, or read by nothing.
    /// * A number is out of range, or does not apply to the system.
    pub fn parse(text: &str) -> Result<Self> {
        let table: toml::Value =
            toml::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.message()))?;
        let mut value: Value = serde_json::to_value(table)?;
        let Some(recipe) = value.get("recipe").and_then(Value::as_str).map(String::from) else {
            bail!("the key \"recipe\" is missing; it is hidit, lightningdit, hdit or vae");
        };
        match recipe.as_str() {
            "hidit" | "lightningdit" | "hdit" | "vae" => {}
            other => bail!("recipe = {other:?} is unknown; it is hidit, lightningdit, hdit or vae"),
        }
        if value.get("loss").is_none() {
            value["loss"] = Value::Object(Default::default());
        }
        expand_preset(&mut value, &recipe)?;
        let config: Self = parse_table(&value)?;
        config.validate()?;
        Ok(config)
    }

    /// The shared tables.
    pub fn run(&self) -> &RunConfig {
        match self {
            Self::HiDiT(r) => &r.run,
            Self::LightningDiT(r) => &r.run,
            Self::HDiT(r) => &r.run,
            Self::Vae(r) => &r.run,
        }
    }

    /// Overrides the number of steps.
    pub fn set_steps(&mut self, steps: u64) {
        let run = match self {
            Self::HiDiT(r) => &mut r.run,
            Self::LightningDiT(r) => &mut r.run,
            Self::HDiT(r) => &mut r.run,
            Self::Vae(r) => &mut r.run,
        };
        run.steps = steps;
    }

    /// Steps between previews.
    pub fn preview_every(&self) -> Option<u64> {
        let preview = match self {
            Self::HiDiT(r) => &r.preview,
            Self::LightningDiT(r) => &r.preview,
            Self::HDiT(r) => &r.preview,
            Self::Vae(r) => &r.preview,
        };
        preview.as_ref().map(|p| p.every.max(1))
    }

    fn validate(&self) -> Result<()> {
        let run = self.run();
        for (key, value) in [
            ("steps", run.steps),
            ("batch", run.batch as u64),
            ("accumulate", run.accumulate as u64),
            ("log_every", run.log_every),
            ("checkpoint_every", run.checkpoint_every),
        ] {
            if value == 0 {
                bail!("run.{key} must be at least 1");
            }
        }
        let optimizer = match self {
            Self::HiDiT(r) => &r.optimizer,
            Self::LightningDiT(r) => &r.optimizer,
            Self::HDiT(r) => &r.optimizer,
            Self::Vae(r) => &r.optimizer,
        };
        if !(optimizer.lr > 0.0 && optimizer.lr.is_finite()) {
            bail!("optimizer.lr = {} is not a positive number", optimizer.lr);
        }
        if optimizer.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
            bail!("optimizer.betas = {:?} are not in 0…1", optimizer.betas);
        }
        let ema = match self {
            Self::HiDiT(r) => r.ema,
            Self::LightningDiT(r) => r.ema,
            Self::HDiT(r) => r.ema,
            Self::Vae(r) => r.ema,
        };
        if let Some(EmaConfig::Constant { decay: d } | EmaConfig::Inverse { max_value: d, .. }) =
            ema
            && !(0.0..=1.0).contains(&d)
        {
            bail!("the EMA's decay {d} is not in 0…1");
        }
        let has_ema = match self {
            Self::HiDiT(r) => r.ema.is_some(),
            Self::LightningDiT(r) => r.ema.is_some(),
            Self::HDiT(r) => r.ema.is_some(),
            Self::Vae(r) => {
                if r.ema.is_some() {
                    bail!("the autoencoder has no EMA; remove the table [ema]");
                }
                if run.precision != Activations::F32 {
                    bail!("the autoencoder trains in float32; remove run.precision");
                }
                if run.recompute || run.accumulate > 1 {
                    bail!(
                        "the autoencoder supports neither activation recomputation nor gradient accumulation; remove run.recompute and run.accumulate"
                    );
                }
                true
            }
        };
        if !has_ema {
            bail!("the table [ema] is missing: decay = 0.9999, or power and max_value");
        }
        Ok(())
    }
}

/// Expands `model.preset`; keys of the file override the preset's.
fn expand_preset(value: &mut Value, recipe: &str) -> Result<()> {
    let Some(model) = value.get_mut("model").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let Some(name) = model.remove("preset") else { return Ok(()) };
    let name = name.as_str().context("model.preset is not a name")?.to_string();
    let preset = match (recipe, name.as_str()) {
        ("vae", "f16d32") => serde_json::to_value(VaeConfig::f16d32())?,
        ("vae", "f8d4") => serde_json::to_value(VaeConfig::f8d4())?,
        _ => {
            let preset = tintype::preset::find(&name);
            let preset = preset.with_context(|| format!("model.preset = {name:?} is unknown"))?;
            match (recipe, Trained::of(&preset.architecture)) {
                ("hidit", Some(Trained::HiDiT(_)))
                | ("lightningdit", Some(Trained::LightningDiT(_)))
                | ("hdit", Some(Trained::HDiT(_))) => preset.architecture.config(),
                _ => bail!("model.preset = {name:?} is not a {recipe} network"),
            }
        }
    };
    let Value::Object(mut merged) = preset else { bail!("a preset is a table") };
    merged.append(model);
    *model = merged;
    Ok(())
}

/// Deserializes a value and rejects unknown keys.
fn parse_table<T: Serialize + DeserializeOwned>(value: &Value) -> Result<T> {
    let parsed: T = serde_json::from_value(value.clone()).map_err(|e| {
        anyhow::anyhow!("{}", e.to_string().replace("missing field", "there is no key"))
    })?;
    // Keys that do not survive serialization were not read.
    unread(value, &serde_json::to_value(&parsed)?, "")?;
    Ok(parsed)
}

fn unread(given: &Value, read: &Value, at: &str) -> Result<()> {
    let (Some(given), Some(read)) = (given.as_object(), read.as_object()) else { return Ok(()) };
    for (key, value) in given {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match read.get(key) {
            Some(read) => unread(value, read, &path)?,
            None => {
                let near = read
                    .keys()
                    .max_by(|a, b| similarity(a, key).total_cmp(&similarity(b, key)))
                    .filter(|near| similarity(near, key) > 0.6);
                let hint = near.map_or(String::new(), |n| format!("; did you mean {n}?"));
                bail!("unknown key {path}{hint}");
            }
        }
    }
    Ok(())
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
recipe = "hidit"
[model]
preset = "hidit-xl-1-256"
depth = 2
[data]
latents = "latents"
[run]
steps = 10
batch = 4
[optimizer]
lr = 1e-4
betas = [0.9, 0.999]
[ema]
decay = 0.9999
"#;

    #[test]
    fn every_shipped_configuration_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            Config::read(&path).unwrap_or_else(|e| panic!("{e:#}"));
            count += 1;
        }
        assert!(count >= 19, "{count}");
    }

    #[test]
    fn a_preset_takes_other_numbers() {
        let Config::HiDiT(recipe) = Config::parse(SMALL).unwrap() else { panic!("hidit") };
        assert_eq!((recipe.model.sit.depth, recipe.model.sit.hidden_size), (2, 1152));
        assert_eq!(recipe.loss.stage, 1);
        assert_eq!(recipe.optimizer.eps, 1e-8);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let message = |from: &str, to: &str| {
            Config::parse(&SMALL.replace(from, to)).expect_err(to).to_string()
        };
        let m = message("batch = 4", "batch = 4\nbatch_sise = 8");
        assert!(m.contains("run.batch_sise"), "{m}");
        assert!(message("lr = 1e-4", "lr = 1e-4\nmax_grad_nrom = 1").contains("max_grad_norm"));
        assert!(message("depth = 2", "depth = 2\nwidht = 3").contains("model.widht"));
        assert!(message("[ema]", "[emma]").contains("emma"));
        assert!(message("decay = 0.9999", "decay = 0.9\npower = 2").contains("ema.power"));
        assert!(message("\"hidit\"", "\"dit\"").contains("hidit, lightningdit"));
        assert!(message("hidit-xl-1-256", "lightningdit-xl-1").contains("not a hidit"));
        assert!(message("steps = 10", "steps = 0").contains("run.steps"));
        assert!(message("latents = \"latents\"", "").contains("latents"));
        assert!(message("lr = 1e-4", "lr = -1.0").contains("optimizer.lr"));
    }
}
