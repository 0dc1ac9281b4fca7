//! Options of evaluation, which `evaluate` and `sample --evaluate` share, and what is done with the
//! result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::events::Reporter;
use crate::evaluate::evaluation::Options;
use crate::evaluate::judge::Kind;
use crate::evaluate::protocol::{Metric, Protocol};
use crate::evaluate::report::Report;
use crate::files::write_whole;

/// How samples are judged.
#[derive(Debug, clap::Args)]
pub struct JudgingArgs {
    /// Whose way to resize, scale and split; numbers compare with that tool's
    /// [default: adm; pytorch-fid with --reconstruct]
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// What to measure, separated by commas [default: what the protocol's tool prints]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub metrics: Vec<Metric>,
    /// Weights of FID's Inception-v3: pytorch-fid's or torch-fidelity's file
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// Weights of DINOv2, for FD-DINOv2 those of ViT-L/14: the authors' file, transformers' or timm's
    #[arg(long, value_name = "FILE")]
    pub dinov2: Option<PathBuf>,
    /// Weights of CLIP in OpenAI's names
    #[arg(long, value_name = "FILE")]
    pub clip: Option<PathBuf>,
    /// Measure Fréchet distances of this many disjoint random parts of the samples, too
    #[arg(long, value_name = "PARTS")]
    pub subsets: Option<usize>,
    /// Folder where what networks say of images is kept: the same images are not judged twice, a
    /// stopped run goes on, and several processes share the work
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
    /// Write mean and covariance of the samples' features, as pytorch-fid does
    #[arg(long, value_name = "FILE.npz")]
    pub save_stats: Option<PathBuf>,
    /// Write the result for programs
    #[arg(long, value_name = "FILE.json")]
    pub output_json: Option<PathBuf>,
}

impl JudgingArgs {
    /// What is wanted.
    pub fn options(&self) -> Result<Options> {
        if let Some(path) = &self.save_stats
            && path.extension().is_none_or(|e| e != "npz")
        {
            bail!("--save-stats {} does not end in .npz", path.display());
        }
        Ok(Options {
            protocol: self.protocol.unwrap_or(Protocol::Adm),
            metrics: self.metrics.clone(),
            networks: self.networks(),
            subsets: self.subsets,
            statistics: self.save_stats.is_some(),
        })
    }

    fn networks(&self) -> BTreeMap<Kind, PathBuf> {
        let files = [
            (Kind::Inception, &self.inception),
            (Kind::DinoV2, &self.dinov2),
            (Kind::Clip, &self.clip),
        ];
        files.into_iter().filter_map(|(kind, path)| Some((kind, path.clone()?))).collect()
    }

    /// Tells the result.
    pub fn tell(&self, report: &Report, reporter: &Reporter) -> Result<()> {
        if let Some(path) = &self.output_json {
            write_json(path, &report.json())?;
        }
        reporter.event("evaluated", report.json());
        reporter.line(report.to_string().trim_end());
        Ok(())
    }
}

/// Writes a result.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be written", folder.display()))?;
    }
    write_whole(path, format!("{value:#}\n").as_bytes())
}
