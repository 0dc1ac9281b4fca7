//! DINOv2 and CLIP as feature extractors and teachers: inputs, position embeddings, tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::image::{IMAGENET_MEAN, IMAGENET_STD, Rgb};
use tintype::model::dinov2::{DinoV2, Interpolation, Tokens, resample_positions};
use tintype::resize::Method;
use tintype::weights::{Weights, open};
use tintype_trainer::data::crop::{Filter, resize as pillow};
use tintype_trainer::data::resize::{repa_teacher_input, vf_teacher_input};
use tintype_trainer::evaluate::preprocess::{Preprocess, VIT_SIDE, unit_rows};
use tintype_trainer::network::clip::Clip;

use super::book::Book;
use super::evaluation::planes;
use super::loss_networks::{recipe, values};
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

const TOKENS: Tolerance = Tolerance::Absolute(3e-5);
const INPUT: Tolerance = Tolerance::Absolute(2e-5);
/// Sizes of the published files and of these.
const GRID: [usize; 2] = [16, 16];

/// Chosen rows of each matrix `[rows, d]` in `[B, rows, d]`.
fn chosen(all: &[f64], rows: usize, d: usize, which: &[usize]) -> Vec<f64> {
    let rows_of = |matrix: &[f64]| -> Vec<f64> {
        which.iter().flat_map(|&i| matrix[i * d..(i + 1) * d].to_vec()).collect()
    };
    all.chunks_exact(rows * d).flat_map(rows_of).collect()
}

