//! What needs no weights is refused before the question to download them, and before any request.

use tintype::model::vavae::VaeConfig;
use tintype_test_models::configs::autoencoder;

use crate::published::{Scene, toml};

/// Each of these commands is refused for its reason, though it may download.
fn refused(scene: &Scene, commands: &[(&str, &str)]) {
    let asked = scene.hub.requests().len();
    for (line, reason) in commands {
        let error = scene.refused(&format!("{line} --device cpu --yes"));
        assert!(error.contains(reason), "{line}: {error}");
    }
    assert_eq!(scene.hub.requests().len(), asked, "something was asked for");
}

#[test]
fn settings_outputs_and_paths_of_generate_and_sample() {
    let scene = Scene::new();
    scene.workspace.write("taken", "a file");
    let commands = [
        ("sample --model tiny-joint --count 12 --out x --cfg -1", "--cfg -1 is not 0 or more"),
        ("sample --model tiny-joint --count 12 --out x --rho 0", "--rho 0 is not between 0.1"),
        (
            "sample --model tiny-joint --count 12 --out x --cfg-interval 2 1",
            "2 1 is not an interval",
        ),
        ("sample --model tiny-joint --count 12 --out x --sampler none", "\"none\" is unknown"),
        ("sample --model tiny-joint --count 12 --out taken/x", "--out taken/x cannot be written"),
        ("sample --model tiny-joint --count 12 --npz taken/x.npz", "--npz taken/x.npz cannot"),
        ("sample --model tiny-joint --count 12 --npz x.zip", "does not end in .npz"),
        ("sample --model tiny-joint --count 12 --out x --vae no.pt", "--vae no.pt: there is no"),
        ("generate 3 --model tiny-joint --tau 2", "--tau 2 is not between 0 and 1"),
        ("generate 3 --model tiny-joint --steps 0", "--steps 0 is not"),
        ("generate 3 --model tiny-joint --cfg-channels 0", "--cfg-channels 0 is not"),
        ("generate 3 --model tiny-joint --names no.txt", "--names no.txt: there is no such file"),
        ("compare emoji tiny-joint,vae=no.pt --class 3", "vae=no.pt: there is no such file"),
        ("compare emoji tiny-vae --class 3", "model=tiny-vae: it is not a network"),
        ("generate 3 4 --model tiny-joint --grid 0 --out x.png", "need a folder or a grid"),
        ("generate 3 --model tiny-joint --out taken/x", "--out taken/x cannot be written"),
    ];
    refused(&scene, &commands);
    // Of some networks more is known.
    let known = [
        ("sample --model lightningdit-xl-1-800ep --count 7 --out x", "the 1000 classes"),
        ("sample --model lightningdit-xl-1-800ep --count 1000 --out x --tau 0.5", "not apply to"),
        ("sample --model imf-b-2 --count 1000 --out x --sampler euler", "does not fit iMF"),
        ("generate crane --model lightningdit-xl-1-800ep", "134 crane; 517 crane"),
        ("compare emoji lightningdit-xl-1-800ep --class crane", "134 crane; 517 crane"),
        ("compare emoji imf-b-2,cfg=0.5 --class 3", "imf-b-2: cfg 0.5 is not 1 or more"),
        ("generate 3 --model imf-b-2 --cfg 0.5", "--cfg 0.5 is not 1 or more"),
        ("generate 3 --model imf-b-2 --compare", "--compare needs a Hi-DiT"),
    ];
    refused(&scene, &known);
}

