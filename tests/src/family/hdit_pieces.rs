//! HDiT's pieces: rotary embedding, neighborhoods, blocks, merges, mapping network.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tintype::burn::tensor::{Device, Tensor};
use tintype::model::hdit::{
    AttentionBlock, FeedForwardBlock, LevelAttention, TokenMerge, TokenSplit, TokenUnpatch,
    c_noise, cosine_similarity_scale, geglu, shifted_window_mask,
};
use tintype::nn::linear::{Init, Linear};
use tintype::nn::neighborhood::{neighborhood_attention, window_start};
use tintype::nn::norm::rms_norm_scaled;
use tintype::nn::rope::{HeadRope, axial_grid, head_frequencies, rotate_halves};

use super::hdit_model::{conditions, config};
use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

const STATED: Tolerance = Tolerance::Stated;

fn natural(value: &Value, key: &str) -> Result<usize> {
    Ok(value[key].as_u64().with_context(|| format!("{key} is missing"))? as usize)
}

fn cases(golden: &Golden) -> Result<Vec<(String, Value)>> {
    let extra = golden.json("extra")?;
    let cases = extra["cases"].as_array().cloned().unwrap_or_default();
    Ok(cases.into_iter().enumerate().map(|(i, c)| (format!("case{i}"), c)).collect())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn rope(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    for (case, sizes) in cases(&golden)? {
        let size = |key: &str| natural(&sizes, key);
        let (h, w, heads, d) = (size("h")?, size("w")?, size("n_heads")?, size("d_head")?);
        let key = |what: &str| format!("out.{case}.{what}");
        checks.values(&key("pos"), &axial_grid(h, w), STATED)?;
        checks.values(&key("freqs"), &head_frequencies(heads, d), STATED)?;
        if golden.has(&key("pos_down")) {
            checks.values(&key("pos_down"), &axial_grid(h / 2, w / 2), STATED)?;
        }
        let rope = HeadRope::new(heads, d, device);
        let theta = rope.angles(h, w);
        checks.tensor(&key("theta"), &theta, STATED)?;
        let x = golden.tensor::<5>(&format!("in.{case}.x"), device)?;
        checks.tensor(&key("y"), &rotate_halves(x, theta), STATED)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn natten(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    for (case, sizes) in cases(&golden)? {
        let kernel = natural(&sizes, "kernel_size")?;
        let scale = sizes["softmax_scale"].as_f64().unwrap_or(1.0);
        let input = |what: &str| golden.tensor::<5>(&format!("in.{case}.{what}"), device);
        let [q, k, v] =
            [input("q")?.require_grad(), input("k")?.require_grad(), input("v")?.require_grad()];
        let [_, h, w, _, _] = q.dims();
        for (axis, n) in [("h", h), ("w", w)] {
            let starts: Vec<f64> = (0..n).map(|i| window_start(i, n, kernel) as f64).collect();
            checks.values(&format!("out.{case}.start_{axis}"), &starts, Tolerance::Exact)?;
        }
        let y = neighborhood_attention(q.clone(), k.clone(), v.clone(), kernel, scale);
        checks.tensor(&format!("out.{case}.y"), &y, STATED)?;
        let grads = (y * input("grad_y")?).sum().backward();
        for (name, x) in [("q", q), ("k", k), ("v", v)] {
            let gradient = x.grad(&grads).context("no gradient")?;
            checks.tensor(&format!("out.{case}.grad_{name}"), &gradient, STATED)?;
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
pub fn blocks(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let extra = golden.json("extra")?;
    let (width, cond) = (natural(&extra, "d_model")?, natural(&extra, "cond_features")?);
    for (name, case) in extra["cases"].as_object().into_iter().flatten() {
        let size = |key: &str| natural(case, key);
        let kind = case["kind"].as_str().unwrap_or_default();
        let input = || -> Result<(Tensor<4>, Tensor<2>)> {
            Ok((
                golden.tensor(&format!("in.{name}.x"), device)?,
                golden.tensor(&format!("in.{name}.cond"), device)?,
            ))
        };
        let prefix = format!("{name}.");
        if kind == "FeedForwardBlock" {
            let block = FeedForwardBlock::new(width, size("d_ff")?, cond, device);
            let block = golden.load_part(block, &prefix, device)?;
            let (x, c) = input()?;
            checks.tensor(
                &format!("out.{name}.y"),
                &block.forward(x, c, Default::default()),
                STATED,
            )?;
        }
        let (attention, index) = match kind {
            "SelfAttentionBlock" => (LevelAttention::Global { d_head: size("d_head")? }, 0),
            "NeighborhoodSelfAttentionBlock" => (
                LevelAttention::Neighborhood {
                    d_head: size("d_head")?,
                    kernel_size: size("kernel_size")?,
                },
                0,
            ),
            "ShiftedWindowSelfAttentionBlock" => {
                let (window_size, shift) = (size("window_size")?, size("window_shift")?);
                let key = format!("out.{name}.mask");
                if golden.has(&key) {
                    let view = golden.view(&key)?;
                    let grid = [view.shape[0], view.shape[1]];
                    let mask = shifted_window_mask(grid, window_size, shift, device);
                    let bits: Vec<f64> = mask.into_data().iter::<bool>().map(f64::from).collect();
                    checks.values(&key, &bits, Tolerance::Exact)?;
                }
                let d_head = size("d_head")?;
                (LevelAttention::ShiftedWindow { d_head, window_size }, usize::from(shift > 0))
            }
            _ => continue,
        };
        let block = AttentionBlock::new(width, cond, attention, index, device);
        let block = golden.load_part(block.context("a block")?, &prefix, device)?;
        let (x, c) = input()?;
        checks.tensor(
            &format!("out.{name}.y"),
            &block.forward(x, c, Default::default()),
            STATED,
        )?;
    }
    if golden.has("in.cosine.q") {
        // [B, heads, T, d] there, heads before channels here
        let input = |what: &str| -> Result<Tensor<5>> {
            let x = golden.tensor::<4>(&format!("in.cosine.{what}"), device)?;
            let [b, heads, t, d] = x.dims();
            Ok(x.swap_dims(1, 2).reshape([b, 1, t, heads, d]))
        };
        let back = |x: Tensor<5>| -> Tensor<4> {
            let [b, _, t, heads, d] = x.dims();
            x.reshape([b, t, heads, d]).swap_dims(1, 2)
        };
        let scale = golden.tensor::<1>("in.cosine.scale", device)?;
        let (q, k) = cosine_similarity_scale(input("q")?, input("k")?, scale);
        checks.tensor("out.cosine.q", &back(q), STATED)?;
        checks.tensor("out.cosine.k", &back(k), STATED)?;
    }
    if golden.has("in.geglu.x") {
        let [rows, d] = golden.view("w.geglu.weight")?.shape[..] else {
            anyhow::bail!("geglu.weight is not a matrix")
        };
        let up = Linear::without_bias(d, rows, Init::FanIn, device);
        let up = golden.load_part(up, "geglu.", device)?;
        let x = golden.tensor::<2>("in.geglu.x", device)?;
        checks.tensor("out.geglu.y", &geglu(x, &up), STATED)?;
    }
    if golden.has("in.rmsnorm.x") {
        let x = golden.tensor::<2>("in.rmsnorm.x", device)?;
        let scale = golden.tensor::<1>("w.rmsnorm.scale", device)?;
        checks.tensor("out.rmsnorm.y", &rms_norm_scaled(x, scale), STATED)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn tokens(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    for (case, sizes) in cases(&golden)? {
        let (fine, coarse) =
            (natural(&sizes, "fine_features")?, natural(&sizes, "coarse_features")?);
        let cell = [0, 1].map(|i| sizes["patch"][i].as_u64().unwrap_or(1) as usize);
        let whole = cell[0] * cell[1] * fine;
        let x = golden.tensor::<4>(&format!("in.{case}.x"), device)?;
        let z = golden.tensor::<4>(&format!("in.{case}.z"), device)?;
        let key = |what: &str| (format!("out.{case}.{what}"), format!("{case}.{what}."));
        let (name, prefix) = key("merge");
        let merge = TokenMerge::new(whole, coarse, cell, device);
        let merge = golden.load_part(merge, &prefix, device)?;
        checks.tensor(&name, &merge.forward(x.clone()), STATED)?;
        let (name, prefix) = key("split");
        let split = TokenSplit::with_cell(coarse, whole, cell, device);
        let split = golden.load_part(split, &prefix, device)?;
        checks.tensor(&name, &split.forward(z.clone(), x), STATED)?;
        let (name, prefix) = key("unpatch");
        let unpatch = TokenUnpatch::new(coarse, whole, cell, device);
        let unpatch = golden.load_part(unpatch, &prefix, device)?;
        checks.tensor(&name, &unpatch.forward(z), STATED)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn mapping(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let mut golden = Golden::open(path)?;
    let network = config(&golden)?.init(device)?;
    // The file has the mapping network only; the rest starts as it would in training.
    let rest = tintype::weights::snapshot(&network);
    for (name, view) in rest {
        golden.weights.tensors.entry(name).or_insert(view);
    }
    let network = golden.load(network, device)?;
    let sigma = golden.tensor::<1>("in.sigma", device)?;
    let augmented = conditions(&golden, true, device)?;
    checks.tensor("out.c_noise", &c_noise(sigma.clone()), STATED)?;
    let (time, augmentation) =
        network.fourier_features(sigma.clone(), augmented.augmentation.clone());
    checks.tensor("out.time_features", &time, STATED)?;
    checks.tensor("out.aug_features", &augmentation, STATED)?;
    let sum = network.embed_conditions(sigma.clone(), augmented);
    checks.tensor("out.sum", &sum, STATED)?;
    checks.tensor("out.cond", &network.map(sum), STATED)?;
    let plain = network.embed_conditions(sigma, conditions(&golden, false, device)?);
    checks.tensor("out.cond_noaug", &network.map(plain), STATED)
}
