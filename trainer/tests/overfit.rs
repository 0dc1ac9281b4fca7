//! Overfitting test of Hi-DiT (stage 1, then stage 2 on a handful of images): the pixel stream's error
//! must be lower than the autoencoder's.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::flow::Interpolant;
use tintype::image::Rgb;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::vae_config;
use tintype::noise::{ImageKey, Stream, batch};
use tintype::weights::{load, open};
use tintype_trainer::data::store::ImageStore;
use tintype_trainer::train::host::Values;

const SIDE: usize = 32;

/// Eight sharp, small images: a disc or a square on a plain background.
fn write_images(folder: &Path) {
    for i in 0..8usize {
        let class = folder.join(format!("class{i}"));
        std::fs::create_dir_all(&class).expect("a folder");
        let (cx, cy, r) = (10 + i as i32 * 2, 20 - i as i32, 6 + (i as i32 % 3) * 2);
        let colour =
            |k: usize| [(i * 37 + k * 90) as u8, (i * 71 + k * 50) as u8, (255 - i * 29) as u8];
        let pixel = |at: usize| {
            let (x, y) = ((at % SIDE) as i32 - cx, (at / SIDE) as i32 - cy);
            let inside = if i % 2 == 0 { x * x + y * y < r * r } else { x.abs().max(y.abs()) < r };
            if inside { colour(1) } else { [255; 3] }
        };
        let pixels = (0..SIDE * SIDE).flat_map(pixel).collect();
        let png = Rgb { width: SIDE, height: SIDE, pixels }.to_png(&[]).expect("a PNG");
        std::fs::write(class.join("0.png"), png).expect("it is written");
    }
}

fn tintype(place: &Path, line: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_tintype"))
        .args(line.split(' '))
        .current_dir(place)
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Mean squared errors of the images: of the autoencoder, and of the run's estimate x̂ where its
/// gate is open.
fn errors(store: &Path, encoder: &Path, decoder: &Path, run: &Path) -> (f64, f64) {
    let device = Device::flex();
    let store = ImageStore::open(store).expect("a store");
    let (n, side) = (store.len(), store.side());
    let planes = (0..n).flat_map(|i| store.planes(i)).collect();
    let x = Values::new(planes, [n, 3, side, side]).tensor(&device);
    let weights = open(encoder).expect("an encoder");
    let config = vae_config(&weights).expect("its shape");
    let f32 = FloatDType::F32;
    let only = |w: tintype::weights::Weights, e: bool| {
        w.filtered(|n| (n.starts_with("encoder.") || n.starts_with("quant_conv.")) == e)
    };
    let network = config.init_encoder(&device).expect("it fits");
    let encoder = load(network, &only(weights, true), f32, &device).expect("it fits").network;
    let weights = only(open(decoder).expect("a decoder"), false);
    let network = config.init_decoder(&device).expect("it fits");
    let decoder = load(network, &weights, f32, &device).expect("it fits").network;
    let error = |a: Tensor<4>| -> f64 {
        (a - x.clone()).square().mean().into_data().iter::<f64>().next().expect("a number")
    };
    let latents = encoder.encode(x.clone()).mean;
    let autoencoder = error(decoder.decode(latents.clone()));
    let weights = open(run).expect("a run");
    let config: HiDiTConfig = serde_json::from_str(&weights.metadata["config"]).expect("its shape");
    let network = config.init(&device).expect("it fits");
    let network = load(network, &weights, f32, &device).expect("it fits").network;
    let z = network.sit.normalize(latents);
    let labels: Vec<i32> = (0..n).map(|i| store.label(i).expect("a class") as i32).collect();
    let y = Tensor::<1, Int>::from_data(TensorData::new(labels, [n]), &device);
    let times = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25];
    let estimates = times.iter().enumerate().map(|(step, &t)| {
        let t = Tensor::<1>::full([n], t, &device);
        let keys: Vec<_> = (0..n as u64).map(|image| ImageKey::new(99, image)).collect();
        let noise = |stream, like: &Tensor<4>| {
            let [_, c, h, w] = like.dims();
            batch(&keys, stream, step as u32, [c, h, w], &device).cast(f32)
        };
        let (z_t, _) =
            Interpolant::Linear.interpolate(z.clone(), noise(Stream::Noise, &z), t.clone());
        let (x_t, _) =
            Interpolant::Linear.interpolate(x.clone(), noise(Stream::PixelNoise, &x), t.clone());
        error(network.forward(z_t, x_t, t, y.clone()).image)
    });
    let estimates: Vec<f64> = estimates.collect();
    (autoencoder, estimates.iter().sum::<f64>() / estimates.len() as f64)
}

#[test]
fn overfitted_pixel_stream_beats_the_autoencoder() {
    let place = TempDir::new().expect("a folder");
    let path = |name: &str| place.path().join(name);
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let (encoder, decoder) =
        (models.join("vae-encoder.safetensors"), models.join("vae-decoder.safetensors"));
    write_images(&path("images"));
    let config = |stage: u8, steps: u64| {
        let grid = SIDE / 8;
        format!(
            r#"
recipe = "hidit"
[model]
hidden_size = 128
depth = 2
num_heads = 4
in_channels = 16
input_size = {grid}
patch_size = 1
image = {SIDE}
pixel_patch = 8
num_classes = 8
[data]
latents = "latents.h5"
images = "store"
[loss]
stage = {stage}
[run]
steps = {steps}
batch = 16
checkpoint_every = {steps}
[optimizer]
lr = 2e-3
betas = [0.9, 0.95]
max_grad_norm = 1.0
[ema]
decay = 0.99
"#
        )
    };
    std::fs::write(path("1.toml"), config(1, 400)).expect("it is written");
    let second = config(2, 1200) + "[init]\nfrom = \"one\"\n";
    std::fs::write(path("2.toml"), second).expect("it is written");
    tintype(place.path(), &format!("prepare images --out store --size {SIDE}"));
    tintype(
        place.path(),
        &format!("encode store --vae {} --out latents.h5 --device cpu", encoder.display()),
    );
    tintype(place.path(), "train 1.toml --out one --device cpu --quiet");
    tintype(place.path(), "train 2.toml --out two --device cpu --quiet");
    let (autoencoder, before) = errors(&path("store"), &encoder, &decoder, &path("one"));
    let (_, after) = errors(&path("store"), &encoder, &decoder, &path("two"));
    println!(
        "mean squared errors: autoencoder {autoencoder:.5}, stage 1 {before:.5}, stage 2 {after:.5}"
    );
    assert!(after < autoencoder && after < 0.1 * before, "{autoencoder} {before} {after}");
}
