//! Writes the weights that a manifest of reference values describes, as a file that `tintype` loads:
//!
//! `cargo run --release --locked --example recipe_weights -- eval_inception.safetensors inception.safetensors`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tintype::weights::{open, write_safetensors};
use tintype_tests::recipe::Manifest;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [golden, out] = paths.as_slice() else {
        bail!("usage: recipe_weights GOLDEN.safetensors OUT.safetensors");
    };
    let stem = golden.file_stem().and_then(|s| s.to_str()).context("a file is needed")?;
    let manifest = golden.with_file_name(format!("{stem}_manifest.json"));
    let weights = Manifest::read(&manifest)?.weights(&open(golden)?)?;
    let bytes =
        write_safetensors(&weights.tensors, &BTreeMap::new()).map_err(anyhow::Error::msg)?;
    std::fs::write(out, bytes).with_context(|| out.display().to_string())
}
