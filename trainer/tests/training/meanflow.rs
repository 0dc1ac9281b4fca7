//! iMF: average velocities, from latents to an image in one step.

use serde_json::Value;

use crate::common::{Workspace, names};
use crate::runs::{assert_close, assert_same};

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

/// Trains on the latents and the autoencoder of a workspace, resumes, and makes an image.
pub fn trains_resumes_and_generates(workspace: &Workspace) {
    let preview = "[preview]\nevery = 6\ncount = 3\nvae = \"vae\"";
    workspace.write("imf.toml", &imf("", preview));
    workspace.succeeds("train imf.toml --out imf --device cpu --quiet");
    let log = std::fs::read_to_string(workspace.path("imf/log.jsonl")).expect("a log");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 6, "{log}");
    for line in &lines {
        let value = |key: &str| line[key].as_f64().expect(key);
        assert!(value("loss") > 0.0 && value("loss") <= 2.0, "{line}");
        assert!(value("mse_u") > 0.0 && value("mse_v") > 0.0, "{line}");
        assert!(value("grad_norm").is_finite(), "{line}");
    }
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

    workspace.write("on.toml", &imf("", "[init]\nfrom = \"imf\""));
    workspace.succeeds("train on.toml --out imf-on --device cpu --quiet --steps 1");
    let line = "generate birch --model imf --vae vae --steps 1 --device cpu --out imf.png";
    workspace.succeeds(line);
    assert!(workspace.path("imf.png").exists());
    let refused = workspace.refused(&format!("{line} --cfg 0.5"));
    assert!(refused.contains("0.5"), "{refused}");
}
