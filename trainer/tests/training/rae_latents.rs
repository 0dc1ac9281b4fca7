//! DiT-DH on images that RAE's encoder sees as it trains, against the same latents from files.

use tintype_test_models::rae;

use crate::common::{Workspace, names};
use crate::meanflow::logged;
use crate::rae_decoder::write_encoder;
use crate::runs::{assert_close, assert_same};
use crate::settings::write_extractor;

const CACHED: &str = "latents = \"latents\"";
const IMAGES: &str =
    "images = \"store\"\nencoder = \"encoder.safetensors\"\nstats = \"latents/latents_stats.pt\"";

/// A tiny DiT-DH of images of 32 pixels; `data`, `loss`, `run` and `rest` are lines of those tables and of the file.
fn ditdh(data: &str, loss: &str, run: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "ditdh"
[model]
input_size = 2
in_channels = 64
hidden_size = [32, 48]
depth = [1, 1]
num_heads = [2, 2]
num_classes = 3
[data]
{data}
[loss]
{loss}
[run]
steps = 4
batch = 8
log_every = 1
checkpoint_every = 2
{run}
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
[ema]
decay = 0.9
{rest}
"#
    )
}

/// Images, their encoder, and their latents with statistics of each position.
fn encoded() -> Workspace {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 32");
    write_encoder(&workspace, 1, 4);
    workspace.succeeds("encode store --vae encoder.safetensors --out latents --device cpu");
    workspace
}

/// The losses of two runs agree.
fn assert_near(a: &[f64], b: &[f64]) {
    assert_eq!((a.len(), b.len()), (4, 4));
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4 * a.abs();
    assert!(a.iter().zip(b).all(is_near), "{a:?} and {b:?}");
}

#[test]
fn images_train_as_their_cached_latents() {
    let workspace = encoded();
    let losses = |run: &str, data: &str, loss: &str| {
        workspace.write("run.toml", &ditdh(data, loss, "", ""));
        workspace.succeeds(&format!("train run.toml --out {run} --device cpu --quiet"));
        logged(&workspace, run, "loss")
    };
    let plain = losses("plain", IMAGES, "flips = false");
    assert_near(&plain, &losses("plain-cached", CACHED, "flips = false"));
    // The encoder sees what was cached as the latents of flipped images.
    let flipped = losses("flipped", IMAGES, "");
    assert_near(&flipped, &losses("flipped-cached", CACHED, ""));
    let apart = plain.iter().zip(&flipped).map(|(a, b)| (a - b).abs() / a);
    assert!(apart.fold(0.0, f64::max) > 1e-3, "{plain:?} and {flipped:?}");

    workspace.write("run.toml", &ditdh(IMAGES, "", "", ""));
    workspace.succeeds("train run.toml --out parts --device cpu --quiet --steps 3");
    workspace.succeeds("train run.toml --out parts --device cpu --quiet");
    assert_same(&workspace, "flipped", "parts");
    // Each device has an encoder of its own.
    workspace.write("micro.toml", &ditdh(IMAGES, "", "accumulate = 2", ""));
    workspace.succeeds("train micro.toml --out micro --device cpu --quiet");
    workspace.succeeds("train run.toml --out two --device cpu,cpu --quiet");
    assert_close(&workspace, "micro", "two", 1e-4);

    // Cached latents, other statistics and another encoder are other data.
    let refused = |data: &str| {
        workspace.write("other.toml", &ditdh(data, "", "", ""));
        let said = workspace.refused("train other.toml --out parts --device cpu --quiet");
        assert!(said.contains("data.fingerprint"), "{said}");
    };
    refused(CACHED);
    let others = rae::statistics_file([64, 2, 2]);
    std::fs::write(workspace.path("stat.pt"), others).expect("it is written");
    refused(&IMAGES.replace("latents/latents_stats.pt", "stat.pt"));
    write_encoder(&workspace, 2, 4);
    refused(IMAGES);
}

#[test]
fn previews_and_evaluations_have_statistics_of_positions() {
    let workspace = encoded();
    write_extractor(&workspace);
    std::fs::create_dir(workspace.path("decoder")).expect("a folder");
    for (name, content) in [
        ("decoder/model.pt", rae::decoder_file()),
        ("decoder/config.json", rae::decoder_json().into_bytes()),
    ] {
        std::fs::write(workspace.path(name), content).expect("it is written");
    }
    let preview = "[preview]\nevery = 2\ncount = 3\nsteps = 3\nvae = \"decoder\"";
    let evaluate = "[evaluate]\nevery = 2\nsamples = 4\nreference = \"store\"\ndinov2 = \"dino.safetensors\"\nsteps = 3";
    let rest = format!("{preview}\n{evaluate}");
    for (run, data) in [("fly", IMAGES), ("cached", CACHED)] {
        workspace.write("run.toml", &ditdh(data, "", "", &rest));
        let line = format!("train run.toml --out {run} --device cpu --quiet --steps 2");
        workspace.succeeds(&line);
        assert_eq!(names(&workspace.path(&format!("{run}/previews"))), ["00000002.png"]);
        let log = std::fs::read_to_string(workspace.path(&format!("{run}/log.jsonl")));
        assert!(log.expect("a log").contains("\"fd_dinov2\""));
    }
    let stats = "--stats latents/latents_stats.pt --steps 2 --device cpu";
    workspace.succeeds(&format!("generate birch --model fly --vae decoder {stats} --out x.png"));
    assert!(workspace.path("x.png").exists());
}

#[test]
fn images_that_do_not_fit_the_network_are_refused() {
    let workspace = encoded();
    workspace.succeeds("prepare images --out small --size 24");
    let others = rae::statistics_file([64, 3, 3]);
    std::fs::write(workspace.path("stat.pt"), others).expect("it is written");
    let config = ditdh(IMAGES, "", "", "");
    for (from, to, words) in [
        ("\"store\"", "\"small\"", ["24 pixels", "those of 32"]),
        ("latents/latents_stats.pt", "stat.pt", ["[64, 3, 3]", "[64, 2, 2]"]),
        ("[loss]", "encoder_input_size = 42\n[loss]", ["[64, 3, 3]", "encoder_input_size"]),
        ("[loss]", "encoder_input_size = 30\n[loss]", ["30 pixels", "14"]),
        ("num_classes = 3", "num_classes = 2", ["3 classes", "num_classes = 2"]),
        (
            "num_classes = 3",
            "num_classes = 3\nclass_dropout_prob = 0.0",
            ["no unconditional", "cfg 2"],
        ),
    ] {
        assert!(config.contains(from), "{from}");
        let text = format!("{}[preview]\nevery = 9\ncfg = 2.0\n", config.replace(from, to));
        workspace.write("refused.toml", &text);
        let said = workspace.refused("train refused.toml --out x --device cpu --quiet");
        assert!(words.iter().all(|word| said.contains(word)), "{to}: {said}");
    }
    // Images of another size are resized where that is said.
    let small = IMAGES.replace("store", "small") + "\nencoder_input_size = 28";
    workspace.write("small.toml", &ditdh(&small, "", "", ""));
    workspace.succeeds("train small.toml --out small-run --device cpu --quiet --steps 1");
}
