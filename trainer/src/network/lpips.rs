//! LPIPS (Zhang et al., arXiv 1801.03924) in taming-transformers' version, on VGG16.

use std::path::Path;

use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::weights::{Weights, WeightsError, load, open};

use super::vgg::Vgg16;

/// A perceptual distance of two batches of images, `[B, 1, 1, 1]`.
pub type Perceptual<'a> = &'a dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>;

/// Shift of the scaling layer, per channel, for images in −1…1.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
/// Scale of the scaling layer.
pub const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// `(x − shift)/scale`, `[B, 3, H, W]` in −1…1.
///
/// # Shapes
///
/// * `x`: `[B, 3, H, W]`
/// * returns the same
///
/// # Panics
///
/// If `x` has another number of channels.
pub fn scale_input(x: Tensor<4>) -> Tensor<4> {
    let device: Device = x.device();
    let row =
        |v: [f32; 3]| Tensor::<4>::from_data(TensorData::new(v.to_vec(), [1, 3, 1, 1]), &device);
    (x - row(SHIFT)) / row(SCALE)
}

/// The distance from the five layers of features of two images.
///
/// # Shapes
///
/// * `a`, `b`: `[B, C_l, H_l, W_l]` a layer
/// * `weights`: the non-negative 1×1 convolutions, `[1, C_l, 1, 1]`
///
/// Returns `[B, 1, 1, 1]`.
///
/// # Panics
///
/// If there is no layer, or the shapes of `a` and `b` differ.
pub fn distance(a: &[Tensor<4>], b: &[Tensor<4>], weights: &[Tensor<4>]) -> Tensor<4> {
    let unit = |x: &Tensor<4>| {
        // 1e-30 changes no value and keeps the root's gradient finite where all channels are 0.
        let norm = (x.clone().square().sum_dim(1) + 1e-30).sqrt();
        x.clone() / (norm + 1e-10)
    };
    let layers = a.iter().zip(b).zip(weights).map(|((a, b), w)| {
        let difference = (unit(a) - unit(b)).square(); // [B, C, H, W]
        (difference * w.clone()).sum_dim(1).mean_dims(&[2, 3]) // [B, 1, 1, 1]
    });
    layers.reduce(|a, b| a + b).expect("there are five layers")
}

/// The whole distance, frozen.
#[derive(Debug)]
pub struct Lpips {
    vgg: Vgg16,
    /// `[1, C_l, 1, 1]` a layer.
    lin: Vec<Tensor<4>>,
}

impl Lpips {
    /// The smallest side of an image: VGG16 halves it four times.
    pub const SMALLEST: usize = 16;

    /// Loads torchvision's `vgg16-397923af.pth` and the linear layers `vgg.pth`, or both from one
    /// file of a built LPIPS.
    ///
    /// # Errors
    ///
    /// As [`from_weights`](Self::from_weights), and [`WeightsError::Io`] or
    /// [`WeightsError::Format`] if a file cannot be read.
    pub fn open(vgg: &Path, lin: &Path, device: &Device) -> Result<Self, WeightsError> {
        Self::from_weights(open(vgg)?, &open(lin)?, device)
    }

    /// The distance from opened files.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Mismatch`]: a tensor of VGG16 is missing or has another shape.
    /// * [`WeightsError::NotFinite`]: a weight of VGG16 is not finite.
    /// * [`WeightsError::Format`]: a linear layer is missing.
    pub fn from_weights(
        mut vgg: Weights,
        lin: &Weights,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        // A built LPIPS keeps torchvision's numbers inside its slices.
        vgg.tensors = vgg
            .tensors
            .into_iter()
            .filter_map(|(name, view)| {
                let name = match name.strip_prefix("net.slice") {
                    Some(rest) => format!("features.{}", rest.split_once('.')?.1),
                    None => name,
                };
                name.starts_with("features.").then_some((name, view))
            })
            .collect();
        let network = load(Vgg16::new(device), &vgg, FloatDType::F32, device)?.network;
        let layer = |k: usize| {
            let name = format!("lin{k}.model.1.weight");
            let view = lin.tensors.get(&name).filter(|v| v.shape.len() == 4);
            let view = view.ok_or_else(|| WeightsError::Format {
                file: lin.file.clone(),
                problem: format!("it lacks {name}; LPIPS' linear layers are needed (vgg.pth)"),
            })?;
            Ok(Tensor::from_data(TensorData::new(view.to_f32(), view.shape.clone()), device))
        };
        let lin = (0..5).map(layer).collect::<Result<_, WeightsError>>()?;
        Ok(Self { vgg: tintype::burn::module::Module::no_grad(network), lin })
    }

    /// The five layers of features of images in −1…1.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`
    /// * returns `[B, C_l, H_l, W_l]` a layer
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels or a side under 16.
    pub fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        self.vgg.forward(scale_input(x))
    }

    /// The distance of images `[B, 3, H, W]` in −1…1, `[B, 1, 1, 1]`.
    ///
    /// # Shapes
    ///
    /// * `a`, `b`: `[B, 3, H, W]`
    /// * returns `[B, 1, 1, 1]`
    ///
    /// # Panics
    ///
    /// If the shapes of the two differ, or as [`features`](Self::features).
    pub fn forward(&self, a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
        distance(&self.features(a), &self.features(b), &self.lin)
    }

    /// Each layer's part of the distance of images with these [`features`](Self::features), `[B, 5]`.
    ///
    /// # Shapes
    ///
    /// * `a`, `b`: `[B, C_l, H_l, W_l]` a layer
    /// * returns `[B, 5]`
    ///
    /// # Panics
    ///
    /// If there are fewer than five layers, or their shapes differ.
    pub fn layers(&self, a: &[Tensor<4>], b: &[Tensor<4>]) -> Tensor<2> {
        let parts = (0..5).map(|l| {
            let n = a[l].dims()[0];
            distance(&a[l..=l], &b[l..=l], &self.lin[l..=l]).reshape([n, 1])
        });
        Tensor::cat(parts.collect(), 1)
    }
}
