//! iMF and pMF: average velocities, from latents or pixels to an image in one step.

use serde_json::Value;
use tintype::weights::{Dtype, open};

use crate::common::{Workspace, names};
use crate::runs::{assert_close, assert_same, values};

/// A tiny iMF on the latents in `shards`; `optimizer` and `rest` are more lines of that table and of the file.
fn imf(optimizer: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "meanflow"
[model]
hidden_size = 32
depth = 2
aux_head_depth = 1
num_heads = 2
mlp_hidden = 40
in_channels = 4
input_size = 6
patch_size = 1
num_classes = 3
num_class_tokens = 2
[data]
latents = "shards"
images = "store"
[run]
steps = 6
batch = 8
log_every = 1
checkpoint_every = 3
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
{optimizer}
[ema]
decay = 0.9
{rest}
"#
    )
}

/// A value in every line of a run's log.
pub fn logged(workspace: &Workspace, run: &str, key: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
    let value = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line[key].as_f64().unwrap_or_else(|| panic!("{run} has no {key}: {line}"))
    };
    log.lines().map(value).collect()
}

/// Each sample's losses are divided by themselves.
fn assert_sound(workspace: &Workspace, run: &str, steps: usize) {
    let loss = logged(workspace, run, "loss");
    assert_eq!(loss.len(), steps);
    assert!(loss.iter().all(|&loss| loss > 0.0 && loss <= 2.0), "{loss:?}");
    for key in ["mse_u", "mse_v"] {
        assert!(logged(workspace, run, key).iter().all(|&mse| mse > 0.0), "{key}");
    }
    assert!(logged(workspace, run, "grad_norm").iter().all(|norm| norm.is_finite()));
}

/// Trains on the latents and the autoencoder of a workspace, resumes, and makes an image.
pub fn trains_resumes_and_generates(workspace: &Workspace) {
    let preview = "[preview]\nevery = 6\ncount = 3\nvae = \"vae\"";
    workspace.write("imf.toml", &imf("", preview));
    workspace.succeeds("train imf.toml --out imf --device cpu --quiet");
    assert_sound(workspace, "imf", 6);
    assert_eq!(names(&workspace.path("imf/previews")), ["00000006.png"]);
    let ema = workspace.latest("imf", "ema.safetensors");
    assert!(ema.tensors.keys().any(|name| name.starts_with("v_heads.0.")));

    workspace.succeeds("train imf.toml --out imf-parts --device cpu --quiet --steps 4");
    workspace.succeeds("train imf.toml --out imf-parts --device cpu --quiet");
    assert_same(workspace, "imf", "imf-parts");
    // Which samples are the first ones does not depend on who computes them. Differences over small steps, and Adam,
    // enlarge rounding.
    workspace.succeeds("train imf.toml --out imf-two --device cpu,cpu --quiet");
    assert_close(workspace, "imf", "imf-two", 0.1);

    workspace.write("muon.toml", &imf("muon = true", ""));
    workspace.succeeds("train muon.toml --out muon --device cpu --quiet");
    workspace.succeeds("train muon.toml --out muon-parts --device cpu --quiet --steps 4");
    workspace.succeeds("train muon.toml --out muon-parts --device cpu --quiet");
    assert_same(workspace, "muon", "muon-parts");
    let state = workspace.latest("muon", "optimizer.safetensors");
    let has = |name: &str| state.tensors.contains_key(name);
    let matrix = "u_heads.0.attn.q_proj._flax_linear.weight";
    assert!(has(&format!("first.{matrix}")) && !has(&format!("second.{matrix}")));
    assert!(has("second.class_tokens"));

    // Mixed precision: losses to bf16's digits, of which a derivative in bf16 would leave nothing; float32 weights.
    let mixed = imf("", "").replace("batch = 8", "batch = 8\nprecision = \"bf16\"");
    workspace.write("bf16.toml", &mixed);
    workspace.succeeds("train bf16.toml --out bf16 --device cpu --quiet");
    for key in ["mse_u", "mse_v"] {
        let pairs = logged(workspace, "bf16", key).into_iter().zip(logged(workspace, "imf", key));
        for (mixed, exact) in pairs {
            assert!((mixed / exact - 1.0).abs() < 0.05, "{key}: {mixed} and {exact}");
        }
    }
    let weights = workspace.latest("bf16", "model.safetensors");
    assert!(weights.tensors.values().all(|view| view.dtype == Dtype::F32));

    workspace.write("on.toml", &imf("", "[init]\nfrom = \"imf\""));
    workspace.succeeds("train on.toml --out imf-on --device cpu --quiet --steps 1");
    let line = "generate birch --model imf --vae vae --steps 1 --device cpu --out imf.png";
    workspace.succeeds(line);
    assert!(workspace.path("imf.png").exists());
    let refused = workspace.refused(&format!("{line} --cfg 0.5"));
    assert!(refused.contains("0.5"), "{refused}");
}

