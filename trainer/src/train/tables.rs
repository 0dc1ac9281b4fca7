//! The tables of a training configuration that are no network, loss or optimizer.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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
    /// Resume with other data or settings than the run recorded.
    #[serde(default)]
    pub allow_changes: bool,
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

/// Data of DiT-DH: cached latents, or images that are encoded as the network trains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "DitDhTable", into = "DitDhTable")]
pub enum DitDhData {
    /// The table has `latents`.
    Cached(LatentData),
    /// It has `images` and their `encoder`.
    Encoded(EncodedData),
}

/// Images, and what makes latents of them in training.
#[derive(Clone, Debug)]
pub struct EncodedData {
    /// The store.
    pub images: PathBuf,
    /// RAE's encoder, a DINOv2 with registers: `facebook/dinov2-with-registers-base` or the authors' file.
    pub encoder: PathBuf,
    /// Side that images are resized to for the encoder; default: 14 pixels for each of the network's tokens, 224 of 256.
    pub encoder_input_size: Option<usize>,
    /// Statistics of the latents: RAE's `stat.pt`, or those that `tintype encode` writes.
    pub stats: PathBuf,
}

impl DitDhData {
    /// The file of the statistics, where one is named.
    pub fn stats(&self) -> Option<&Path> {
        match self {
            Self::Cached(data) => data.stats.as_deref(),
            Self::Encoded(data) => Some(&data.stats),
        }
    }
}

/// The keys of both kinds of DiT-DH's data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct DitDhTable {
    latents: Option<PathBuf>,
    stats: Option<PathBuf>,
    images: Option<PathBuf>,
    encoder: Option<PathBuf>,
    encoder_input_size: Option<usize>,
}

impl TryFrom<DitDhTable> for DitDhData {
    type Error = &'static str;

    fn try_from(table: DitDhTable) -> Result<Self, Self::Error> {
        let DitDhTable { latents, stats, images, encoder, encoder_input_size } = table;
        match (latents, encoder) {
            (Some(_), Some(_)) => Err(
                "data.encoder has no effect beside data.latents, which are encoded already; remove one of them",
            ),
            (None, None) => Err(
                "there is neither data.latents nor data.encoder, which makes latents of data.images",
            ),
            (Some(_), None) if encoder_input_size.is_some() => {
                Err("data.encoder_input_size has no effect without data.encoder")
            }
            (Some(latents), None) => {
                Ok(Self::Cached(LatentData { latents, stats, images, teacher: None }))
            }
            (None, Some(encoder)) => {
                let images = images.ok_or(
                    "data.encoder needs images; set data.images to the store that it encodes",
                )?;
                let stats = stats.ok_or(
                    "data.encoder needs statistics of its latents; set data.stats to RAE's stat.pt, or to the latents_stats.pt that `tintype encode` writes",
                )?;
                Ok(Self::Encoded(EncodedData { images, encoder, encoder_input_size, stats }))
            }
        }
    }
}

impl From<DitDhData> for DitDhTable {
    fn from(data: DitDhData) -> Self {
        match data {
            DitDhData::Cached(LatentData { latents, stats, images, teacher: _ }) => {
                Self { latents: Some(latents), stats, images, ..Self::default() }
            }
            DitDhData::Encoded(EncodedData { images, encoder, encoder_input_size, stats }) => {
                Self {
                    latents: None,
                    stats: Some(stats),
                    images: Some(images),
                    encoder: Some(encoder),
                    encoder_input_size,
                }
            }
        }
    }
}

/// Data of pixel-space diffusion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageData {
    /// The store.
    pub images: PathBuf,
}

/// Data and frozen loss networks of pMF.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PmfData {
    /// The store.
    pub images: PathBuf,
    /// VGG16 of torchvision, `vgg16-397923af.pth`; needed by LPIPS.
    #[serde(default)]
    pub vgg: Option<PathBuf>,
    /// LPIPS' linear layers, `vgg.pth`; no such loss without both.
    #[serde(default)]
    pub lpips: Option<PathBuf>,
    /// ConvNeXt V2, `facebook/convnextv2-base-22k-224` or the authors' file; no such loss without it.
    #[serde(default)]
    pub convnext: Option<PathBuf>,
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

/// Data, the frozen encoder and the frozen loss networks of RAE's decoder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RaeDecoderData {
    /// The store.
    pub images: PathBuf,
    /// The encoder, a DINOv2 with registers: `facebook/dinov2-with-registers-base` or the authors' file.
    pub encoder: PathBuf,
    /// Side that images are resized to for the encoder; default: 14 pixels for each of the decoder's tokens, 224 of 256.
    #[serde(default)]
    pub encoder_input_size: Option<usize>,
    /// VGG16 of torchvision, `vgg16-397923af.pth`; needed by LPIPS.
    #[serde(default)]
    pub vgg: Option<PathBuf>,
    /// LPIPS' linear layers, `vgg.pth`; no perceptual loss without both.
    #[serde(default)]
    pub lpips: Option<PathBuf>,
}

/// Initialization of the weights.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Init {
    /// A run, one of its checkpoints, or a published checkpoint; default: random initialization.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// A table of names for its tensors, where they have others than here.
    #[serde(default)]
    pub names: Option<PathBuf>,
    /// Beginnings of the names of parameters that are not taken from there, but initialized.
    #[serde(default)]
    pub reinit: Vec<String>,
}
