//! Distances between distributions and between images, the generator behind them, the recipe of
//! weights.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ndarray::Array2;
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::image::{Rounding, to_rgb};
use tintype_trainer::data::npz::Npz;
use tintype_trainer::evaluate::frechet::{Gaussian, Statistics};
use tintype_trainer::evaluate::reconstruction::{Plane, psnr, ssim_map};
use tintype_trainer::evaluate::{frechet, inception_score, kernel, numpy, precision_recall};
use tintype_trainer::loss::vf::{Margins, alignment};
use tintype_trainer::train::vae::adaptive;

use super::book::Book;
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;
use crate::recipe;

const EXACT: Tolerance = Tolerance::Exact;
const CLOSE: Tolerance = Tolerance::Relative(1e-9);

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn distributions(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let tag = golden.text("tag").context("no tag")?;
    let mut book = Book::new(&golden, checks);
    let cases: BTreeSet<String> = golden
        .names()
        .filter_map(|n| Some(n.strip_prefix("fid.")?.split_once('.')?.0.to_string()))
        .collect();
    for case in cases {
        fid(&mut book, &tag, &case)?;
    }
    inception(&mut book, &tag)?;
    let (f1, f2) = (book.matrix("kid.f1")?, book.matrix("kid.f2")?);
    let names: Vec<String> = golden.names().cloned().collect();
    for name in &names {
        if let Some(size) = name.strip_prefix("kid.k_diffusion_max") {
            book.check(name, &[kernel::distance(&f1, &f2, size.parse()?)], CLOSE)?;
        }
    }
    let whole = f1.nrows().max(f2.nrows());
    book.check("kid.squared_mmd_full", &[kernel::distance(&f1, &f2, whole)], CLOSE)?;
    let shape = &golden.view("kid.subset_indices")?.shape;
    let (subsets, size) = (shape[0] / 2, shape[1]);
    let mut random = numpy::RandomState::new(2020);
    let mut indices = Vec::new();
    for _ in 0..subsets {
        for n in [f1.nrows(), f2.nrows()] {
            indices.extend(random.choice(n, size).into_iter().map(|i| i as f64));
        }
    }
    book.check("kid.subset_indices", &indices, EXACT)?;
    let (mean, deviation) = kernel::subset_distance(&f1, &f2, subsets, size, 2020);
    book.check("kid.torch_fidelity", &[mean, deviation], CLOSE)?;

    let (reference, sample) = (book.matrix("pr.ref")?, book.matrix("pr.sample")?);
    let k = precision_recall::NEIGHBOURS;
    let close = Tolerance::Relative(1e-6);
    let radii = |points| precision_recall::squared_radii(points, k);
    book.check("pr.radii_ref_squared", &radii(&reference), close)?;
    book.check("pr.radii_sample_squared", &radii(&sample), close)?;
    let (precision, recall) = precision_recall::precision_recall(&reference, &sample, k);
    book.check("pr.precision_recall", &[precision, recall], Tolerance::Relative(1e-12))?;

    let wide = |v: Vec<usize>| -> Vec<f64> { v.into_iter().map(|v| v as f64).collect() };
    for name in &names {
        let Some(what) = name.strip_prefix("rng.") else { continue };
        let count = golden.view(name)?.len();
        let mut random = numpy::RandomState::new(2020);
        let after = |text: &str, key: &str| -> Option<usize> {
            let rest = text.split_once(key)?.1;
            rest.split('_').next()?.parse().ok()
        };
        let values = if what.contains("u32") {
            (0..count).map(|_| random.next_u32() as f64).collect()
        } else if let Some(second) = after(what, "_then_n") {
            let first = after(what, "_n").context("a first size")?;
            let (a, b) = (random.permutation(first), random.permutation(second));
            wide([a, b].concat())
        } else {
            let n = after(what, "_n").context("a size")?;
            wide(random.permutation(n).into_iter().take(count).collect())
        };
        book.check(name, &values, EXACT)?;
    }
    book.finish(&[])
}