#[test]
fn sets_metrics_and_outputs_of_evaluate_and_sample() {
    let scene = Scene::new();
    scene.workspace.write("taken", "a file");
    scene.workspace.write("my.npz", "the only copy of a thesis");
    scene.succeeds("prepare images --out store --size 12");
    let inception = "--inception hub:me/inception/inception.pth";
    let compared = [
        ("nowhere --reference images", "nowhere"),
        ("images --reference no.npz", "--reference no.npz: there is no such file"),
        ("images --reference taken", "taken"),
        ("images --reference images --count 25", "24 images, not 25"),
        ("images --metrics fid", "fid needs a reference"),
        ("images --reference images --subsets 1", "--subsets 1 is not 2 or more"),
        ("images --reference images --subsets 13", "more than half of the 24 samples"),
        ("images --reference images --subsets 5 --metrics is,sfid", "--subsets has no effect"),
        ("images --reference images --metrics fd-dinov2", "fd-dinov2 needs the weights"),
        ("images --reference hub:me/batch/b.npz --metrics fd-clip", "fd-clip needs the weights"),
        ("images --reference images --save-stats x.zip", "does not end in .npz"),
        ("images --reference images --save-stats my.npz", "--save-stats replaces no other file"),
        ("images --reference images --save-stats x.npz --output-json ./x.npz", "would replace"),
        ("images --reference x.npz --save-stats x.npz", "--save-stats would replace --reference"),
        ("images --count 1 --metrics is --save-stats x.npz", "at least 2 images; images has 1"),
        ("images --reference images --save-stats taken/x.npz", "--save-stats taken/x.npz cannot"),
        ("images --reference images --output-json taken/x.json", "--output-json taken/x.json"),
        ("images --reference images --output-json images", "--output-json images is a folder"),
        ("images --reference images --cache taken/x", "--cache taken/x cannot be written"),
        ("images --reconstruct tiny-vae", "tintype prepare"),
        ("store --reconstruct tiny-vae --count 0", "store has no images"),
        ("store --reconstruct tiny-vae --count 25", "store has 24 images, not 25"),
        ("store --reconstruct tiny-vae --count 1", "rFID needs at least 2 images"),
        ("store --reconstruct tiny-vae --vgg hub:me/vgg/vgg.pth", "too small for LPIPS"),
        ("store --reconstruct tiny-vae --names no.txt", "--names no.txt: there is no such file"),
        ("store --reconstruct tiny-vae --pairs taken/x.png", "--pairs taken/x.png cannot"),
        ("store --reconstruct tiny-vae --output-json taken/x.json", "--output-json taken/x.json"),
    ];
    let compared = compared.map(|(rest, reason)| (format!("evaluate {rest} {inception}"), reason));
    let sample = "sample --model tiny-joint --count 12";
    let sampled = [
        (format!("{sample} --evaluate images"), "needs a feature extractor"),
        (format!("{sample} --evaluate hub:me/batch/b.npz"), "needs a feature extractor"),
        (format!("{sample} --evaluate no.npz {inception}"), "--evaluate no.npz: there is no such"),
        (
            format!("{sample} --evaluate images {inception} --npz x.npz --save-stats x.npz"),
            "--save-stats would replace --npz",
        ),
        (format!("{sample} --evaluate images {inception} --metrics kd-clip"), "kd-clip needs the"),
        (
            format!("{sample} --evaluate images {inception} --output-json taken/x.json"),
            "--output-json taken/x.json cannot be written",
        ),
        (format!("{sample} --out x --metrics fid"), "--metrics has no effect without --evaluate"),
    ];
    let commands: Vec<(&str, &str)> =
        compared.iter().chain(&sampled).map(|(line, reason)| (line.as_str(), *reason)).collect();
    refused(&scene, &commands);
}

#[test]
fn samples_of_another_making() {
    let scene = Scene::new();
    let line = "sample --model tiny-joint --count 12 --steps 2 --out x --npz x.npz";
    scene.succeeds(&format!("{line} --device cpu --yes"));
    scene.succeeds("models --remove tiny-joint --yes");
    let other = |change: &str| format!("{line} {change}");
    let folder = line.replace(" --npz x.npz", " --seed 1");
    let commands = [
        (other("--seed 1"), "seed was 0, not 1; --force replaces it"),
        (folder, "seed was 0, not 1"),
        (line.replace("--out x ", "--labels random "), "labels was \"equal\", not \"random\""),
    ];
    let commands = commands.each_ref().map(|(line, reason)| (line.as_str(), *reason));
    refused(&scene, &commands);
    // What may be the same making is asked for.
    let error = scene.refused(&format!("{line} --device cpu"));
    assert!(error.contains("--yes downloads them"), "{error}");
}

/// The configuration of a training from a published autoencoder, with more lines of its tables.
fn training(data: &str, run: &str, init: &str) -> String {
    let model = toml(&VaeConfig { ch: 8, num_groups: 4, ..autoencoder() });
    format!(
        "recipe = \"vae\"\n[model]\n{model}[data]\n{data}\n[run]\nsteps = 1\n{run}\n[optimizer]\nlr = 1e-4\n\
         betas = [0.5, 0.9]\n[loss]\ndisc_weight = 0.0\n{init}"
    )
}

