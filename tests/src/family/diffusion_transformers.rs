//! Forward passes and losses of LightningDiT and SiT.

use std::path::Path;

use anyhow::{Context, Result};
use tintype::burn::tensor::{Device, Int, Tensor};
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::guidance::Guidance;
use tintype::diffusion::loss;
use tintype::model::lightningdit::{LightningDiT, LightningDiTConfig};
use tintype::model::sit::SiTConfig;
use tintype::weights::gradients;

use crate::check::{Checks, FORWARD, GRADIENT, LOSS, TABLE, Tolerance};
use crate::golden::Golden;

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn lightningdit_forward(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let model: LightningDiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let (x, t) = (golden.tensor::<4>("in.x", device)?, golden.tensor::<1>("in.t", device)?);
    let y = golden.ints("in.y", device)?;
    checks.tensor_if("out.t_emb", &network.time_embedding(t.clone()), FORWARD)?;
    checks.tensor_if("out.y_emb", &network.label_embedding(y.clone()), FORWARD)?;
    if golden.has("in.force_drop_ids") {
        let drop = golden.ints("in.force_drop_ids", device)?.equal_elem(1);
        let dropped = network.labels().drop_labels(y.clone(), drop);
        checks.tensor_if("out.y_emb_force_drop", &network.label_embedding(dropped), FORWARD)?;
    }
    let trace = network.trace(x.clone(), t.clone(), y.clone());
    checks.tensor_if("out.tokens_after_patch_embed", &trace.patches, FORWARD)?;
    checks.tensor_if("out.tokens_plus_pos", &trace.embedded, FORWARD)?;
    for (i, block) in trace.blocks.iter().enumerate() {
        checks.tensor_if(&format!("out.block{i}"), block, FORWARD)?;
    }
    checks.tensor_if("out.final_tokens", &trace.tokens, FORWARD)?;
    checks.tensor_if("out.forward", &network.forward(x, t, y), FORWARD)?;
    for (name, case) in config["cases"].as_object().into_iter().flatten() {
        let number = |key: &str| case[key].as_f64().unwrap_or_default();
        let cfg = Cfg {
            scale: number("cfg_scale"),
            start: case["cfg_interval"]
                .as_bool()
                .unwrap_or(false)
                .then(|| number("cfg_interval_start")),
            channels: config["cfg_channels"].as_u64().unwrap_or(3) as usize,
        };
        let x = golden.tensor::<4>("in.cfg_x", device)?;
        let y = golden.ints("in.cfg_y", device)?;
        let out = cfg.forward(&network, x, number("t"), y);
        checks.tensor_if(&format!("out.{name}"), &out, FORWARD)?;
    }
    Ok(())
}

/// LightningDiT's doubled batch: both halves see the first half's latents.
pub(super) struct Cfg {
    pub scale: f64,
    /// Guides from this time on, on the authors' clock, where the interval is on.
    pub start: Option<f64>,
    pub channels: usize,
}

