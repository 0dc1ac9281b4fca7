//! JiT on pixels and DiT-DH on latents.

use tintype::weights::open;

use crate::common::{Workspace, names};
use crate::meanflow::logged;
use crate::runs::{assert_close, assert_same, values};

/// A tiny JiT on the images in `store`, all of them in every step; `loss`, `run` and `rest` are more lines of those tables
/// and of the file.
fn jit(loss: &str, run: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "jit"
[model]
input_size = 16
patch_size = 4
hidden_size = 32
depth = 4
num_heads = 2
bottleneck_dim = 8
in_context_len = 2
in_context_start = 1
num_classes = 3
noise_scale = 2.0
[data]
images = "store"
[loss]
p_std = 0.1
{loss}
[run]
steps = 12
batch = 24
log_every = 1
checkpoint_every = 6
{run}
[optimizer]
lr = 5e-3
betas = [0.9, 0.95]
warmup_steps = 4
warmup_from = "zero"
[[ema]]
decay = 0.9
[[ema]]
decay = 0.5
{rest}
"#
    )
}

#[test]
fn jit_trains_on_pixels() {
    let workspace = Workspace::prepared();
    workspace.write("jit.toml", &jit("", "", "[preview]\nevery = 12\ncount = 3\nsteps = 3\n"));
    workspace.succeeds("train jit.toml --out jit --device cpu --quiet");
    let losses = logged(&workspace, "jit", "loss");
    assert!(losses.len() == 12 && losses[11] < 0.9 * losses[0], "{losses:?}");
    let rates = logged(&workspace, "jit", "lr");
    assert_eq!((rates[0], rates[4], rates[11]), (0.0, 5e-3, 5e-3));
    assert_eq!(names(&workspace.path("jit/previews")), ["00000012.png"]);

    workspace.write("plain.toml", &jit("", "", ""));
    workspace.succeeds("train plain.toml --out parts --device cpu --quiet --steps 7");
    workspace.succeeds("train plain.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "jit", "parts");
    let second = |run: &str| values(&workspace.latest(run, "ema_2.safetensors"));
    assert_eq!(second("jit"), second("parts"));
    assert_ne!(second("jit"), values(&workspace.latest("jit", "ema.safetensors")));
    // The same samples in the same parts, one after the other or side by side.
    workspace.write("micro.toml", &jit("", "accumulate = 2", ""));
    workspace.succeeds("train micro.toml --out micro --device cpu --quiet");
    workspace.succeeds("train plain.toml --out two --device cpu,cpu --quiet");
    assert_close(&workspace, "micro", "two", 1e-4);

    // The run is a model: its configuration has what its tensors do not tell.
    let said = workspace.succeeds("info jit");
    assert!(said.contains("JiT") && said.contains("\"noise_scale\":2.0"), "{said}");
    workspace.succeeds("generate birch --model jit --steps 2 --device cpu --out jit.png");
    assert!(workspace.path("jit.png").exists());
    workspace.write("on.toml", &jit("", "", "[init]\nfrom = \"jit\""));
    workspace.succeeds("train on.toml --out on --device cpu --quiet --steps 1");
    let undropped = jit("label_drop_prob = 0.0", "", "[preview]\nevery = 9\ncfg = 2.0");
    workspace.write("undropped.toml", &undropped);
    let refused = workspace.refused("train undropped.toml --out undropped --device cpu --quiet");
    assert!(refused.contains("preview.cfg 2"), "{refused}");
    // Previews of a published size are guided by default.
    let published = jit("label_drop_prob = 0.0", "", "[preview]\nevery = 9")
        .replace("patch_size = 4\nhidden_size = 32", "patch_size = 16\nhidden_size = 768");
    workspace.write("published.toml", &published);
    let refused = workspace.refused("train published.toml --out published --device cpu --quiet");
    assert!(refused.contains("preview.cfg 3"), "{refused}");
}

#[test]
fn blocks_that_are_computed_again_drop_the_same() {
    let workspace = Workspace::prepared();
    let dropping = "proj_dropout = 0.3";
    workspace.write("without.toml", &jit("", "", ""));
    workspace.write("kept.toml", &jit(dropping, "", ""));
    workspace.write("again.toml", &jit(dropping, "recompute = true", ""));
    for run in ["without", "kept", "again"] {
        workspace.succeeds(&format!("train {run}.toml --out {run} --device cpu --quiet"));
    }
    assert_close(&workspace, "kept", "again", 1e-4);
    let model = |run: &str| values(&workspace.latest(run, "model.safetensors"));
    assert_ne!(model("kept"), model("without"));
}

/// A tiny DiT-DH on the latents in `shards`; `loss`, `run` and `rest` are more lines of those tables and of the file.
fn ditdh(loss: &str, run: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "ditdh"
[model]
input_size = 6
in_channels = 4
hidden_size = [32, 48]
depth = [2, 1]
num_heads = [2, 2]
num_classes = 3
[data]
latents = "shards"
images = "store"
[loss]
{loss}
[run]
steps = 6
batch = 8
log_every = 1
checkpoint_every = 3
{run}
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
max_grad_norm = 1.0
warmup_steps = 2
warmup_from = "full"
schedule = "linear"
final_lr = 2e-4
[ema]
decay = 0.9
{rest}
"#
    )
}

