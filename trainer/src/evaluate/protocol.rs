//! Evaluation protocols: resizing, normalization, splits and default metrics of a reference tool, so
//! that results are comparable with that tool's.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::extractor::Kind;
use super::preprocess::Preprocess;

/// An evaluation protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// ADM's evaluator (DiT, SiT, LightningDiT, REPA-E, RAE): FID, sFID, IS, precision and recall
    Adm,
    /// pytorch-fid (LightningDiT's in-loop FID, rFID): FID
    PytorchFid,
    /// torch-fidelity (MAR, JiT, Hi-DiT, iMF, pMF): FID, IS, KID, precision and recall
    TorchFidelity,
    /// clean-fid: FID, KID
    CleanFid,
    /// NVIDIA's EDM2: FID, FD-DINOv2
    Edm2,
    /// k-diffusion (HDiT): FID, KID, also on DINOv2 or CLIP features
    KDiffusion,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Fréchet Inception Distance
    Fid,
    /// FID on Inception's spatial features
    Sfid,
    /// Inception Score
    Is,
    /// Improved precision and recall
    Pr,
    /// Kernel Inception Distance
    Kid,
    /// Fréchet distance on DINOv2 class tokens
    FdDinov2,
    /// Kernel distance on DINOv2 class tokens
    KdDinov2,
    /// Fréchet distance on CLIP image embeddings
    FdClip,
    /// Kernel distance on CLIP image embeddings
    KdClip,
}

impl Metric {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |v| v.get_name().into())
    }

    /// Display name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fid => "FID",
            Self::Sfid => "sFID",
            Self::Is => "Inception Score",
            Self::Pr => "precision and recall",
            Self::Kid => "KID",
            Self::FdDinov2 => "FD-DINOv2",
            Self::KdDinov2 => "KD-DINOv2",
            Self::FdClip => "FD-CLIP",
            Self::KdClip => "KD-CLIP",
        }
    }

    /// Its feature extractor.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fid | Self::Sfid | Self::Is | Self::Pr | Self::Kid => Kind::Inception,
            Self::FdDinov2 | Self::KdDinov2 => Kind::DinoV2,
            Self::FdClip | Self::KdClip => Kind::Clip,
        }
    }

    /// Whether mean and covariance suffice.
    pub fn is_frechet(self) -> bool {
        matches!(self, Self::Fid | Self::Sfid | Self::FdDinov2 | Self::FdClip)
    }

    /// Whether it needs a reference set.
    pub fn has_reference(self) -> bool {
        self != Self::Is
    }
}

impl Protocol {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |v| v.get_name().into())
    }

    /// Default metrics given the available feature extractors: those that the reference tool prints,
    /// and the Fréchet distance of every other extractor whose weights are given.
    pub fn metrics(self, networks: &[Kind]) -> Vec<Metric> {
        use Metric::*;
        let inception: &[Metric] = match self {
            Self::Adm => &[Fid, Sfid, Is, Pr],
            Self::PytorchFid | Self::Edm2 => &[Fid],
            Self::TorchFidelity => &[Fid, Is, Kid, Pr],
            Self::CleanFid | Self::KDiffusion => &[Fid, Kid],
        };
        let others: &[Metric] = match self {
            Self::KDiffusion => &[FdDinov2, KdDinov2, FdClip, KdClip],
            _ => &[FdDinov2, FdClip],
        };
        let all = inception.iter().chain(others).copied();
        all.filter(|metric| networks.contains(&metric.kind())).collect()
    }

    /// Preprocessing for a feature extractor.
    pub fn preprocess(self, kind: Kind) -> Preprocess {
        match (kind, self) {
            // EDM2's Inception samples the image where TensorFlow's bilinear does.
            (Kind::Inception, Self::Adm | Self::TorchFidelity | Self::Edm2) => Preprocess::Adm,
            (Kind::Inception, Self::PytorchFid) => Preprocess::PytorchFid,
            (Kind::Inception, Self::CleanFid) => Preprocess::CleanFid,
            (Kind::Inception, Self::KDiffusion) => Preprocess::KDiffusion,
            (Kind::DinoV2, Self::TorchFidelity) => Preprocess::TorchFidelityDino,
            (Kind::DinoV2, Self::KDiffusion) => Preprocess::KDiffusionDino,
            // Protocols without a DINOv2 of their own use EDM2's definition of FD-DINOv2.
            (Kind::DinoV2, _) => Preprocess::Edm2Dino,
            (Kind::Clip, _) => Preprocess::KDiffusionClip,
        }
    }

    /// Ridge that k-diffusion adds to the diagonal of covariances.
    pub fn ridge(self) -> f64 {
        if self == Self::KDiffusion { 1e-8 } else { 0.0 }
    }
}
