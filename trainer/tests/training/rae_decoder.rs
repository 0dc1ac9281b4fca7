//! RAE's decoder: trained against a discriminator on the tokens of a frozen DINOv2.

use tintype::burn::tensor::{Device, FloatDType};
use tintype::model::dinov2::DinoConfig;
use tintype::model::rae::RaeDecoderConfig;
use tintype::noise::{ImageKey, Stream, normals};
use tintype::weights::{TensorView, load, snapshot, write_safetensors};

use crate::common::{Workspace, names, tiny_dino};
use crate::runs::{FILES, values};
use crate::settings::logged;

/// A tiny decoder of images of 32 pixels; the discriminator learns from step 36 on, the decoder from it 4 steps later.
pub fn tiny(data: &str, rest: &str) -> String {
    format!(
        r#"
recipe = "rae-decoder"
[model]
latent_channels = 64
grid = 2
patch_size = 16
decoder_hidden_size = 32
decoder_num_hidden_layers = 1
decoder_num_attention_heads = 2
decoder_intermediate_size = 48
[data]
encoder = "encoder.safetensors"
{data}
[loss]
crop = 32
disc_upd_start = 36
disc_start = 40
disc_channels = 4
[run]
steps = 44
batch = 8
log_every = 1
checkpoint_every = 20
[optimizer]
lr = 5e-3
betas = [0.9, 0.95]
schedule = "cosine"
warmup_steps = 2
final_lr = 5e-4
[ema]
decay = 0.9
{rest}
"#
    )
}

/// Writes a tiny DINOv2 of random numbers, with so many registers, as `encoder.safetensors`.
pub fn write_encoder(workspace: &Workspace, seed: u64, registers: usize) {
    let config = DinoConfig { registers, ..tiny_dino(28) };
    let tensors = snapshot(&config.init(&Device::flex()).expect("it fits"));
    let random = |(i, (name, view)): (usize, (String, TensorView))| {
        let drawn = normals(ImageKey::new(seed, i as u64), Stream::Noise, 0, view.len());
        let drawn: Vec<f32> = drawn.iter().map(|v| v * 0.2).collect();
        (name, TensorView::from_f32(view.shape.clone(), &drawn).expect("it fits"))
    };
    let tensors = tensors.into_iter().enumerate().map(random).collect();
    let bytes = write_safetensors(&tensors, &Default::default()).expect("it fits");
    std::fs::write(workspace.path("encoder.safetensors"), bytes).expect("it is written");
}

#[test]
fn decoders_of_tokens_learn_and_resume_to_the_bit() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 36");
    write_encoder(&workspace, 1, 4);
    let config = tiny("images = \"store\"", "[preview]\nevery = 44\n");
    workspace.write("run.toml", &config);
    let said = workspace.succeeds("train run.toml --out run --device cpu --quiet");
    assert!(said.contains("L1 alone"), "{said}");
    assert_eq!(names(&workspace.path("run/previews")), ["00000044.png"]);

    let steps = |key: &str| -> Vec<u64> {
        logged(&workspace, "run", key).into_iter().map(|(step, _)| step).collect()
    };
    assert_eq!(steps("l1"), (1..=44).collect::<Vec<u64>>());
    assert_eq!(steps("disc_loss"), (37..=44).collect::<Vec<u64>>());
    assert_eq!(steps("d_weight"), (41..=44).collect::<Vec<u64>>());
    let l1: Vec<f64> =
        logged(&workspace, "run", "l1").iter().filter_map(|(_, l1)| l1.as_f64()).collect();
    let mean = |l1: &[f64]| l1.iter().sum::<f64>() / l1.len() as f64;
    assert!(mean(&l1[33..36]) < 0.9 * mean(&l1[..3]), "{l1:?}");

    // In parts, it ends with the same bits, of the discriminator, too.
    for part in ["--steps 20", "--steps 42", ""] {
        let line = format!("train run.toml --out parts --device cpu --quiet {part}");
        workspace.succeeds(line.trim_end());
    }
    let of_discriminator = ["discriminator.safetensors", "optimizer-discriminator.safetensors"];
    for file in FILES.into_iter().chain(of_discriminator) {
        let [whole, parts] = ["run", "parts"].map(|run| values(&workspace.latest(run, file)));
        assert!(!whole.is_empty());
        assert_eq!(whole, parts, "{file}");
    }

    // Its average is a decoder like published ones, but that it says how many heads it has.
    let average = workspace.latest("run", "ema.safetensors");
    let found = RaeDecoderConfig::of(&average).expect("a decoder");
    assert_eq!((found.decoder_num_attention_heads, found.image_size()), (2, 32));
    let device = Device::flex();
    let decoder = found.init(&device).expect("it is valid");
    load(decoder, &average, FloatDType::F32, &device).expect("it fits");

    workspace.write("more.toml", &(config + "[init]\nfrom = \"run\"\n"));
    let said = workspace.succeeds("train more.toml --out more --device cpu --quiet --steps 1");
    assert!(said.contains("decoder and discriminator taken"), "{said}");

    // Another encoder would make other latents.
    write_encoder(&workspace, 2, 4);
    let refused = workspace.refused("train run.toml --out run --device cpu --quiet");
    assert!(refused.contains("data.fingerprint"), "{refused}");
}

#[test]
fn decoders_that_do_not_fit_their_data_are_refused() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 36");
    write_encoder(&workspace, 1, 4);
    let config = tiny("images = \"store\"", "");
    let refused = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        workspace.write("refused.toml", &config.replace(from, to));
        workspace.refused("train refused.toml --out x --device cpu --quiet")
    };
    for (from, to, words) in [
        ("crop = 32", "crop = 34", ["34 pixels", "makes 32"]),
        ("crop = 32", "crop = 40", ["loss.crop", "larger"]),
        ("grid = 2", "grid = 1", ["32 pixels", "makes 16"]),
        ("latent_channels = 64", "latent_channels = 32", ["[64, 2, 2]", "[32, 2, 2]"]),
        ("[loss]", "encoder_input_size = 42\n[loss]", ["[64, 3, 3]", "encoder_input_size"]),
        ("[loss]", "encoder_input_size = 30\n[loss]", ["30 pixels", "14"]),
        ("[loss]", "vgg = \"vgg.pth\"\n[loss]", ["data.vgg", "data.lpips"]),
        ("disc_channels = 4", "disc_channels = 0", ["loss.disc_channels", "at least 1"]),
    ] {
        let said = refused(from, to);
        assert!(words.iter().all(|word| said.contains(word)), "{to}: {said}");
    }
    write_encoder(&workspace, 1, 0);
    let said = refused("crop = 32", "crop = 32");
    assert!(said.contains("without registers"), "{said}");
}