/// The configuration of a pMF with a perceptual loss whose network is not here.
const PMF: &str = r#"
recipe = "meanflow"
[model]
hidden_size = 32
depth = 2
aux_head_depth = 1
num_heads = 2
mlp_hidden = 40
in_channels = 3
input_size = 32
patch_size = 8
pca_channels = 8
num_classes = 3
[data]
images = "store"
convnext = "hub:me/convnext/convnext.pt"
[loss]
perceptual_side = 40
[run]
steps = 1
batch = 2
[optimizer]
lr = 1e-4
betas = [0.9, 0.95]
[ema]
decay = 0.9
"#;

/// The configuration of a DiT-DH on images of another size, with an encoder that is not here.
const DITDH: &str = r#"
recipe = "ditdh"
[model]
input_size = 3
in_channels = 64
hidden_size = [32, 32]
depth = [1, 1]
num_heads = [2, 2]
num_classes = 3
[data]
images = "store"
encoder = "hub:me/dino/dino.pth"
stats = "hub:me/dino/stat.pt"
[run]
steps = 1
batch = 2
[optimizer]
lr = 1e-4
betas = [0.9, 0.95]
[ema]
decay = 0.9
"#;

#[test]
fn data_outputs_and_runs_of_train() {
    let scene = Scene::new();
    scene.succeeds("prepare images --out store --size 32");
    scene.workspace.write("taken", "a file");
    let (store, batch) = ("images = \"store\"", "batch = 2");
    let init = "[init]\nfrom = \"tiny-vae\"\n";
    let write = |name: &str, text: String| scene.workspace.write(name, &text);
    write("whole.toml", training(store, batch, init));
    write("data.toml", training("images = \"nowhere\"", batch, init));
    write("vgg.toml", training(&format!("{store}\nvgg = \"vgg.pth\""), batch, init));
    write("odd.toml", training(store, "batch = 3", init));
    write("names.toml", training(store, batch, &format!("{init}names = \"no.txt\"\n")));
    write("plain.toml", training(store, batch, ""));
    let teacher = format!("{store}\nteacher = \"hub:me/dino/dino.pth\"");
    write("other.toml", training(&teacher, "batch = 2\nseed = 1", ""));
    write("pmf.toml", PMF.into());
    write("ditdh.toml", DITDH.into());
    scene.succeeds("train plain.toml --out run --device cpu --quiet");
    let commands = [
        ("train whole.toml --out taken/x", "--out taken/x cannot be written"),
        // On two devices.
        ("train odd.toml --out x --device cpu", "run.batch = 3 is not a multiple of 2"),
        ("train other.toml --out run", "was trained with seed 0 and batch 2"),
        ("train data.toml --out x", "nowhere: not an image store"),
        ("train vgg.toml --out x", "LPIPS needs both data.vgg and data.lpips"),
        ("train names.toml --out x", "init.names no.txt: there is no such file"),
        ("train pmf.toml --out x", "loss.perceptual_side = 40 is not a multiple of 32"),
        ("train ditdh.toml --out x", "3 by 3 latents are those of 48"),
    ];
    refused(&scene, &commands);
}

#[test]
fn outputs_of_encode() {
    let scene = Scene::new();
    scene.workspace.write("taken", "a file");
    scene.succeeds("prepare images --out store --size 16");
    let commands = [
        ("encode store --vae rae --out x.h5", "x.h5: an .h5 file holds the moments of posteriors"),
        ("encode store --vae dinov2-b-reg --out x.h5", "a RAE's latents have none"),
        ("encode store --vae tiny-vae --out taken/x", "--out taken/x cannot be written"),
        ("encode store --vae tiny-vae --out taken/x.h5", "--out taken/x.h5 cannot be written"),
    ];
    refused(&scene, &commands);
}

#[test]
fn paths_and_networks_of_convert_and_info() {
    let scene = Scene::new();
    scene.workspace.write("taken", "a file");
    let commands = [
        ("convert tiny-joint taken/x.safetensors", "OUTPUT taken/x.safetensors cannot be written"),
        ("convert tiny-joint x.safetensors --config no.yaml", "--config no.yaml: there is no such"),
        (
            "convert tiny-joint x.safetensors --names no.txt",
            "--names no.txt: there is no such file",
        ),
        ("info tiny-joint --config no.yaml", "--config no.yaml: there is no such file"),
        ("info tiny-joint --names no.txt", "--names no.txt: there is no such file"),
        ("info tiny-joint --as sit-xxl", "sit-xxl"),
    ];
    let asked = scene.hub.requests().len();
    for (line, reason) in commands {
        let error = scene.refused(&format!("{line} --yes"));
        assert!(error.contains(reason), "{line}: {error}");
    }
    assert_eq!(scene.hub.requests().len(), asked, "something was asked for");
}
