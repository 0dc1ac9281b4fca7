//! FID's network and the ways in which tools resize for it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::image::Rgb;
use tintype::resize::{Method, resize};
use tintype_trainer::data::crop::{Filter, resize as pillow};
use tintype_trainer::evaluate::preprocess::Preprocess;
use tintype_trainer::network::inception::{Inception, SIDE};

use super::book::Book;
use super::loss_networks::{all_seen, recipe, values};
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;
use crate::recipe;

/// 8-bit images `[n, H, W, 3]` as planes `[n·3, H, W]`, with `[H, W]`.
pub(super) fn planes(golden: &Golden, name: &str) -> Result<(Vec<u8>, [usize; 2])> {
    let view = golden.view(name)?;
    let rank = view.shape.len();
    let (height, width) = (view.shape[rank - 3], view.shape[rank - 2]);
    let bytes: Vec<u8> = view.to_i64().iter().map(|&v| v as u8).collect();
    let mut planes = Vec::with_capacity(bytes.len());
    for image in bytes.chunks_exact(height * width * 3) {
        for c in 0..3 {
            planes.extend(image.iter().skip(c).step_by(3));
        }
    }
    Ok((planes, [height, width]))
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn inception(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let network = Inception::from_weights(&recipe(path)?, device)?;
    let mut book = Book::new(&golden, checks);
    let close = Tolerance::Absolute(2e-5);
    let tools = [
        ("tf", Preprocess::Adm),
        ("pytorch_fid", Preprocess::PytorchFid),
        ("clean", Preprocess::CleanFid),
        ("kdiff", Preprocess::KDiffusion),
    ];
    let sets: Vec<String> =
        golden.names().filter_map(|n| Some(n.strip_prefix("image.")?.to_string())).collect();
    for set in &sets {
        let (bytes, size) = planes(&golden, &format!("image.{set}"))?;
        for (name, tool) in tools {
            let input = tool.planes(&bytes, size);
            let sample: Vec<f64> = input.iter().step_by(997).map(|&v| v as f64).collect();
            book.check(&format!("{name}.{set}.input_sample"), &sample, Tolerance::Absolute(1e-5))?;
            let n = input.len() / (3 * SIDE * SIDE);
            let x = Tensor::<4>::from_data(TensorData::new(input, [n, 3, SIDE, SIDE]), device);
            let mut stages = Vec::new();
            let features = network.forward_observed(x, &mut |stage, x| {
                if name == "tf" && set == "a" {
                    stages.push((stage.to_string(), x.dims(), values(x)));
                }
            });
            for (key, tensor) in [
                ("feat2048", &features.pool2048),
                ("logits_unbiased", &features.logits_unbiased),
                ("logits", &features.logits),
                ("sfid2023", &features.spatial),
                ("pool64", &features.pool64),
                ("pool192", &features.pool192),
                ("pool768", &features.pool768),
            ] {
                book.check(&format!("{name}.{set}.{key}"), &values(tensor), close)?;
            }
            for (stage, shape, all) in stages {
                let shape: Vec<f64> = shape.iter().map(|&d| d as f64).collect();
                book.check(&format!("stage.{stage}.shape"), &shape, Tolerance::Exact)?;
                let sample: Vec<f64> = (0..64).map(|i| all[i * all.len() / 64]).collect();
                let near = Tolerance::RelativeL2(1e-5);
                book.check(&format!("stage.{stage}.sample64"), &sample, near)?;
                let n = all.len() as f64;
                let mean = all.iter().sum::<f64>() / n;
                let std = (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
                let largest = all.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let name = format!("stage.{stage}.mean_std_absmax");
                book.check(&name, &[mean, std, largest], Tolerance::RelativeL2(1e-4))?;
            }
        }
    }
    let shape = [2, 3, 107, 107];
    let tag = golden.text("tag").context("no tag")?;
    let input = recipe::values(&tag, "small.input", 0.0, 1.0, shape.iter().product());
    let x = Tensor::<4>::from_data(TensorData::new(input, shape), device);
    let features = network.forward(x);
    book.check("small.feat2048", &values(&features.pool2048), close)?;
    book.check("small.logits", &values(&features.logits), close)?;
    book.check("small.spatial7", &values(&features.spatial), close)?;
    book.finish(&["image.", "stored."])
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn resizing(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let mut seen = BTreeSet::from(["grid299".to_string()]);
    let (bytes, size) = planes(&golden, "image")?;
    let (bytes2, size2) = planes(&golden, "image2")?;
    let grid: Vec<usize> = golden.view("grid299")?.to_i64().iter().map(|&i| i as usize).collect();
    let names: Vec<String> = golden.names().cloned().collect();
    for name in names {
        let Some((mode, target)) = name.split_once('.') else { continue };
        let whole = target == "299_sub";
        let (bytes, from) = if whole { (&bytes2, size2) } else { (&bytes, size) };
        let to = match target.split_once('x') {
            Some((height, width)) => [height.parse()?, width.parse()?],
            None => [SIDE; 2],
        };
        // Channels last, at all positions or at those of the grid.
        let arranged = |planes: &[f64]| -> Vec<f64> {
            let all = |n: usize| (0..n).collect::<Vec<_>>();
            let (rows, columns) =
                if whole { (grid.clone(), grid.clone()) } else { (all(to[0]), all(to[1])) };
            let at = |y: usize, x: usize, c: usize| planes[(c * to[0] + y) * to[1] + x];
            let mut out = Vec::new();
            for &y in &rows {
                for &x in &columns {
                    out.extend((0..3).map(|c| at(y, x, c)));
                }
            }
            out
        };
        if let Some(filter) = mode.strip_prefix("pil_u8_") {
            let filter = match filter {
                "box" => Filter::Box,
                "bilinear" => Filter::Bilinear,
                "bicubic" => Filter::Bicubic,
                _ => Filter::Lanczos,
            };
            let area = from[0] * from[1];
            let pixel = |i: usize| bytes[i % 3 * area + i / 3];
            let pixels = (0..3 * area).map(pixel).collect();
            let image = Rgb { width: from[1], height: from[0], pixels };
            let out = pillow(&image, to[1], to[0], filter).pixels;
            let out: Vec<f64> = out.into_iter().map(f64::from).collect();
            checks.values(&name, &out, Tolerance::Exact)?;
        } else {
            let (method, limit) = match mode {
                "tf1_bilinear" => (Method::Tf1Bilinear, 1e-4),
                "torch_bilinear" => (Method::Bilinear, 1e-3),
                "torch_bicubic" => (Method::Bicubic, 1e-3),
                "torch_bilinear_antialias" | "pil_f32_bilinear" => {
                    (Method::BilinearAntialias, 1e-3)
                }
                "torch_bicubic_antialias" => (Method::BicubicAntialias, 1e-3),
                _ => (Method::PillowBicubic, 1e-3),
            };
            let clipped = mode == "clean" || mode.ends_with("_clip");
            let values: Vec<f32> = bytes.iter().map(|&v| v as f32).collect();
            let out = resize(&values, from, to, method).into_iter().map(|v| {
                let v = if clipped { v.clamp(0.0, 255.0) } else { v };
                v as f64
            });
            let out = arranged(&out.collect::<Vec<_>>());
            checks.values(&name, &out, Tolerance::Absolute(limit))?;
        }
        seen.insert(name);
    }
    all_seen(&golden, &seen, &["image"])
}
