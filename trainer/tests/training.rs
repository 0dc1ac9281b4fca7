//! Training end to end: real processes, from images to samples.

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tintype::burn::tensor::Device;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{TensorView, Weights, open, snapshot, write_safetensors};
use tintype_trainer::data::latents::LatentShards;
use tintype_trainer::network::dinov2::DinoConfig;
use tintype_trainer::network::vgg::Vgg16;

use common::{TINTYPE, Workspace, names};

/// A tiny HDiT; `run` and `model` are more lines of those tables.
fn hdit(model: &str, run: &str) -> String {
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

const FILES: [&str; 3] = ["model.safetensors", "ema.safetensors", "optimizer.safetensors"];

fn values(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    weights.tensors.iter().map(|(name, view)| (name.clone(), view.to_f32())).collect()
}

/// Every tensor of two runs' latest checkpoints agrees to `tolerance`, relative to its norm.
fn assert_close(workspace: &Workspace, a: &str, b: &str, tolerance: f64) {
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
fn assert_same(workspace: &Workspace, a: &str, b: &str) {
    for file in FILES {
        assert_eq!(
            values(&workspace.latest(a, file)),
            values(&workspace.latest(b, file)),
            "{file}"
        );
    }
}

#[test]
fn an_interrupted_run_equals_an_uninterrupted_one() {
    let workspace = Workspace::prepared();
    // With everything that is random in it: order, noise, augmentation, dropped labels, dropout.
    workspace.write("run.toml", &hdit("dropout_rate = [0.0, 0.2]\nmapping_dropout_rate = 0.1", ""));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet --steps 3");
    assert_eq!(names(&workspace.path("parts/checkpoints")), ["00000002", "00000003"]);
    workspace.succeeds("train run.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "whole", "parts");
    let log = |run: &str| -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
        let line = |l: &str| -> serde_json::Value { serde_json::from_str(l).expect("JSON") };
        let pair = |l: serde_json::Value| {
            (l["step"].as_u64().expect("a step"), l["loss"].as_f64().expect("a loss"))
        };
        text.lines().map(line).map(pair).collect()
    };
    assert_eq!(log("whole"), log("parts"));
    assert_eq!(log("whole").len(), 6);
    // And the loss falls, given time.
    workspace.succeeds("train run.toml --out whole --device cpu --quiet --steps 60");
    let losses = log("whole");
    let mean = |part: &[(u64, f64)]| part.iter().map(|l| l.1).sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[40..]) < 0.8 * mean(&losses[..10]), "{losses:?}");
}