/// Images as Pillow resizes them, then ImageNet's mean and deviation: EDM2's slower mode.
fn pillow_input(bytes: &[u8], [height, width]: [usize; 2]) -> Vec<f32> {
    let area = height * width;
    let mut out = Vec::new();
    for image in bytes.chunks_exact(3 * area) {
        let pixels = (0..3 * area).map(|i| image[i % 3 * area + i / 3]).collect();
        let image = Rgb { width, height, pixels };
        let small = pillow(&image, VIT_SIDE, VIT_SIDE, Filter::Bicubic).pixels;
        for c in 0..3 {
            let scale = |v: &u8| (*v as f32 / 255.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c];
            out.extend(small.iter().skip(c).step_by(3).map(scale));
        }
    }
    out
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn dinov2(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let plain = DinoV2::from_weights(recipe(path)?, None, device)?;
    let d = plain.width();
    let network = |grid, how| plain.clone().with_grid(grid, how);
    let (bytes, size) = planes(&golden, "image")?;
    let view = golden.view("token_index")?;
    let patches: Vec<usize> = view.to_i64().iter().map(|&i| i as usize).collect();
    let tokens: Vec<usize> = std::iter::once(0).chain(patches.iter().map(|i| i + 1)).collect();
    let mut book = Book::new(&golden, checks);
    book.see("token_index");

    let tensor = |input: &[f32], [h, w]: [usize; 2]| -> Tensor<4> {
        let b = input.len() / (3 * h * w);
        Tensor::from_data(TensorData::new(input.to_vec(), [b, 3, h, w]), device)
    };
    let square = |input: &[f32]| tensor(input, [VIT_SIDE; 2]);
    let sample = |input: &[f32]| input.iter().step_by(997).map(|&v| v as f64).collect::<Vec<f64>>();
    let patch_rows = |tokens: &Tokens, which: &[usize]| {
        let rows = tokens.patches.dims()[1];
        chosen(&values(&tokens.patches), rows, d, which)
    };

    // The position tables.
    for (name, how) in [("repae", Interpolation::Timm), ("native", Interpolation::Native)] {
        let table = values(&network(GRID, how).positions());
        let rows = chosen(&table, table.len() / d, d, &tokens);
        book.check(&format!("{name}.pos_embed_16_sub"), &rows, Tolerance::Absolute(2e-5))?;
    }

    // REPA's teacher, stage by stage.
    let input: Vec<f32> = bytes
        .chunks_exact(3 * size[0] * size[1])
        .flat_map(|image| repa_teacher_input(image, size[0]))
        .collect();
    book.check("repae.input_sample", &sample(&input), INPUT)?;
    let mut stages = BTreeMap::new();
    let repae = network(GRID, Interpolation::Timm);
    let out = repae.forward_observed(square(&input), &mut |stage, x| {
        let first: Tensor<3> = x.clone().narrow(0, 0, 1);
        stages.insert(stage, chosen(&values(&first), x.dims()[1], d, &tokens));
    });
    let depth = stages.len() - 1;
    let names = [(0, "embed_image0_sub"), (1, "block0_image0_sub"), (6, "block5_image0_sub")];
    for (stage, name) in names.into_iter().chain([(depth, "x_prenorm_image0_sub")]) {
        if let Some(rows) = stages.get(&stage) {
            book.check(&format!("repae.{name}"), rows, TOKENS)?;
        }
    }
    book.check("repae.x_norm_clstoken", &values(&out.class), TOKENS)?;
    let all: Vec<f64> = values(&out.patches);
    let per_image = all.len() / out.patches.dims()[0];
    book.check("repae.x_norm_patchtokens_image0", &all[..per_image], TOKENS)?;
    let second = chosen(&all[per_image..2 * per_image], per_image / d, d, &patches);
    book.check("repae.x_norm_patchtokens_image1_sub", &second, TOKENS)?;

    // The metrics' inputs, with the authors' own interpolation and with transformers'.
    let native = network(GRID, Interpolation::Native);
    let edm2 = Preprocess::Edm2Dino.planes(&bytes, size);
    for (name, input) in [
        ("edm2_torch", edm2.clone()),
        ("edm2_pil", pillow_input(&bytes, size)),
        ("kdiff", Preprocess::KDiffusionDino.planes(&bytes, size)),
        ("tffid", Preprocess::TorchFidelityDino.planes(&bytes, size)),
    ] {
        book.check(&format!("{name}.input_sample"), &sample(&input), INPUT)?;
        let out = native.forward(square(&input));
        let class = values(&out.class);
        book.check(&format!("{name}.cls"), &class, TOKENS)?;
        let rows = patch_rows(&out, &patches);
        book.check(&format!("{name}.patchtokens_sub"), &rows, TOKENS)?;
        let mut rows: Vec<f32> = class.iter().map(|&v| v as f32).collect();
        unit_rows(&mut rows, d);
        let rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
        book.check(&format!("{name}.features"), &rows, TOKENS)?;
    }
    let out = network(GRID, Interpolation::Transformers).forward(square(&edm2));
    book.check("hf.cls", &values(&out.class), TOKENS)?;
    book.check("hf.patchtokens_sub", &patch_rows(&out, &patches), TOKENS)?;

    // VA-VAE's teacher.
    let input: Vec<f32> = bytes
        .chunks_exact(3 * size[0] * size[1])
        .flat_map(|image| vf_teacher_input(image, size[0]))
        .collect();
    let out = repae.forward(square(&input));
    book.check("vavae.tokens_sub", &patch_rows(&out, &patches), TOKENS)?;

    if golden.has("odd.input") {
        book.see("odd.input");
        let input = as_it_was(golden.tensor::<4>("odd.input", device)?);
        let [_, _, h, w] = input.dims();
        let out = network([h / 14, w / 14], Interpolation::Native).forward(input);
        book.check("odd.cls", &values(&out.class), TOKENS)?;
        let seventh: Vec<usize> = (0..out.patches.dims()[1]).step_by(7).collect();
        book.check("odd.patchtokens_sub", &patch_rows(&out, &seventh), TOKENS)?;
    }
    book.finish(&["image", "stored."])
}

/// An image whose file may hold it channels last under the shape `[B, 3, H, W]`: the order in which
/// neighbours in a row differ less is the one in which the network saw it.
fn as_it_was(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let channels_last: Tensor<4> = x.clone().reshape([b, h, w, c]).permute([0, 3, 1, 2]);
    let roughness = |x: &Tensor<4>| {
        let (right, left) = (x.clone().narrow(3, 1, w - 1), x.clone().narrow(3, 0, w - 1));
        values(&(right - left)).iter().map(|v| v.abs()).sum::<f64>()
    };
    if roughness(&channels_last) < roughness(&x) { channels_last } else { x }
}

/// The part of a file's tensors below a prefix, as a checkpoint of its own.
pub(super) fn part(weights: &Weights, prefix: &str) -> Weights {
    let tensors = weights.tensors.iter();
    let tensors = tensors
        .filter_map(|(n, view)| Some((n.strip_prefix(prefix)?.to_string(), view.clone())))
        .collect();
    Weights { tensors, ..weights.clone() }
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn dinov2_small(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    /// Features of a head in these files.
    const HEAD: usize = 16;
    let golden = Golden::open(path)?;
    let file = open(path)?;
    let mut book = Book::new(&golden, checks);
    let models: BTreeSet<String> =
        golden.names().filter_map(|n| Some(n.split_once(".weights.")?.0.to_string())).collect();
    for model in &models {
        let weights = part(&file, &format!("{model}.weights."));
        let width = ["cls_token", "embeddings.cls_token"]
            .iter()
            .find_map(|n| weights.tensors.get(*n)?.shape.last().copied())
            .context("no class token")?;
        let plain = DinoV2::from_weights(weights, Some(width / HEAD), device)?;
        // The same model under other names has no expected values of its own.
        let outputs = model.strip_suffix("_hf").unwrap_or(model);
        let inputs: Vec<String> = golden
            .names()
            .filter(|n| n.starts_with(&format!("{outputs}.")) && n.ends_with(".input"))
            .cloned()
            .collect();
        for input in inputs {
            let base = input.trim_end_matches(".input");
            let x = golden.tensor::<4>(&input, device)?;
            let grid = [x.dims()[2] / 14, x.dims()[3] / 14];
            let out = plain.clone().with_grid(grid, Interpolation::Native).forward(x);
            let patches = out.patches.clone();
            let [b, _, d] = patches.dims();
            book.check(&format!("{base}.cls"), &values(&out.class), TOKENS)?;
            book.check(&format!("{base}.patch"), &values(&patches), TOKENS)?;
            if let Some(registers) = &out.registers {
                book.check(&format!("{base}.reg"), &values(registers), TOKENS)?;
            }
            let map = patches.swap_dims(1, 2).reshape([b, d, grid[0], grid[1]]);
            book.check(&format!("{base}.last_layer_map"), &values(&map), TOKENS)?;
            book.see(&input);
        }
    }
    golden.names().filter(|n| n.contains(".weights.")).for_each(|n| book.see(n));
    book.finish(&[])
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn positions(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let table = golden.tensor::<3>("table", &Device::flex())?;
    let mut book = Book::new(&golden, checks);
    for name in golden.names() {
        let Some((variant, size)) = name.rsplit_once('.') else { continue };
        let (height, width) = size.split_once('x').context("a size")?;
        let grid = [height.parse()?, width.parse()?];
        let method = match variant {
            "hf_size" => Method::Bicubic,
            "native_offset0.1" => Method::BicubicOffset,
            _ => Method::BicubicAntialias,
        };
        let out = resample_positions(table.clone(), grid, method);
        book.check(name, &values(&out), Tolerance::Absolute(2e-5))?;
    }
    book.finish(&["table"])
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn clip(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.view("config_width_embed_heads_layers_patch_res")?.to_i64();
    let (features, heads, side) = (config[1] as usize, config[2] as usize, config[5] as usize);
    let network = Clip::from_weights(part(&open(path)?, "weights."), Some(heads), device)?;
    anyhow::ensure!(network.resolution() == side, "resolution {}", network.resolution());
    let (bytes, size) = planes(&golden, "image")?;
    let input = Preprocess::KDiffusionClip.planes_to(&bytes, size, side);
    let mut book = Book::new(&golden, checks);
    let wide: Vec<f64> = input.iter().map(|&v| v as f64).collect();
    book.check("input", &wide, INPUT)?;
    let b = input.len() / (3 * side * side);
    let x = Tensor::<4>::from_data(TensorData::new(input, [b, 3, side, side]), device);
    let embeddings = values(&network.forward(x));
    let close = Tolerance::Absolute(2e-5);
    book.check("encode_image", &embeddings, close)?;
    let mut rows: Vec<f32> = embeddings.iter().map(|&v| v as f32).collect();
    unit_rows(&mut rows, features);
    let rows: Vec<f64> = rows.into_iter().map(f64::from).collect();
    book.check("kdiff_features", &rows, close)?;
    book.finish(&["image", "weights.", "config_"])
}