fn fid(book: &mut Book<'_>, tag: &str, case: &str) -> Result<()> {
    let name = |key: &str| format!("fid.{case}.{key}");
    let expected = book.golden.values(&name("expected"))?;
    // The scale of rounding is that of the traces; equal statistics have distance 0.
    let scale = expected[1] + expected[2];
    let compare = |book: &mut Book<'_>, terms: frechet::Terms, limit: f64| -> Result<()> {
        let frechet::Terms { mean, trace_a, trace_b, trace_of_root } = terms;
        let all = [mean, trace_a, trace_b, trace_of_root, terms.distance()];
        let error = all.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        ensure!(error <= limit * scale, "fid.{case}: {all:?} instead of {expected:?}");
        book.check(&name("expected"), &all, Tolerance::Absolute(limit * scale))
    };
    if case.starts_with("recipe") {
        let (x1, x2) = recipe_features(tag, case, book)?;
        let s1 = frechet::statistics(&x1, 0.0);
        let first = |s: &Statistics| s.mu.iter().copied().take(8).collect::<Vec<_>>();
        book.check(&name("mu1_first8"), &first(&s1), Tolerance::Relative(1e-9))?;
        let corner: Vec<f64> = s1.sigma.slice(ndarray::s![..4, ..4]).iter().copied().collect();
        book.check(&name("sigma1_4x4"), &corner, Tolerance::Absolute(1e-12))?;
        // Fewer samples than features: from the features; else from the statistics.
        let limit = if x1.nrows().min(x2.nrows()) < x1.ncols() { 1e-10 } else { 1e-9 };
        let terms = frechet::terms(&Gaussian::of(&x1)?, &Gaussian::of(&x2)?)?;
        return compare(book, terms, limit);
    }
    let (x1, x2) = (book.matrix(&name("x1"))?, book.matrix(&name("x2"))?);
    let mut stated = Vec::new();
    for (i, x) in [(1, &x1), (2, &x2)] {
        let s = frechet::statistics(x, 0.0);
        let flat: Vec<f64> = s.sigma.iter().copied().collect();
        let tiny = Tolerance::Absolute(1e-10 * scale);
        book.check(&name(&format!("mu{i}")), &s.mu.to_vec(), tiny)?;
        book.check(&name(&format!("sigma{i}")), &flat, tiny)?;
        stated.push(s);
    }
    let rank_deficient = case.contains("rank_deficient");
    let of_features = |x| Gaussian::from_features(x);
    compare(book, frechet::terms(&of_features(&x1)?, &of_features(&x2)?)?, 1e-10)?;
    let limit = if rank_deficient { 2e-7 } else { 1e-9 };
    let [a, b] = [0, 1].map(|i| Gaussian::from_statistics(&stated[i]));
    compare(book, frechet::terms(&a?, &b?)?, limit)
}

/// `x = f32((o + (j mod 4)/64) + (s·2^−(j mod 8))·(2u − 1))`; the second set's first quarter of
/// columns is mixed with its second.
fn recipe_features(
    tag: &str,
    case: &str,
    book: &mut Book<'_>,
) -> Result<(Array2<f64>, Array2<f64>)> {
    const D: usize = 2048;
    let (n1, n2) = match case.ends_with("n600") {
        true => (600, 500),
        false => (2600, 2300),
    };
    let make = |name: &str, n: usize, o: f64, s: f64| {
        // The recipe's own values are u mapped by offset and scale; ask for u itself.
        let u = recipe::uniforms(tag, &format!("{case}.{name}"), n * D);
        Array2::from_shape_fn((n, D), |(i, j)| {
            let (offset, scale) = (o + (j % 4) as f64 / 64.0, s * 0.5f64.powi((j % 8) as i32));
            (offset + scale * (2.0 * u[i * D + j] - 1.0)) as f32 as f64
        })
    };
    let x1 = make("x1", n1, 0.5, 1.0);
    let mut x2 = make("x2", n2, 0.53125, 1.25);
    for mut row in x2.rows_mut() {
        for j in 0..512 {
            row[j] = (row[j] + 0.5 * row[j + 512]) as f32 as f64;
        }
    }
    for (name, x) in [("x1", &x1), ("x2", &x2)] {
        let first: Vec<f64> = x.row(0).iter().copied().take(8).collect();
        book.check(&format!("fid.{case}.{name}_row0_first8"), &first, EXACT)?;
    }
    Ok((x1, x2))
}