#[test]
fn data_parallelism_accumulation_and_recomputation_change_nothing() {
    let workspace = Workspace::prepared();
    workspace.write("one.toml", &hdit("", ""));
    workspace.write("micro.toml", &hdit("", "accumulate = 4"));
    workspace.write("again.toml", &hdit("", "recompute = true"));
    workspace.succeeds("train one.toml --out one --device cpu --quiet");
    workspace.succeeds("train one.toml --out two --device cpu,cpu --quiet");
    workspace.succeeds("train micro.toml --out micro --device cpu --quiet");
    workspace.succeeds("train again.toml --out again --device cpu --quiet");
    // The same samples and the same sums in another order.
    for other in ["two", "micro", "again"] {
        assert_close(&workspace, "one", other, 1e-4);
    }
    let mut launched = workspace.command("train one.toml --out x --device cpu");
    let output = launched.env("RANK", "0").env("WORLD_SIZE", "2").output().expect("it starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("start it once"));
    let refused = workspace.refused("train one.toml --out three --device cpu,cpu,cpu --quiet");
    assert!(refused.contains("run.batch = 8"), "{refused}");
}

#[test]
fn a_run_killed_at_any_time_resumes_from_its_last_checkpoint() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", "keep_last = 1").replace("every = 2", "every = 1"));
    workspace.succeeds("train run.toml --out whole --device cpu --quiet --steps 600");
    let mut last = 0;
    for kill in 0..20u64 {
        let mut child = workspace
            .command("train run.toml --out killed --device cpu --quiet --steps 600")
            .spawn()
            .expect("it starts");
        // A checkpoint is written after every step, so most moments are inside of one.
        std::thread::sleep(Duration::from_millis(60 + 37 * kill % 111));
        let _ = child.kill();
        let _ = child.wait();
        let Ok(entries) = std::fs::read_dir(workspace.path("killed/checkpoints")) else { continue };
        let steps: Vec<u64> = entries
            .filter_map(|e| e.expect("an entry").file_name().to_str()?.parse().ok())
            .collect();
        let newest = steps.iter().copied().max().unwrap_or(0);
        assert!(newest >= last, "step {newest} after {last}");
        last = newest;
        for step in steps {
            let folder = workspace.path(&format!("killed/checkpoints/{step:08}"));
            for file in FILES {
                open(&folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
    assert!((1..600).contains(&last), "killed while it ran, at step {last}");
    workspace.succeeds("train run.toml --out killed --device cpu --quiet --steps 600");
    assert_same(&workspace, "whole", "killed");
    assert!(names(&workspace.path("killed/checkpoints")).iter().all(|n| !n.contains("tmp")));
}

/// A run may not write files larger than this many kibibytes.
#[cfg(unix)]
fn with_small_files(workspace: &Workspace, line: &str, kibibytes: u32) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec {TINTYPE} {line}", kibibytes * 2);
    Command::new("sh")
        .args(["-c", &script])
        .current_dir(workspace.path(""))
        .output()
        .expect("sh starts")
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_last_checkpoint() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 2");
    let output = with_small_files(&workspace, "train run.toml --out run --device cpu --quiet", 16);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("cannot be written; earlier ones are whole"), "{errors}");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000002"]);
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    assert_eq!(names(&workspace.path("run/checkpoints")), ["00000004", "00000006"]);
}

#[test]
fn invalid_configurations_are_errors_before_training() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.write("key.toml", &hdit("", "chekpoint_every = 3"));
    let says = |line: &str, words: &[&str]| {
        let sentence = workspace.refused(line);
        for word in words {
            assert!(sentence.contains(word), "{sentence:?} lacks {word:?}");
        }
    };
    says("train key.toml --out x --device cpu", &["run.chekpoint_every", "checkpoint_every"]);
    says("train no.toml --out x --device cpu", &["no.toml"]);
    workspace.write("classes.toml", &hdit("", "").replace("num_classes = 3", "num_classes = 2"));
    says("train classes.toml --out x --device cpu", &["3 classes", "num_classes = 2"]);
    workspace.write("size.toml", &hdit("", "").replace("[16, 16]", "[32, 32]"));
    says("train size.toml --out x --device cpu", &["16 pixels", "32"]);
    workspace.succeeds("train run.toml --out run --device cpu --quiet --steps 1");
    workspace.write("wide.toml", &hdit("", "").replace("[16, 32]", "[32, 32]"));
    says("train wide.toml --out run --device cpu", &["another network", "--out"]);
    workspace.write("batch.toml", &hdit("", "").replace("batch = 8", "batch = 4"));
    says("train batch.toml --out run --device cpu", &["batch 8", "4"]);
    // A store that was damaged after it was made.
    let shard = workspace.path("store/images_00000.safetensors");
    let mut bytes = std::fs::read(&shard).expect("a shard");
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    std::fs::write(&shard, &bytes).expect("it is written");
    says("train run.toml --out x --device cpu", &["images_00000", "checksum", "prepare"]);
    std::fs::remove_file(&shard).expect("it is deleted");
    says("train run.toml --out x --device cpu", &["images_00000"]);
    workspace.succeeds("prepare images --out store --size 16");
    workspace.succeeds("train run.toml --out x --device cpu --quiet --steps 1");
}

#[cfg(unix)]
#[test]
fn sigint_and_sigterm_write_a_checkpoint_and_the_run_resumes() {
    let workspace = Workspace::prepared();
    workspace.write(
        "run.toml",
        &hdit("", "").replace("checkpoint_every = 2", "checkpoint_every = 100000"),
    );
    for signal in ["-INT", "-TERM"] {
        let mut child = workspace
            .command("train run.toml --out run --device cpu --quiet --steps 100000")
            .spawn()
            .expect("it starts");
        std::thread::sleep(Duration::from_millis(700));
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
    }
    let steps: Vec<u64> = names(&workspace.path("run/checkpoints"))
        .iter()
        .map(|n| n.parse().expect("only whole checkpoints"))
        .collect();
    assert!(steps.len() == 2 && steps[0] > 0 && steps[1] > steps[0], "{steps:?}");
}

#[test]
fn steps_with_non_finite_gradients_are_skipped_and_counted() {
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", "").replace("lr = 5e-3", "lr = 1e25"));
    workspace.succeeds("train run.toml --out run --device cpu --quiet");
    let log = std::fs::read_to_string(workspace.path("run/log.jsonl")).expect("a log");
    let last: serde_json::Value =
        serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert!(last["skipped"].as_f64().expect("a count") >= 3.0, "{last}");
    // A checkpoint without optimizer state can be resumed, too.
    workspace.write("all.toml", &hdit("", "").replace("sigma_data = 0.5", "sigma_data = 1e-300"));
    workspace.succeeds("train all.toml --out all --device cpu --quiet --steps 2");
    workspace.succeeds("train all.toml --out all --device cpu --quiet --steps 3");
}

/// Frozen loss networks with random weights: loaded from files, with their losses in the total.
#[test]
fn loss_networks_are_used_if_their_files_are_given() {
    let workspace = Workspace::new();
    let device = Device::flex();
    let file = |name: &str, tensors: BTreeMap<String, TensorView>| {
        let bytes = write_safetensors(&tensors, &BTreeMap::new()).expect("it fits");
        std::fs::write(workspace.path(name), bytes).expect("it is written");
    };
    let dino = DinoConfig {
        embed_dim: 64,
        depth: 1,
        num_heads: 1,
        patch_size: 14,
        mlp_ratio: 4,
        img_size: 70,
        registers: 0,
        swiglu: false,
    };
    // Random everywhere: tokens of zeros would have no direction to align with.
    let random = |(name, view): (String, TensorView)| {
        let key = ImageKey { seed: view.len() as u64, image: 0 };
        let values: Vec<f32> =
            normals(key, Stream::Noise, 0, view.len()).iter().map(|v| v * 0.2).collect();
        (name, TensorView::from_f32(view.shape.clone(), &values).expect("it fits"))
    };
    let weights = snapshot(&dino.init(&device).expect("it fits"));
    file("dino.safetensors", weights.into_iter().map(random).collect());
    file("vgg.safetensors", snapshot(&Vgg16::new(&device)));
    let lin = [64, 128, 256, 512, 512].into_iter().enumerate().map(|(k, c)| {
        let view = TensorView::from_f32(vec![1, c, 1, 1], &vec![0.1; c]).expect("it fits");
        (format!("lin{k}.model.1.weight"), view)
    });
    file("lin.safetensors", lin.collect());
    let vae = |ch_mult: &str, data: &str, loss: &str| {
        format!(
            r#"
recipe = "vae"
[model]
ch = 4
ch_mult = {ch_mult}
num_res_blocks = 1
z_channels = 4
resolution = 32
attn_resolutions = []
num_groups = 2
[data]
{data}
[loss]
disc_start = 1
disc_channels = 4
{loss}
[run]
steps = 2
batch = 2
log_every = 1
[optimizer]
lr = 1e-4
betas = [0.5, 0.9]
"#
        )
    };
    let last = |run: &str, key: &str| -> f64 {
        let log = std::fs::read_to_string(workspace.path(run).join("log.jsonl")).expect("a log");
        let line: serde_json::Value =
            serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        line[key].as_f64().unwrap_or_else(|| panic!("{run} has no {key}: {line}"))
    };
    workspace.succeeds("prepare images --out small --size 32");
    let vgg = "images = \"small\"\nvgg = \"vgg.safetensors\"";
    let both = format!("{vgg}\nlpips = \"lin.safetensors\"");
    workspace.write("lpips.toml", &vae("[1, 1]", &both, "crop = 24"));
    workspace.succeeds("train lpips.toml --out lpips --device cpu --quiet");
    assert!(last("lpips", "perceptual") > 0.0);
    workspace.write("half.toml", &vae("[1, 1]", vgg, ""));
    let refused = workspace.refused("train half.toml --out half --device cpu --quiet");
    assert!(refused.contains("data.lpips"), "{refused}");

    workspace.succeeds("prepare images --out large --size 256");
    let aligned = "images = \"large\"\nteacher = \"dino.safetensors\"";
    workspace.write("vf.toml", &vae("[1, 1, 1, 1, 1]", aligned, "vf_weight = 0.1"));
    workspace.succeeds("train vf.toml --out vf --device cpu --quiet");
    assert!(last("vf", "vf_weight") > 0.0);
    assert!(workspace.latest("vf", FILES[0]).tensors.contains_key("linear_proj.weight"));
    workspace.succeeds("encode large --vae vf --out moments.h5 --device cpu");
    let repa = r#"
recipe = "hidit"
[model]
hidden_size = 32
depth = 2
num_heads = 2
in_channels = 4
input_size = 16
patch_size = 1
image = 256
pixel_patch = 16
num_classes = 3
encoder_depth = 1
projector_dim = 16
[data]
latents = "moments.h5"
images = "large"
teacher = "dino.safetensors"
[run]
steps = 2
batch = 2
log_every = 1
[optimizer]
lr = 1e-3
betas = [0.9, 0.999]
[ema]
decay = 0.9
"#;
    workspace.write("repa.toml", repa);
    workspace.succeeds("train repa.toml --out repa --device cpu --quiet");
    assert!((-1.0..=1.0).contains(&last("repa", "repa")));
    workspace.write("again.toml", &repa.replace("batch = 2", "batch = 2\nrecompute = true"));
    workspace.succeeds("train again.toml --out again --device cpu --quiet");
    assert_close(&workspace, "repa", "again", 1e-4);
    // Mixed precision: the same losses to bf16's three digits, float32 weights.
    workspace.write("bf16.toml", &repa.replace("batch = 2", "batch = 2\nprecision = \"bf16\""));
    workspace.succeeds("train bf16.toml --out bf16 --device cpu --quiet");
    let ratio = last("bf16", "loss") / last("repa", "loss");
    assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
    let small =
        repa.replace("image = 256", "image = 128").replace("pixel_patch = 16", "pixel_patch = 8");
    workspace.write("small.toml", &small);
    let refused = workspace.refused("train small.toml --out x --device cpu --quiet");
    assert!(refused.contains("256 pixels") && refused.contains("128"), "{refused}");
}

/// Everything in a row on tiny networks: images → autoencoder → latents → both stages of Hi-DiT →
/// images and samples; and LightningDiT on the other kind of latents.
#[test]
fn from_images_to_samples() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 24");
    workspace.write(
        "vae.toml",
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
disc_start = 3
disc_channels = 8
[run]
steps = 4
batch = 4
log_every = 1
checkpoint_every = 2
tensorboard = true
[optimizer]
lr = 1e-4
betas = [0.5, 0.9]
[preview]
every = 4
"#,
    );
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
    assert!(refused.contains("other weights, images, seed"), "{refused}");

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
}
