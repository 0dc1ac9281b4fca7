//! Every recipe in a row: store, autoencoder, latents, networks, samples.

use std::process::Stdio;

use tintype_trainer::data::latents::LatentShards;

use crate::common::{Workspace, names};
use crate::flows::ditdh_trains_resumes_and_generates;
use crate::meanflow::trains_resumes_and_generates;
use crate::runs::{assert_close, vae, values};

/// Everything in a row on tiny networks: images → autoencoder → latents → both stages of Hi-DiT →
/// images and samples; and LightningDiT, iMF and DiT-DH on the other kind of latents.
#[test]
fn from_images_to_samples() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 24");
    let run = "steps = 4
checkpoint_every = 2
tensorboard = true";
    let config = vae(
        "disc_start = 3
disc_channels = 8",
        run,
    ) + "[preview]
every = 4
";
    workspace.write("vae.toml", &config);
    let said = workspace.succeeds("train vae.toml --out vae --device cpu --quiet");
    workspace.write("small.toml", "recipe = \"vae\"\n[model]\npreset = \"f16d32\"\n[data]\nimages = \"small\"\n[run]\nsteps = 1\nbatch = 1\n[optimizer]\nlr = 1e-4\nbetas = [0.5, 0.9]\n");
    workspace.succeeds("prepare images --out small --size 16");
    let refused = workspace.refused("train small.toml --out small-run --device cpu --quiet");
    assert!(refused.contains("discriminator") && refused.contains("24"), "{refused}");
    assert!(said.contains("L1 alone") && said.contains("not aligned"), "{said}");
    assert_eq!(names(&workspace.path("vae/previews")), ["00000004.png"]);
    assert!(names(&workspace.path("vae")).iter().any(|n| n.starts_with("events.out.tfevents.")));
    workspace.succeeds("train vae.toml --out parts --device cpu --quiet --steps 2");
    workspace.succeeds("train vae.toml --out parts --device cpu --quiet");
    let files = ["discriminator.safetensors", "optimizer-discriminator.safetensors"];
    for file in ["model.safetensors", "optimizer.safetensors"].into_iter().chain(files) {
        assert_eq!(
            values(&workspace.latest("vae", file)),
            values(&workspace.latest("parts", file))
        );
    }

    workspace.succeeds("encode store --vae vae --out latents.h5 --device cpu");
    workspace.succeeds("encode store --vae vae --out shards --device cpu");
    assert_eq!(
        names(&workspace.path("shards")),
        ["latents_rank00_shard000.safetensors", "latents_stats.pt"]
    );
    // Two processes encode half each; the second one finds everything and counts the statistics.
    for rank in ["0", "1"] {
        let mut command = workspace.command("encode store --vae vae --out halves --device cpu");
        command.env("SLURM_PROCID", rank).env("SLURM_STEP_NUM_TASKS", "2");
        assert!(command.output().expect("it starts").status.success());
    }
    assert_eq!(
        names(&workspace.path("halves")),
        [
            "latents_rank00_shard000.safetensors",
            "latents_rank01_shard000.safetensors",
            "latents_stats.pt"
        ]
    );
    let all =
        |folder: &str| LatentShards::open(&workspace.path(folder)).expect("shards").latents(true);
    assert_eq!(all("shards"), all("halves"));
    let refused = workspace.refused("encode store --vae vae --out shards --device cpu --seed 1");
    assert!(refused.contains("seed was 0, not 1; --force"), "{refused}");

    let hidit = |stage: &str, rest: &str| {
        format!(
            r#"
recipe = "hidit"
[model]
hidden_size = 32
depth = 2
num_heads = 2
in_channels = 4
input_size = 6
patch_size = 1
image = 24
pixel_patch = 4
num_classes = 3
[data]
latents = "latents.h5"
images = "store"
[loss]
stage = {stage}
[run]
steps = 3
batch = 4
log_every = 1
{rest}
[optimizer]
lr = 1e-3
betas = [0.9, 0.999]
max_grad_norm = 1.0
[ema]
decay = 0.9
[preview]
every = 3
count = 3
steps = 4
vae = "vae"
"#
        )
    };
    workspace.write("stage1.toml", &hidit("1", ""));
    workspace.write("stage2.toml", &(hidit("2", "") + "[init]\nfrom = \"stage1\"\n"));
    workspace
        .write("again.toml", &(hidit("2", "recompute = true") + "[init]\nfrom = \"stage1\"\n"));
    let said = workspace.succeeds("train stage1.toml --out stage1 --device cpu --quiet");
    assert!(said.contains("without alignment"), "{said}");
    let pixels = |run: &str| {
        let model = workspace.latest(run, "model.safetensors");
        values(&model)["pixel_predictor.0.weight"].iter().map(|v| v.abs()).sum::<f32>()
    };
    assert_eq!(pixels("stage1"), 0.0, "the pixel parts rest in stage 1");
    workspace.succeeds("train stage2.toml --out stage2 --device cpu --quiet");
    assert!(pixels("stage2") > 0.0);
    workspace.succeeds("train again.toml --out again --device cpu --quiet");
    assert_close(&workspace, "stage2", "again", 1e-4);
    workspace.succeeds("train stage2.toml --out two --device cpu,cpu --quiet");
    assert_close(&workspace, "stage2", "two", 1e-4);
    // A run opens like any model, with its EMA weights and its classes.
    workspace
        .succeeds("generate birch --model stage2 --vae vae --steps 4 --device cpu --out birch.png");
    let said = workspace.succeeds("classes --model stage2");
    assert!(said.contains("cedar"), "{said}");

    let sample = "sample --model stage2 --vae vae --steps 3 --count 6 --device cpu";
    let said = workspace.succeeds(&format!("{sample} --out a --npz a.npz"));
    assert!(said.contains("6 samples in") && said.contains("samples/s"), "{said}");
    let folder = &names(&workspace.path("a"))[0];
    assert_eq!(folder, "stage2_0000003_cfg2-0-1-labelsampling-equal");
    let pngs = |root: &str| -> Vec<Vec<u8>> {
        let folder = workspace.path(root).join(folder);
        let read = |i: usize| std::fs::read(folder.join(format!("{i:06}.png"))).expect("a PNG");
        (0..6).map(read).collect()
    };
    // Two processes and another batch size generate the same images, and a second run only what is
    // missing.
    let mut ranks: Vec<_> = ["0", "1"]
        .iter()
        .map(|rank| {
            let mut command = workspace.command(&format!("{sample} --out b --batch 2"));
            command.env("RANK", rank).env("WORLD_SIZE", "2").stdout(Stdio::null());
            command.spawn().expect("it starts")
        })
        .collect();
    for rank in &mut ranks {
        assert!(rank.wait().expect("it ends").success());
    }
    assert_eq!(pngs("a"), pngs("b"));
    std::fs::remove_file(workspace.path("a").join(folder).join("000004.png"))
        .expect("it was there");
    let said = workspace.succeeds(&format!("{sample} --out a"));
    assert!(said.contains("1 samples in") && said.contains("5 already existed"), "{said}");
    assert_eq!(pngs("a"), pngs("b"));
    let refused = workspace.refused(&format!("{sample} --npz a.npz --seed 1"));
    assert!(refused.contains("seed was 0, not 1"), "{refused}");
    let refused =
        workspace.refused("sample --model stage2 --vae vae --count 7 --out c --device cpu");
    assert!(refused.contains("--count 7"), "{refused}");

    workspace.write(
        "lightningdit.toml",
        r#"
recipe = "lightningdit"
[model]
hidden_size = 32
depth = 2
num_heads = 2
in_channels = 4
input_size = 6
patch_size = 1
num_classes = 3
use_swiglu = true
use_rope = true
use_rmsnorm = true
[data]
latents = "shards"
[run]
steps = 3
batch = 4
log_every = 1
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
[ema]
decay = 0.9
"#,
    );
    workspace.succeeds("train lightningdit.toml --out lightning --device cpu --quiet");
    workspace.succeeds("train lightningdit.toml --out recomputed --device cpu,cpu --quiet");
    assert_close(&workspace, "lightning", "recomputed", 1e-4);
    workspace.succeeds(
        "generate 1 --model lightning --vae vae --stats shards/latents_stats.pt --steps 3 --device cpu --out l.png",
    );
    trains_resumes_and_generates(&workspace);
    ditdh_trains_resumes_and_generates(&workspace);
}