fn inception(book: &mut Book<'_>, tag: &str) -> Result<()> {
    const CLASSES: usize = 1008;
    let n = book.golden.view("isc.perm2020_203")?.len();
    let mut logits = recipe::values(tag, "is.logits", 0.0, 4.0, n * CLASSES);
    for i in 0..n {
        logits[i * CLASSES + 37 * i % CLASSES] += 6.0;
    }
    let logits = logits.into_iter().map(f64::from).collect();
    let logits = Array2::from_shape_vec((n, CLASSES), logits)?;
    let order = numpy::RandomState::new(2020).permutation(n);
    let order: Vec<f64> = order.into_iter().map(|i| i as f64).collect();
    book.check("isc.perm2020_203", &order, EXACT)?;
    for (name, seed) in [("shuffled", Some(2020)), ("unshuffled", None)] {
        let (mean, deviation) = inception_score::split(&logits, 10, seed);
        book.check(&format!("isc.torch_fidelity_{name}"), &[mean, deviation], CLOSE)?;
    }
    let names: Vec<String> = book.golden.names().cloned().collect();
    for name in names {
        if let Some(size) = name.strip_prefix("isc.adm_split") {
            book.check(&name, &[inception_score::chunked(&logits, size.parse()?)], CLOSE)?;
        }
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn recipe_check(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let tag = golden.text("tag").context("no tag")?;
    let mut book = Book::new(&golden, checks);
    let cases = [
        ("case0", "a", 0.0, 1.0),
        ("case1", "Conv2d_1a_3x3.conv.weight", 0.0, 0.5),
        ("case2", "blocks.0.attn.qkv.bias", 0.25, 0.125),
        ("case3", "", 0.0, 1.0),
        ("case4", "naïve/名", -1.0, 2.0),
    ];
    for (case, name, offset, scale) in cases {
        let n = golden.view(case)?.len();
        let values = recipe::values(&tag, name, offset, scale, n);
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        book.check(case, &values, EXACT)?;
    }
    let n = golden.view("u24_case1")?.len();
    book.check("u24_case1", &recipe::uniforms(&tag, cases[1].1, n), EXACT)?;
    book.finish(&[])
}

/// From an 8-bit value to the range that is compared in.
type Scale<'a> = &'a dyn Fn(f64) -> f64;

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn images(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let mut book = Book::new(&golden, checks);
    let shape = golden.view("image0")?.shape.clone();
    let (n, height, width) = (shape[0], shape[1], shape[2]);
    let size = height * width * 3;
    let bytes = |name: &str| -> Result<Vec<u8>> {
        Ok(golden.view(name)?.to_i64().iter().map(|&v| v as u8).collect())
    };
    let (target, prediction) = (bytes("image0")?, bytes("image1")?);
    let values: Vec<f64> = (0..n)
        .map(|i| psnr(&prediction[i * size..][..size], &target[i * size..][..size]))
        .collect();
    let mean = values.iter().sum::<f64>() / n as f64;
    book.check("psnr_255", &values, Tolerance::Absolute(1e-4))?;
    book.check("psnr_mean", &[mean], Tolerance::Absolute(1e-4))?;
    // SSIM in several ranges; each image's mean over channels and pixels.
    let map = |scale: Scale<'_>, grow: f64, limits: [f64; 2], i: usize| {
        let plane = |bytes: &[u8], c: usize, grow: f64| -> Vec<f64> {
            let image = bytes[i * size..][..size].iter().skip(c).step_by(3);
            image.map(|&v| (scale(v as f64) * grow).clamp(limits[0], limits[1])).collect()
        };
        let maps = (0..3).map(|c| {
            let (a, b) = (plane(&prediction, c, grow), plane(&target, c, 1.0));
            let of = |values| Plane { values, height, width };
            ssim_map(of(&a), of(&b), limits[1] - limits[0])
        });
        maps.collect::<Vec<_>>()
    };
    let mean = |maps: &[Vec<f64>], cut: usize| -> f64 {
        let inside = |at: &usize| {
            let (y, x) = (at / width, at % width);
            (cut..height - cut).contains(&y) && (cut..width - cut).contains(&x)
        };
        let kept: Vec<f64> =
            maps.iter().flat_map(|m| (0..m.len()).filter(inside).map(|at| m[at])).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    let signed = |v: f64| v / 127.5 - 1.0;
    let cases: [(&str, Scale<'_>, f64, [f64; 2], usize); 5] = [
        ("ssim_m1_1", &signed, 1.0, [-1.0, 1.0], 0),
        ("ssim_m1_1_overshoot", &signed, 1.15, [-1.0, 1.0], 0),
        ("ssim_m1_1_cropped5_old_torchmetrics", &signed, 1.0, [-1.0, 1.0], 5),
        ("ssim_01", &|v| v / 255.0, 1.0, [0.0, 1.0], 0),
        ("ssim_255", &|v| v, 1.0, [0.0, 255.0], 0),
    ];
    for (name, scale, grow, limits, cut) in cases {
        let values: Vec<f64> = (0..n).map(|i| mean(&map(scale, grow, limits, i), cut)).collect();
        book.check(name, &values, Tolerance::Absolute(1e-6))?;
    }
    let sub = golden.view("ssim_map_sub")?.shape.clone();
    let (dy, dx) = (height.div_ceil(sub[2]), width.div_ceil(sub[3]));
    let maps = (0..n).flat_map(|i| map(&signed, 1.0, [-1.0, 1.0], i));
    let thinned: Vec<f64> = maps
        .flat_map(|m| {
            let rows = (0..height).step_by(dy);
            rows.flat_map(|y| (0..width).step_by(dx).map(move |x| (y, x)))
                .map(|(y, x)| m[y * width + x])
                .collect::<Vec<_>>()
        })
        .collect();
    book.check("ssim_map_sub", &thinned, Tolerance::Absolute(1e-5))?;
    quantised(&mut book)?;
    // The alignment's terms and the adaptive weights.
    let (z, aux) = (golden.tensor::<4>("vf.z", device)?, golden.tensor::<4>("vf.aux", device)?);
    for (name, distmat, cos) in
        [("vf.distmat0_cos0", 0.0, 0.0), ("vf.distmat0.25_cos0.5", 0.25, 0.5)]
    {
        let terms = alignment(z.clone(), aux.clone(), Margins { distmat, cos });
        let pair = Tensor::cat(vec![terms.distmat, terms.cos], 0);
        let pair: Vec<f64> = pair.into_data().iter::<f64>().collect();
        book.check(name, &pair, Tolerance::Relative(1e-5))?;
    }
    let gradient = |name: &str| golden.tensor::<4>(name, device);
    let weight = |w: f64, max: f64| -> Result<Vec<f64>> {
        let x = adaptive(gradient("adaptive.nll_grad")?, gradient("adaptive.g_grad")?, w, max);
        Ok(x.into_data().iter::<f64>().collect())
    };
    let close = Tolerance::Relative(1e-5);
    book.check("adaptive.d_weight_times0.5", &weight(0.5, 1e4)?, close)?;
    book.check("adaptive.vf_weight_times0.1", &weight(0.1, 1e8)?, close)?;
    book.finish(&["image", "vf.z", "vf.aux", "adaptive.nll", "adaptive.g", "quant.x"])
}

/// Both of the product's conversions to 8 bits, and rounding, which it does not use.
fn quantised(book: &mut Book<'_>) -> Result<()> {
    let x = book.golden.view("quant.x")?.to_f32();
    let data = TensorData::new(x.clone(), [1, 1, 1, x.len()]);
    for (name, rounding) in
        [("quant.ldit_127.5x_plus_128", Rounding::Up), ("quant.repae_255_half", Rounding::Half)]
    {
        let grey = to_rgb(&data, rounding).remove(0).pixels;
        let values: Vec<f64> = grey.iter().step_by(3).map(|&v| v as f64).collect();
        book.check(name, &values, EXACT)?;
    }
    let round = |v: &f32| (v * 127.5 + 127.5).clamp(0.0, 255.0).round_ties_even() as f64;
    let values: Vec<f64> = x.iter().map(round).collect();
    book.check("quant.round", &values, EXACT)
}

/// Statistics and samples as other tools write them.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn archives(path: &Path, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let mut book = Book::new(&golden, checks);
    let beside = |name: &str| path.with_file_name(name);
    let plain = Npz::open(&beside("eval_stats_pytorchfid.npz"))?.statistics()?;
    let flat = |s: &Statistics| s.sigma.iter().copied().collect::<Vec<_>>();
    book.check("mu", &plain.mu.to_vec(), EXACT)?;
    book.check("sigma", &flat(&plain), EXACT)?;
    let adm = Npz::open(&beside("eval_stats_adm.npz"))?.statistics()?;
    let narrow: Vec<f64> = plain.mu.iter().map(|&v| v as f32 as f64).collect();
    book.checks.against("adm mu", &adm.mu.to_vec(), &narrow, Tolerance::Absolute(1e-6))?;
    book.checks.against("adm sigma", &flat(&adm), &flat(&plain), Tolerance::Absolute(1e-6))?;
    let samples = Npz::open(&beside("eval_samples.npz"))?.bytes("arr_0")?;
    ensure!(samples.shape().len() == 4 && samples.shape()[3] == 3, "{:?}", samples.shape());
    book.finish(&[])
}