/// Trains on the latents and the autoencoder of a workspace, resumes, and makes an image.
pub fn ditdh_trains_resumes_and_generates(workspace: &Workspace) {
    let preview = "[preview]\nevery = 6\ncount = 3\nsteps = 4\nvae = \"vae\"";
    workspace.write("ditdh.toml", &ditdh("", "", preview));
    workspace.succeeds("train ditdh.toml --out ditdh --device cpu --quiet");
    let rates = logged(workspace, "ditdh", "lr");
    let expected = [1e-3, 1e-3, 1e-3, 8e-4, 6e-4, 4e-4];
    assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
    assert_eq!(names(&workspace.path("ditdh/previews")), ["00000006.png"]);

    workspace.succeeds("train ditdh.toml --out ditdh-parts --device cpu --quiet --steps 4");
    workspace.succeeds("train ditdh.toml --out ditdh-parts --device cpu --quiet");
    assert_same(workspace, "ditdh", "ditdh-parts");
    workspace.write("again.toml", &ditdh("", "recompute = true", ""));
    workspace.succeeds("train again.toml --out ditdh-again --device cpu --quiet");
    assert_close(workspace, "ditdh", "ditdh-again", 1e-4);
    workspace.write("micro.toml", &ditdh("", "accumulate = 2", ""));
    workspace.succeeds("train micro.toml --out ditdh-micro --device cpu --quiet");
    workspace.succeeds("train ditdh.toml --out ditdh-two --device cpu,cpu --quiet");
    assert_close(workspace, "ditdh-micro", "ditdh-two", 1e-4);

    // Frozen embeddings rest and have no moments.
    workspace.write("frozen.toml", &ditdh("freeze_embeddings = true", "", ""));
    workspace.succeeds("train frozen.toml --out ditdh-frozen --device cpu --quiet");
    for (run, trained) in [("ditdh", true), ("ditdh-frozen", false)] {
        let optimizer = workspace.latest(run, "optimizer.safetensors");
        let earlier = workspace.path(run).join("checkpoints/00000003/model.safetensors");
        let earlier = values(&open(&earlier).expect("a checkpoint"));
        let now = values(&workspace.latest(run, "model.safetensors"));
        for name in ["pos_embed", "t_embedder.W"] {
            assert_eq!(optimizer.contains(&format!("first.{name}")), trained, "{run}: {name}");
            assert_eq!(earlier[name] != now[name], trained, "{run}: {name}");
        }
    }

    workspace.succeeds(
        "generate birch --model ditdh --vae vae --stats shards/latents_stats.pt --steps 3 --device cpu --out ditdh.png",
    );
    assert!(workspace.path("ditdh.png").exists());
    workspace.write("on.toml", &ditdh("", "", "[init]\nfrom = \"ditdh\""));
    workspace.succeeds("train on.toml --out ditdh-on --device cpu --quiet --steps 1");
}