/// A tiny pMF on the images in `store`, all of them in every step; `run` and `rest` are more lines of that table and of
/// the file.
fn pmf(run: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "meanflow"
[model]
hidden_size = 32
depth = 2
aux_head_depth = 1
num_heads = 2
mlp_hidden = 40
in_channels = 3
input_size = 16
patch_size = 4
pca_channels = 8
noise_scale = 2.0
num_classes = 3
num_class_tokens = 2
[data]
images = "store"
[loss]
p_mean = 0.8
p_std = 0.1
[run]
steps = 12
batch = 24
log_every = 1
checkpoint_every = 6
{run}
[optimizer]
lr = 5e-2
betas = [0.9, 0.95]
muon = true
[[ema]]
half_life = 8
[[ema]]
half_life = 2
{rest}
"#
    )
}

#[test]
fn pmf_trains_on_pixels() {
    let workspace = Workspace::prepared();
    workspace.write("pmf.toml", &pmf("", "[preview]\nevery = 12\ncount = 3\n"));
    let said = workspace.succeeds("train pmf.toml --out pmf --device cpu --quiet");
    assert!(said.contains("without LPIPS") && said.contains("ConvNeXt V2"), "{said}");
    assert_sound(&workspace, "pmf", 12);
    for key in ["mse_u", "mse_v"] {
        let mse = logged(&workspace, "pmf", key);
        assert!(mse[11] < 0.8 * mse[0], "{key}: {mse:?}");
    }
    assert_eq!(names(&workspace.path("pmf/previews")), ["00000012.png"]);
    assert!(workspace.latest("pmf", "ema.safetensors").contains("v_heads.0.attn_scale"));

    workspace.write("parts.toml", &pmf("", ""));
    workspace.succeeds("train parts.toml --out parts --device cpu --quiet --steps 7");
    workspace.succeeds("train parts.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "pmf", "parts");
    let second = |run: &str| values(&workspace.latest(run, "ema_2.safetensors"));
    assert_eq!(second("pmf"), second("parts"));
    assert_ne!(second("pmf"), values(&workspace.latest("pmf", "ema.safetensors")));
    // The same samples in the same parts, one after the other or side by side.
    workspace.write("micro.toml", &pmf("accumulate = 2", ""));
    workspace.succeeds("train micro.toml --out micro --device cpu --quiet");
    workspace.succeeds("train parts.toml --out two --device cpu,cpu --quiet");
    assert_close(&workspace, "micro", "two", 1e-4);
    workspace.write("other.toml", &pmf("", "").replace("half_life = 8", "half_life = 4"));
    let refused = workspace.refused("train other.toml --out parts --device cpu --quiet");
    assert!(refused.contains("ema.0.half_life 8.0 → 4.0"), "{refused}");

    // The run is a model: its configuration has what its tensors do not tell.
    let said = workspace.succeeds("info pmf");
    assert!(said.contains("pMF") && said.contains("\"noise_scale\":2.0"), "{said}");
    workspace.succeeds("generate birch --model pmf --steps 1 --device cpu --out pmf.png");
    assert!(workspace.path("pmf.png").exists());
    let other = "generate birch --model pmf --ema 2 --steps 1 --device cpu --out other.png";
    workspace.succeeds(other);
    let picture = |name: &str| std::fs::read(workspace.path(name)).expect("a picture");
    assert_ne!(picture("pmf.png"), picture("other.png"));
    let refused = workspace.refused("info pmf --ema 3");
    assert!(refused.ends_with("its averages are ema.safetensors, ema_2.safetensors"), "{refused}");
    let line = "sample --model pmf --count 6 --steps 2 --device cpu --out samples";
    let said = workspace.succeeds(line);
    assert!(said.contains("6 samples in"), "{said}");
    let file = open(&workspace.path("pmf")).expect("a run");
    assert!(file.metadata["classes"].contains("cedar"));
    workspace.write("on.toml", &pmf("", "[init]\nfrom = \"pmf\""));
    workspace.succeeds("train on.toml --out on --device cpu --quiet --steps 1");
}
