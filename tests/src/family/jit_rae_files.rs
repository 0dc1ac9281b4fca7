//! Checkpoints in the nesting of JiT's and RAE's authors.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tintype::burn::tensor::Device;
use tintype::model::jit::JitConfig;
use tintype::model::{Architecture, detect};
use tintype::weights::{Weights, open, open_average};

use super::rae;
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

/// The checkpoint of a JiT, and the prefix of its authors' names.
const JIT: &str = "jit_tiny.pth";
const NET: &str = "net.";

/// Compares what a folder of this family expects.
///
/// # Errors
///
/// If a file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn checkpoints(folder: &Path, checks: &mut Checks) -> Result<()> {
    let path = folder.join("expected.safetensors");
    let expected = open(&path)?;
    checks.expect(Golden::open(&path)?);
    let is_known = |key: &&String| [JIT, "rae_"].iter().any(|start| key.starts_with(start));
    let of_nobody = expected.tensors.keys().find(|key| !is_known(key));
    ensure!(of_nobody.is_none(), "{of_nobody:?} is of no known author");
    jit(folder, &expected, checks)?;
    rae::checkpoints(folder, checks)
}

/// JiT's three sections, which of them opens, and the network that it is.
fn jit(folder: &Path, expected: &Weights, checks: &mut Checks) -> Result<()> {
    let path = folder.join(JIT);
    let sections = Weights::pytorch_sections(std::fs::read(&path)?, JIT)?;
    for section in ["model", "model_ema1", "model_ema2"] {
        let found = sections.get(section).with_context(|| format!("{JIT} has no {section}"))?;
        same(checks, &tensors(expected, section, ""), found, section)?;
    }
    for (number, section) in
        [(None, "model_ema1"), (Some(1), "model_ema1"), (Some(2), "model_ema2")]
    {
        let opened = match number {
            None => open(&path)?,
            Some(number) => open_average(&path, number)?,
        };
        ensure!(opened.metadata["section"] == section, "average {number:?}: {:?}", opened.metadata);
        let label = format!("average {number:?}");
        same(checks, &tensors(expected, section, NET), &opened, &label)?;
    }
    let Err(error) = open_average(&path, 3) else { anyhow::bail!("there is no third average") };
    let error = error.to_string();
    ensure!(error.contains("model_ema1") && error.contains("model_ema2"), "{error}");

    let found = detect(&open(&path)?)?;
    let config = JitConfig {
        input_size: 8,
        patch_size: 4,
        hidden_size: 8,
        depth: 1,
        num_heads: 2,
        bottleneck_dim: 4,
        in_context_len: 2,
        in_context_start: 0,
        num_classes: 3,
        ..JitConfig::variant("B/16").context("a size")?
    };
    ensure!(found == Architecture::from(config), "{found:?}");
    let report = found.untrained(&Device::flex())?.compare(&open(&path)?);
    ensure!(report.fits() && report.unexpected.is_empty(), "{report}");
    Ok(())
}

/// The expected tensors of a section, without a prefix of their names.
fn tensors(expected: &Weights, section: &str, prefix: &str) -> Weights {
    let start = format!("{JIT}/{section}/{prefix}");
    let named = expected.tensors.iter().filter_map(|(key, view)| {
        Some((key.strip_prefix(start.as_str())?.to_string(), view.clone()))
    });
    Weights { file: start.clone(), tensors: named.collect(), ..Weights::default() }
}

/// Compares tensors bit for bit; there are no others.
fn same(checks: &mut Checks, expected: &Weights, found: &Weights, label: &str) -> Result<()> {
    let (wanted, read) = (&expected.tensors, &found.tensors);
    ensure!(!wanted.is_empty() && wanted.keys().eq(read.keys()), "{label}: {:?}", read.keys());
    for (name, view) in wanted {
        let found = &read[name];
        let is_same = found.shape == view.shape && found.dtype == view.dtype;
        ensure!(is_same, "{label}: {name} is {found:?} instead of {view:?}");
        let key = format!("{label} {name}");
        checks.against(&key, &found.to_f64(), &view.to_f64(), Tolerance::Exact)?;
    }
    Ok(())
}
