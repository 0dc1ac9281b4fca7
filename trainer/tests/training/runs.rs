//! A tiny run, and how two runs are compared.

use std::collections::BTreeMap;

use tintype::weights::Weights;

use crate::common::Workspace;

/// A tiny HDiT; `run` and `model` are more lines of those tables.
pub fn hdit(model: &str, run: &str) -> String {
    format!(
        r#"
recipe = "hdit"
[model]
input_channels = 3
input_size = [16, 16]
patch_size = [2, 2]
depths = [1, 1]
widths = [16, 32]
self_attns = [{{ type = "neighborhood", d_head = 16, kernel_size = 3 }}, {{ type = "global", d_head = 16 }}]
mapping_width = 16
mapping_depth = 1
sigma_data = 0.5
num_classes = 3
{model}
[data]
images = "store"
[loss]
augment_prob = 0.12
[run]
steps = 6
batch = 8
log_every = 1
checkpoint_every = 2
{run}
[optimizer]
lr = 5e-3
betas = [0.9, 0.95]
weight_decay = 1e-2
max_grad_norm = 1.0
[ema]
power = 0.6667
max_value = 0.9999
"#
    )
}

/// A tiny VA-VAE of images of 24 pixels; `loss` and `run` are more lines of those tables.
pub fn vae(loss: &str, run: &str) -> String {
    format!(
        r#"
recipe = "vae"
[model]
ch = 8
ch_mult = [1, 2, 2]
num_res_blocks = 1
z_channels = 4
resolution = 24
attn_resolutions = [6]
num_groups = 4
[data]
images = "store"
[loss]
{loss}
[run]
batch = 4
log_every = 1
{run}
[optimizer]
lr = 1e-4
betas = [0.5, 0.9]
"#
    )
}

pub const FILES: [&str; 3] = ["model.safetensors", "ema.safetensors", "optimizer.safetensors"];

pub fn values(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    weights.tensors.iter().map(|(name, view)| (name.clone(), view.to_f32())).collect()
}

/// Every tensor of two runs' latest checkpoints agrees to `tolerance`, relative to its norm.
pub fn assert_close(workspace: &Workspace, a: &str, b: &str, tolerance: f64) {
    let (a, b) = (values(&workspace.latest(a, FILES[0])), values(&workspace.latest(b, FILES[0])));
    assert_eq!(a.len(), b.len());
    for (name, a) in &a {
        let b = &b[name];
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let apart = norm(&mut a.iter().zip(b).map(|(x, y)| (x - y) as f64));
        let size = norm(&mut a.iter().map(|&x| x as f64));
        assert!(apart <= tolerance * (size + 1e-3), "{name}: {apart} of {size}");
    }
}

/// Two runs ended with the same bits.
pub fn assert_same(workspace: &Workspace, a: &str, b: &str) {
    for file in FILES {
        assert_eq!(
            values(&workspace.latest(a, file)),
            values(&workspace.latest(b, file)),
            "{file}"
        );
    }
}