impl Cfg {
    /// `[guided k channels ‖ own rest]` of both halves.
    ///
    /// # Shapes
    ///
    /// * `x`: `[2·n, C, S, S]`; `y`: `[2·n]`
    /// * returns `[2·n, C, S, S]`
    pub fn forward(
        &self,
        network: &LightningDiT,
        x: Tensor<4>,
        t: f64,
        y: Tensor<1, Int>,
    ) -> Tensor<4> {
        let [b, c, _, _] = x.dims();
        let half = x.narrow(0, 0, b / 2);
        let times = Tensor::<1>::full([b], t, &half.device());
        let out = network.forward(Tensor::cat(vec![half.clone(), half], 0), times, y);
        let (cond, uncond) = (out.clone().narrow(0, 0, b / 2), out.narrow(0, b / 2, b / 2));
        let k = self.channels.min(c);
        let guidance = Guidance {
            scale: self.scale,
            low: 0.0,
            // Ours runs the other way; the comparison is float32 in the reference.
            high: self.start.map_or(1.0, |start| 1.0 - start as f32 as f64),
            channels: Some(k),
        };
        let first = match guidance.active(1.0 - t as f32 as f64) {
            true => guidance.combine(cond, uncond.clone()),
            false => cond,
        };
        let second = match c - k {
            0 => first.clone(),
            rest => {
                let guided = first.clone().narrow(1, 0, k);
                Tensor::cat(vec![guided, uncond.narrow(1, k, rest)], 1)
            }
        };
        Tensor::cat(vec![first, second], 0)
    }
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn lightningdit_loss(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let model: LightningDiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let [x1, x0] = [golden.tensor::<4>("in.x1", device)?, golden.tensor("in.x0", device)?];
    let t = golden.tensor::<1>("in.t", device)?;
    // t = 0 is noise here.
    let (xt, target) = Interpolant::Linear.interpolate(x1, x0, -t.clone() + 1.0);
    let target = -target;
    checks.tensor("out.xt", &xt, FORWARD)?;
    checks.tensor("out.target", &target, FORWARD)?;
    let pred = network.forward(xt, t, golden.ints("in.y", device)?);
    checks.tensor("out.pred", &pred, FORWARD)?;
    let mse = loss::mean_squared_error(pred.clone(), target.clone());
    checks.tensor("out.loss_per_sample", &mse, LOSS)?;
    let mut total = mse.mean();
    if config["transport"]["use_cosine_loss"].as_bool().unwrap_or(false) {
        let cosine = loss::cosine_loss(pred, target);
        checks.tensor_if("out.cos_loss_per_sample", &cosine, LOSS)?;
        total = total + cosine.mean();
    }
    checks.tensor("out.total", &total, LOSS)?;
    check_gradients(checks, &golden, &gradients(&network, &total.backward()), "out.grad.", GRADIENT)
}

/// Compares gradients; those of key biases are rounding noise and are left out.
pub(super) fn check_gradients(
    checks: &mut Checks,
    golden: &Golden,
    actual: &std::collections::BTreeMap<String, tintype::weights::TensorView>,
    prefix: &str,
    tolerance: Tolerance,
) -> Result<()> {
    compare_gradients(checks, golden, actual, prefix, tolerance, false)
}

/// Compares all gradients, of key biases, too: a norm of the keys or RoPE makes them more than rounding noise.
pub(super) fn check_all_gradients(
    checks: &mut Checks,
    golden: &Golden,
    actual: &std::collections::BTreeMap<String, tintype::weights::TensorView>,
    prefix: &str,
    tolerance: Tolerance,
) -> Result<()> {
    compare_gradients(checks, golden, actual, prefix, tolerance, true)
}

fn compare_gradients(
    checks: &mut Checks,
    golden: &Golden,
    actual: &std::collections::BTreeMap<String, tintype::weights::TensorView>,
    prefix: &str,
    tolerance: Tolerance,
    key_biases: bool,
) -> Result<()> {
    let names: Vec<String> = golden.outputs().filter(|n| n.starts_with(prefix)).cloned().collect();
    for name in names {
        let parameter = &name[prefix.len()..];
        let view =
            actual.get(parameter).ok_or_else(|| anyhow::anyhow!("{parameter} has no gradient"))?;
        let (mut values, mut expected) = (view.to_f64(), golden.values(&name)?);
        anyhow::ensure!(view.shape == golden.view(&name)?.shape, "{name}: {:?}", view.shape);
        if !key_biases && parameter.ends_with("attn.qkv.bias") {
            let d = values.len() / 3;
            values[d..2 * d].fill(0.0);
            expected[d..2 * d].fill(0.0);
        }
        checks.against(&name, &values, &expected, tolerance)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn sit_forward(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let device = &device.clone().autodiff();
    let config = golden.config()?;
    let model: SiTConfig = serde_json::from_value(config["model"].clone())?;
    let network = golden.load(model.init(device)?, device)?;
    let (x, t) = (golden.tensor::<4>("in.x", device)?, golden.tensor::<1>("in.t", device)?);
    let y = golden.ints("in.y", device)?;
    checks.tensor_if("out.t_emb", &network.time_embedding(t.clone()), FORWARD)?;
    checks.tensor_if("out.y_emb", &network.label_embedding(y.clone()), FORWARD)?;
    checks.tensor_if(
        "out.inference",
        &network.forward(x.clone(), t.clone(), y.clone()),
        FORWARD,
    )?;
    let stream = network.stream(x, t.clone(), y.clone(), model.encoder_depth);
    checks.tensor_if("out.feats_encoder_depth", &stream, FORWARD)?;
    let latent = golden.tensor::<4>("in.latent", device)?;
    let bn = network.bn.as_ref().context("the network has no statistics")?;
    let z = bn.normalize(latent);
    checks.tensor_if("out.bn_normalised", &z, FORWARD)?;
    checks.tensor_if("out.denormalised", &bn.denormalize(z.clone()), FORWARD)?;
    checks.tensor_if("out.latents_bias", &bn.running_mean.val(), FORWARD)?;
    let scale = bn.running_var.val().sqrt().recip();
    checks.tensor_if("out.latents_scale", &scale, FORWARD)?;
    let noise = golden.tensor::<4>("in.noise", device)?;
    let teachers = (0..model.z_dims.len())
        .map(|i| golden.tensor::<3>(&format!("in.zs.{i}"), device))
        .collect::<Result<Vec<_>>>()?;
    let proj_coeff = config["proj_coeff"].as_f64().unwrap_or(0.5);
    let proj_loss = Tolerance::Absolute(1e-6);
    for (name, flow) in [("linear", Interpolant::Linear), ("cosine", Interpolant::Cosine)] {
        if !golden.has(&format!("out.{name}.xt")) {
            continue;
        }
        let key = |what: &str| format!("out.{name}.{what}");
        let (xt, target) = flow.interpolate(z.clone(), noise.clone(), t.clone());
        checks.tensor(&key("xt"), &xt, FORWARD)?;
        checks.tensor(&key("target"), &target, FORWARD)?;
        let (v, features) = network.forward_with_features(xt.clone(), t.clone(), y.clone());
        checks.tensor(&key("model_output"), &v, FORWARD)?;
        for (i, feature) in features.iter().enumerate() {
            checks.tensor(&key(&format!("zs_tilde.{i}")), feature, FORWARD)?;
        }
        let denoising = loss::mean_squared_error(v, target);
        checks.tensor(&key("denoising_loss"), &denoising, LOSS)?;
        let projection = loss::projection_loss(&features, &teachers);
        checks.tensor(&key("proj_loss"), &projection, proj_loss)?;
        let total = denoising.mean() + projection * proj_coeff;
        checks.tensor(&key("total"), &total, LOSS)?;
        let alone = loss::projection_loss(&network.features(xt, t.clone(), y.clone()), &teachers);
        checks.tensor_if(&key("align_only.proj_loss"), &alone, proj_loss)?;
        let grads = gradients(&network, &total.backward());
        check_gradients(checks, &golden, &grads, &key("grad."), GRADIENT)?;
    }
    Ok(())
}

/// Compares what a file of this family expects.
///
/// # Errors
///
/// If the file cannot be read, lacks an entry, or an entry has another shape. A value outside its
/// tolerance is recorded in `checks`, not an error.
pub fn sit_bn_train(path: &Path, device: &Device, checks: &mut Checks) -> Result<()> {
    let golden = Golden::open(path)?;
    let config = golden.config()?;
    let x = golden.tensor::<4>("in.x", device)?;
    let bn = tintype::nn::norm::LatentNorm::new(x.dims()[1], device);
    let bn = golden.load_part(bn, "bn.", device)?;
    let (y, bn) = bn.train_step(x, config["momentum"].as_f64().unwrap_or(0.1));
    checks.tensor("out.y", &y, FORWARD)?;
    checks.tensor("out.running_mean", &bn.running_mean.val(), TABLE)?;
    checks.tensor("out.running_var", &bn.running_var.val(), TABLE)?;
    let batches = golden.weights.tensors["bn.num_batches_tracked"].to_i64()[0] + 1;
    checks.values("out.num_batches_tracked", &[batches as f64], Tolerance::Exact)
}
