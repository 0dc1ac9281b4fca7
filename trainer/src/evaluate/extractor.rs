//! Feature extractors: Inception-v3, DINOv2 and CLIP with a protocol's preprocessing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::image::Rgb;
use tintype::weights::{Weights, WeightsError, open};

use super::preprocess::{Preprocess, unit_rows};
use crate::network::clip::Clip;
use crate::network::inception::{self, Inception};
use tintype::model::dinov2::{DinoV2, Interpolation};

/// Which feature extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// FID's Inception-v3.
    Inception,
    /// DINOv2's class token.
    DinoV2,
    /// CLIP's image embedding.
    Clip,
}

impl Kind {
    /// The option for its weights and where to download them.
    pub fn wanted(self) -> String {
        match self {
            Self::Inception => format!(
                "--inception FILE ({}, from the releases of github.com/mseitzer/pytorch-fid or github.com/toshas/torch-fidelity)",
                inception::FILES
            ),
            Self::DinoV2 => "--dinov2 FILE (for FD-DINOv2 dinov2_vitl14_pretrain.pth, from github.com/facebookresearch/dinov2)".into(),
            Self::Clip => "--clip FILE (a state dict of CLIP in OpenAI's names, such as ViT-B/16, from github.com/openai/CLIP)".into(),
        }
    }

    /// Adds to a loading error which weights are expected.
    fn explain(self, error: WeightsError) -> anyhow::Error {
        anyhow!("{error}; expected {}", self.wanted())
    }
}

/// A loaded feature extractor.
#[derive(Debug)]
pub struct FeatureExtractor {
    /// Which feature extractor it is.
    pub kind: Kind,
    /// Preprocessing of its inputs.
    pub preprocess: Preprocess,
    network: Network,
    /// Fingerprint of its weights.
    pub fingerprint: String,
    /// Relative L2 error of a GPU's features of a test image against the CPU's; 0 on the CPU.
    pub drift: f64,
    device: Device,
}

/// A larger drift means that the device does not compute in float32: TF32's is about 1e-3.
pub const MAX_DRIFT: f64 = 1e-4;

#[derive(Debug)]
enum Network {
    Inception(Box<Inception>),
    DinoV2(Box<DinoV2>),
    Clip(Box<Clip>),
}

/// Outputs of a feature extractor for a batch of images, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The features `[n, d]` that distances compare.
    pub features: Vec<f32>,
    /// Inception's spatial features `[n, 2023]` for sFID; empty for other extractors.
    pub spatial: Vec<f32>,
    /// Inception's logits without bias `[n, 1008]`; empty for other extractors.
    pub logits: Vec<f32>,
    /// Width of each of the three.
    pub widths: [usize; 3],
    /// Widths and heights of the images.
    pub sizes: BTreeSet<[usize; 2]>,
}

impl Features {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.features.len() / self.widths[0].max(1)
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// Appends the outputs for more images.
    pub fn append(&mut self, mut other: Self) {
        self.widths = other.widths;
        self.features.append(&mut other.features);
        self.spatial.append(&mut other.spatial);
        self.logits.append(&mut other.logits);
        self.sizes.append(&mut other.sizes);
    }
}

impl FeatureExtractor {
    /// Loads a network's weights in float32. On a GPU, features of a test image are compared with
    /// the CPU's: some GPUs multiply in lower precision, which shifts every metric.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds another network; the error says which file is needed.
    pub fn open(kind: Kind, path: &Path, preprocess: Preprocess, device: &Device) -> Result<Self> {
        let weights = open(path).map_err(|e| kind.explain(e))?;
        let mut extractor = Self::from_weights(kind, weights.clone(), preprocess, device)?;
        if *device != Device::flex() {
            let exact = Self::from_weights(kind, weights, preprocess, &Device::flex())?;
            extractor.drift = extractor.drift_from(&exact);
        }
        Ok(extractor)
    }

