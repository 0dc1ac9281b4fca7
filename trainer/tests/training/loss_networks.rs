//! The networks of the autoencoder's losses, of representation alignment, and of pMF's perceptual losses.

use std::collections::BTreeMap;

use tintype::burn::tensor::Device;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{TensorView, snapshot, write_safetensors};
use tintype_trainer::network::convnext::ConvNextConfig;
use tintype_trainer::network::vgg::Vgg16;

use crate::common::{Workspace, tiny_dino};
use crate::rae_decoder::{tiny, write_encoder};
use crate::runs::{FILES, assert_close, values};

/// Frozen loss networks with random weights: loaded from files, with their losses in the total.
#[test]
fn loss_networks_are_used_if_their_files_are_given() {
    let workspace = Workspace::new();
    let device = Device::flex();
    let file = |name: &str, tensors: BTreeMap<String, TensorView>| {
        let bytes = write_safetensors(&tensors, &BTreeMap::new()).expect("it fits");
        std::fs::write(workspace.path(name), bytes).expect("it is written");
    };
    let dino = tiny_dino(70);
    // Random everywhere: tokens of zeros would have no direction to align with.
    let random = |(name, view): (String, TensorView)| {
        let key = ImageKey::new(view.len() as u64, 0);
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
    let convnext = ConvNextConfig { depths: [1; 4], dims: [4, 6, 8, 10] }.init(&device);
    file("convnext.safetensors", snapshot(&convnext).into_iter().map(random).collect());
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
    write_encoder(&workspace, 1, 4);
    workspace.write("rae.toml", &tiny(&both, ""));
    workspace.succeeds("train rae.toml --out rae --device cpu --quiet --steps 2");
    assert!(last("rae", "perceptual") > 0.0);
    workspace.write("half.toml", &vae("[1, 1]", vgg, ""));
    let refused = workspace.refused("train half.toml --out half --device cpu --quiet");
    assert!(refused.contains("data.lpips"), "{refused}");

    let pmf = |data: &str, loss: &str| {
        format!(
            r#"
recipe = "meanflow"
[model]
hidden_size = 16
depth = 2
aux_head_depth = 1
num_heads = 2
mlp_hidden = 20
in_channels = 3
input_size = 32
patch_size = 8
pca_channels = 4
num_classes = 3
[data]
images = "small"
{data}
[loss]
p_mean = 0.8
{loss}
[run]
steps = 2
batch = 2
log_every = 1
[optimizer]
lr = 1e-3
betas = [0.9, 0.95]
[ema]
half_life = 2
"#
        )
    };
    let all = "vgg = \"vgg.safetensors\"\nlpips = \"lin.safetensors\"\nconvnext = \"convnext.safetensors\"";
    workspace.write("plain.toml", &pmf("", ""));
    workspace.write("seen.toml", &pmf(all, "perceptual_side = 32\nperceptual_max_t = 1.0"));
    workspace.write("unseen.toml", &pmf(all, "perceptual_side = 32\nperceptual_max_t = 0.0"));
    for run in ["plain", "seen", "unseen"] {
        workspace.succeeds(&format!("train {run}.toml --out {run} --device cpu --quiet"));
    }
    for key in ["lpips", "convnext"] {
        assert!(last("seen", key) > 0.0, "{key}");
        assert_eq!(last("unseen", key), 0.0, "{key}");
    }
    // Each loss is divided by itself, and those of pictures have weights of 0.4 and 0.1.
    assert!(last("seen", "loss") <= 2.5);
    let model = |run: &str| values(&workspace.latest(run, FILES[0]));
    assert_eq!(model("plain"), model("unseen"), "no picture is early enough");
    assert_ne!(model("plain"), model("seen"));
    let refused = |data: &str, loss: &str| {
        workspace.write("refused.toml", &pmf(data, loss));
        workspace.refused("train refused.toml --out x --device cpu --quiet")
    };
    let said = refused(all, "perceptual_side = 40");
    assert!(said.contains("loss.perceptual_side = 40") && said.contains("ConvNeXt"), "{said}");
    let said = refused("", "lpips_weight = 0.4");
    assert!(said.contains("loss.lpips_weight") && said.contains("data.lpips"), "{said}");
    let said = refused("vgg = \"vgg.safetensors\"", "");
    assert!(said.contains("data.lpips"), "{said}");
    let said = refused("convnext = \"lin.safetensors\"", "");
    assert!(said.contains("not a ConvNeXt V2"), "{said}");

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
