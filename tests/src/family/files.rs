//! File formats: PyTorch checkpoints, latent shards, HDF5 stores, numpy archives.

use std::path::Path;

use anyhow::{Context, Result};
use tintype::image::Rgb;
use tintype::weights::{TensorView, Weights, open};
use tintype_trainer::data::hdf5::Hdf5Store;
use tintype_trainer::data::latents::LatentShards;
use tintype_trainer::data::npz::Npz;
use tintype_trainer::evaluate::frechet;

use crate::check::{Checks, FORWARD, Tolerance};
use crate::golden::Golden;

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn pytorch(folder: &Path, checks: &mut Checks) -> Result<()> {
    let expected = open(&folder.join("expected.safetensors"))?;
    checks.expect(Golden::open(&folder.join("expected.safetensors"))?);
    for (key, view) in &expected.tensors {
        stored(folder, key, view, checks)?;
    }
    // Every checkpoint must also open the way sampling opens it.
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if [".pt", ".pth", ".ckpt", ".bin"].iter().any(|ending| name.ends_with(ending)) {
            let weights = open(&path)?;
            anyhow::ensure!(!weights.tensors.is_empty(), "{name} has no weights");
            let prefixed = weights.tensors.keys().any(|n| n.starts_with("module."));
            anyhow::ensure!(!prefixed, "{name} kept a wrapper's prefix");
        }
    }
    Ok(())
}

/// Compares a tensor of a checkpoint, which the key `file/section/name` is of, with the expected one.
pub(super) fn stored(
    folder: &Path,
    key: &str,
    expected: &TensorView,
    checks: &mut Checks,
) -> Result<()> {
    let (file, rest) = key.split_once('/').context("a key without a file")?;
    let (section, name) = rest.rsplit_once('/').unwrap_or(("", rest));
    let bytes = std::fs::read(folder.join(file))?;
    let sections = Weights::pytorch_sections(bytes, file)?;
    let found = sections
        .get(section)
        .and_then(|weights| weights.tensors.get(name))
        .with_context(|| format!("{key} was not read"))?;
    anyhow::ensure!(
        found.shape == expected.shape && found.dtype == expected.dtype,
        "{key}: {found:?} instead of {expected:?}"
    );
    checks.against(key, &found.to_f64(), &expected.to_f64(), Tolerance::Exact)?;
    anyhow::ensure!(found.to_bytes() == expected.to_bytes(), "{key}: other bits");
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn latent_shards(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.with_file_name(name.trim_end_matches("_expected"));
    let shards = LatentShards::open(&folder)?;
    let labels: Vec<f64> = shards.labels().iter().map(|&l| l as f64).collect();
    checks.values("out.labels", &labels, Tolerance::Exact)?;
    let stats = shards.statistics()?;
    let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|&v| v as f64).collect() };
    checks.values("out.mean", &wide(&stats.mean), Tolerance::Absolute(1e-6))?;
    checks.values("out.std", &wide(&stats.std), Tolerance::Absolute(1e-6))?;
    // The statistics file beside the shards says the same.
    let stored = open(&folder.join("latents_stats.pt"))?;
    let stored = tintype::generate::LatentStats::from_weights(&stored)?;
    let exact = Tolerance::Absolute(1e-6);
    checks.against("latents_stats.pt mean", &wide(&stored.mean), &wide(&stats.mean), exact)?;
    checks.against("latents_stats.pt std", &wide(&stored.std), &wide(&stats.std), exact)?;
    let multiplier = golden.config()?["latent_multiplier"].as_f64().unwrap_or(1.0) as f32;
    for (name, flipped) in [("out.normalised", false), ("out.normalised_flip", true)] {
        let values = shards.normalised(&stored, multiplier, flipped);
        checks.values(name, &wide(&values), FORWARD)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn hdf5(folder: &Path, checks: &mut Checks) -> Result<()> {
    checks.expect(Golden::open(&folder.join("expected.safetensors"))?);
    let mut stores = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "h5") {
            stores.push(Hdf5Store::open(&path)?);
        }
    }
    for store in stores {
        if store.items.iter().any(|i| i.ends_with(".npy")) {
            let mut moments = Vec::new();
            for item in &store.items {
                moments.extend(store.moments(item)?.0.into_iter().map(f64::from));
            }
            let label = |item: &String| store.label(item).map(|l| l as f64).context("no label");
            let labels = store.items.iter().map(label).collect::<Result<Vec<_>>>()?;
            checks.values("out.labels", &labels, Tolerance::Exact)?;
            checks.values("out.moments_mean_std", &moments, Tolerance::Exact)?;
        } else {
            let mut values = Vec::new();
            for item in &store.items {
                let image = decode(&store.bytes(item)?)?;
                for c in 0..3 {
                    values.extend(image.pixels.iter().skip(c).step_by(3).map(|&v| v as f64));
                }
            }
            checks.values("out.images_u8", &values, Tolerance::Exact)?;
        }
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<Rgb> {
    let image = image::load_from_memory(bytes)?.to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb { width, height, pixels: image.into_raw() })
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn npz(folder: &Path, checks: &mut Checks) -> Result<()> {
    checks.expect(Golden::open(&folder.join("expected.safetensors"))?);
    let statistics = |file: &str| Npz::open(&folder.join(file))?.statistics();
    let (a, b) = (statistics("fid_stats.npz")?, statistics("fid_stats2.npz")?);
    let flat = |m: &ndarray::Array2<f64>| m.iter().copied().collect::<Vec<_>>();
    checks.values("out.mu_f64", &a.mu.to_vec(), Tolerance::Exact)?;
    checks.values("out.sigma_f64", &flat(&a.sigma), Tolerance::Exact)?;
    checks.values("out.mu2_f64", &b.mu.to_vec(), Tolerance::Exact)?;
    checks.values("out.sigma2_f64", &flat(&b.sigma), Tolerance::Exact)?;
    let distance = frechet::distance(&a, &b)?;
    checks.values("out.frechet_f64", &[distance], Tolerance::Relative(1e-9))?;
    let samples = Npz::open(&folder.join("samples.npz"))?.bytes("arr_0")?;
    let bytes: Vec<f64> = samples.iter().map(|&v| v as f64).collect();
    checks.values("out.arr_0", &bytes, Tolerance::Exact)?;
    // The same values deflated, and in Fortran order beside other arrays.
    let compressed = statistics("fid_stats_compressed.npz")?;
    checks.against(
        "fid_stats_compressed",
        &flat(&compressed.sigma),
        &flat(&a.sigma),
        Tolerance::Exact,
    )?;
    let mut reference = Npz::open(&folder.join("ref_batch.npz"))?;
    let images: Vec<f64> = reference.bytes("arr_0")?.iter().map(|&v| v as f64).collect();
    checks.against("ref_batch arr_0", &images, &bytes, Tolerance::Exact)?;
    let batch = reference.statistics()?;
    checks.against("ref_batch sigma", &flat(&batch.sigma), &flat(&a.sigma), Tolerance::Exact)?;
    let spatial = reference.statistics_named("mu_s", "sigma_s")?;
    anyhow::ensure!(spatial.mu.len() == spatial.sigma.nrows(), "spatial statistics");
    Ok(())
}