    /// Relative L2 difference of two extractors' features of a fixed image.
    fn drift_from(&self, other: &Self) -> f64 {
        const SIDE: usize = 64;
        let value = |i: usize| ((i * 31 % 251) ^ (i / 3 % SIDE * 3)) as u8;
        let pixels = (0..SIDE * SIDE * 3).map(value).collect();
        let input = self.input(&Rgb { width: SIDE, height: SIDE, pixels });
        let (a, b) = (self.extract(input.clone()).features, other.extract(input).features);
        let square = |v: f64| v * v;
        let difference: f64 = a.iter().zip(&b).map(|(a, b)| square(f64::from(a - b))).sum();
        let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
        (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
    }

    /// [`open`](Self::open) from weights in memory, without the check of the GPU's precision.
    ///
    /// # Errors
    ///
    /// If the weights are those of another network; the error says which file is needed.
    pub fn from_weights(
        kind: Kind,
        weights: Weights,
        preprocess: Preprocess,
        device: &Device,
    ) -> Result<Self> {
        let fingerprint = weights.fingerprint();
        let explain = |e| kind.explain(e);
        let network = match kind {
            Kind::Inception => {
                let network = Inception::from_weights(&weights, device).map_err(explain)?;
                Network::Inception(Box::new(network))
            }
            Kind::DinoV2 => {
                let network = DinoV2::from_weights(weights, None, device).map_err(explain)?;
                let grid = [preprocess.side() / network.patch(); 2];
                Network::DinoV2(Box::new(network.with_grid(grid, Interpolation::Native)))
            }
            Kind::Clip => {
                Network::Clip(Box::new(Clip::from_weights(weights, None, device).map_err(explain)?))
            }
        };
        let drift = 0.0;
        Ok(Self { kind, preprocess, network, fingerprint, drift, device: device.clone() })
    }

    /// Input resolution of the network.
    fn side(&self) -> usize {
        match &self.network {
            Network::Clip(clip) => clip.resolution(),
            _ => self.preprocess.side(),
        }
    }

    /// Preprocesses an image to `[3, side, side]`.
    pub fn input(&self, image: &Rgb) -> Vec<f32> {
        self.preprocess.image(image, self.side())
    }

    /// Extracts features of preprocessed images `[B, 3, side, side]`.
    ///
    /// # Panics
    ///
    /// If `inputs` are not of the network's side.
    pub fn extract(&self, inputs: Vec<f32>) -> Features {
        let side = self.side();
        let b = inputs.len() / (3 * side * side);
        let x = Tensor::<4>::from_data(TensorData::new(inputs, [b, 3, side, side]), &self.device);
        let read = |t: Tensor<2>| -> (Vec<f32>, usize) {
            let width = t.dims()[1];
            (t.into_data().convert::<f32>().iter::<f32>().collect(), width)
        };
        let alone = |t: Tensor<2>| {
            let (features, d) = read(t);
            Features { features, widths: [d, 0, 0], ..Features::default() }
        };
        let mut rows = match &self.network {
            Network::Inception(network) => {
                let out = network.forward(x);
                let ((features, d), (spatial, s)) = (read(out.pool2048), read(out.spatial));
                let (logits, l) = read(out.logits_unbiased);
                Features { features, spatial, logits, widths: [d, s, l], ..Features::default() }
            }
            Network::DinoV2(network) => alone(network.forward(x).class),
            Network::Clip(network) => alone(network.forward(x)),
        };
        if matches!(self.preprocess, Preprocess::KDiffusionDino | Preprocess::KDiffusionClip) {
            unit_rows(&mut rows.features, rows.widths[0]);
        }
        rows
    }

    /// Cache key: network, preprocessing and weights, and whether the device does not compute in float32: whoever reads
    /// such features on another device would not know.
    pub fn key(&self) -> String {
        let name = format!("{:?}-{:?}", self.kind, self.preprocess).to_lowercase();
        let precision = if self.drift > MAX_DRIFT { "-lower-precision" } else { "" };
        format!("{name}-{}{precision}", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype::weights::snapshot;

    #[test]
    fn drift_detects_lower_precision() {
        let device = Device::flex();
        let config = tintype::model::dinov2::DinoConfig {
            embed_dim: 64,
            depth: 2,
            num_heads: 1,
            patch_size: 14,
            mlp_ratio: 4,
            img_size: 224,
            registers: 0,
            swiglu: false,
        };
        let tensors = snapshot(&config.init(&device).unwrap());
        let weights = Weights { file: "test".into(), tensors, ..Weights::default() };
        let mut rounded = weights.clone();
        for view in rounded.tensors.values_mut() {
            // TF32 keeps ten bits of a mantissa.
            let values: Vec<f32> = view
                .to_f32()
                .iter()
                .map(|v| f32::from_bits((v.to_bits() + 0x1000) & !0x1fff))
                .collect();
            *view = tintype::weights::TensorView::from_f32(view.shape.clone(), &values).unwrap();
        }
        let extractor = |weights| {
            FeatureExtractor::from_weights(Kind::DinoV2, weights, Preprocess::Edm2Dino, &device)
                .unwrap()
        };
        let exact = extractor(weights.clone());
        assert_eq!(exact.drift_from(&extractor(weights)), 0.0);
        let mut lower = extractor(rounded);
        let key = lower.key();
        lower.drift = lower.drift_from(&exact);
        assert!(lower.drift > MAX_DRIFT);
        assert_eq!(lower.key(), format!("{key}-lower-precision"));
    }
}
