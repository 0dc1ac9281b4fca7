//! Preprocessing of 8-bit images for the feature extractors, as each reference tool does it.

use tintype::image::{IMAGENET_MEAN, IMAGENET_STD, Rgb};
use tintype::resize::{Method, resize};

use crate::network::inception;

/// Resizing and normalization for a feature extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preprocess {
    /// Inception, ADM's evaluator and torch-fidelity: TensorFlow 1's bilinear, `(x − 128)/128`.
    Adm,
    /// Inception, pytorch-fid: PyTorch's bilinear of `x/255`, `2x − 1`.
    PytorchFid,
    /// Inception, clean-fid: Pillow's bicubic in float32, clipped, `(x − 128)/128`.
    CleanFid,
    /// Inception, k-diffusion: antialiased bicubic of −1…1, back to 0…255, clipped,
    /// `(x − 128)/128`.
    KDiffusion,
    /// DINOv2, EDM2: antialiased bicubic of 0…255, then ImageNet's mean and deviation.
    Edm2Dino,
    /// DINOv2, torch-fidelity: TensorFlow 1's bilinear of 0…255, ImageNet's mean and deviation.
    TorchFidelityDino,
    /// DINOv2, k-diffusion: antialiased bicubic of 0…1, ImageNet's mean and deviation.
    KDiffusionDino,
    /// CLIP, k-diffusion: the same with CLIP's mean and deviation.
    KDiffusionClip,
}

/// Input resolution of DINOv2 and CLIP.
pub const VIT_SIDE: usize = 224;
/// CLIP's channel means in 0…1.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's channel standard deviations in 0…1.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

impl Preprocess {
    /// Input resolution of the network.
    pub fn side(self) -> usize {
        match self {
            Self::Adm | Self::PytorchFid | Self::CleanFid | Self::KDiffusion => inception::SIDE,
            _ => VIT_SIDE,
        }
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adm => "TensorFlow bilinear to 299, (x - 128)/128",
            Self::PytorchFid => "PyTorch bilinear to 299, 2x - 1",
            Self::CleanFid => "Pillow bicubic to 299, (x - 128)/128",
            Self::KDiffusion => "antialiased bicubic to 299, (x - 128)/128",
            Self::Edm2Dino | Self::KDiffusionDino => "antialiased bicubic to 224, ImageNet mean",
            Self::TorchFidelityDino => "TensorFlow bilinear to 224, ImageNet mean",
            Self::KDiffusionClip => "antialiased bicubic to 224, CLIP mean",
        }
    }

    /// Preprocesses an image to planes `[3, side, side]`.
    ///
    /// # Panics
    ///
    /// If a side of the image or `side` is 0.
    pub fn image(self, image: &Rgb, side: usize) -> Vec<f32> {
        let area = image.width * image.height;
        let mut planes = Vec::with_capacity(3 * area);
        for c in 0..3 {
            planes.extend(image.pixels.iter().skip(c).step_by(3));
        }
        self.planes_to(&planes, [image.height, image.width], side)
    }

    /// Preprocesses planes `[3·n, height, width]` of 8-bit values, the channels of an image
    /// consecutive, to `[3·n, side, side]`.
    ///
    /// # Panics
    ///
    /// If a side of `from` is 0.
    pub fn planes(self, planes: &[u8], from: [usize; 2]) -> Vec<f32> {
        self.planes_to(planes, from, self.side())
    }

    /// [`planes`](Self::planes) at another input resolution.
    ///
    /// # Panics
    ///
    /// If a side of `from` or `side` is 0.
    pub fn planes_to(self, planes: &[u8], from: [usize; 2], side: usize) -> Vec<f32> {
        let resized = |scale: fn(f32) -> f32, method| {
            let wide: Vec<f32> = planes.iter().map(|&v| scale(v as f32)).collect();
            resize(&wide, from, [side; 2], method)
        };
        let mut out = match self {
            Self::Adm | Self::TorchFidelityDino => resized(|v| v, Method::Tf1Bilinear),
            Self::PytorchFid => resized(|v| v / 255.0, Method::Bilinear),
            Self::CleanFid => resized(|v| v, Method::PillowBicubic),
            Self::KDiffusion => resized(|v| v / 127.5 - 1.0, Method::BicubicAntialias),
            Self::Edm2Dino => resized(|v| v, Method::BicubicAntialias),
            Self::KDiffusionDino | Self::KDiffusionClip => {
                resized(|v| ((v / 127.5 - 1.0) + 1.0) / 2.0, Method::BicubicAntialias)
            }
        };
        for (i, plane) in out.chunks_exact_mut(side * side).enumerate() {
            let c = i % 3;
            let (mean, std) = match self {
                Self::KDiffusionClip => (CLIP_MEAN[c], CLIP_STD[c]),
                _ => (IMAGENET_MEAN[c], IMAGENET_STD[c]),
            };
            let scale = |v: f32| match self {
                Self::Adm => (v - 128.0) / 128.0,
                Self::PytorchFid => 2.0 * v - 1.0,
                Self::CleanFid => (v.clamp(0.0, 255.0) - 128.0) / 128.0,
                Self::KDiffusion => ((v * 127.5 + 127.5).clamp(0.0, 255.0) - 128.0) / 128.0,
                Self::Edm2Dino => (v / 255.0 - mean) / std,
                Self::TorchFidelityDino => (v - 255.0 * mean) / (255.0 * std),
                Self::KDiffusionDino | Self::KDiffusionClip => (v - mean) / std,
            };
            plane.iter_mut().for_each(|v| *v = scale(*v));
        }
        out
    }
}

/// k-diffusion's normalization of ViT features: each row scaled to L2 norm `√d`.
///
/// # Panics
///
/// If `d` is 0.
pub fn unit_rows(rows: &mut [f32], d: usize) {
    for row in rows.chunks_exact_mut(d) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
        let scale = (d as f32).sqrt() / norm;
        row.iter_mut().for_each(|v| *v *= scale);
    }
}
