//! Overfitting tests. Of Hi-DiT (stage 1, then stage 2 on a handful of images): the pixel stream's error must be lower
//! than the autoencoder's. Of iMF: images of one step must come near those of many. Of JiT and DiT-DH (`toys`): images
//! must be those that they were trained on.

#[path = "overfit/toys.rs"]
mod toys;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::flow::Interpolant;
use tintype::image::Rgb;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::imf::{Imf, ImfConfig};
use tintype::model::meanflow::{Condition, MeanFlow};
use tintype::model::vae_config;
use tintype::model::vavae::{VaeDecoder, VaeEncoder};
use tintype::noise::{ImageKey, Stream, batch};
use tintype::sampler::mean_flow::times;
use tintype::weights::{Dtype, TensorView, Weights, load, open, write_safetensors};
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

/// Both halves of an autoencoder.
fn autoencoder(encoder: &Path, decoder: &Path) -> (VaeEncoder, VaeDecoder) {
    let device = Device::flex();
    let weights = open(encoder).expect("an encoder");
    let config = vae_config(&weights).expect("its shape");
    let only = |w: Weights, e: bool| {
        w.filtered(|n| (n.starts_with("encoder.") || n.starts_with("quant_conv.")) == e)
    };
    let network = config.init_encoder(&device).expect("it fits");
    let weights = only(weights, true);
    let encoder = load(network, &weights, FloatDType::F32, &device).expect("it fits").network;
    let weights = only(open(decoder).expect("a decoder"), false);
    let network = config.init_decoder(&device).expect("it fits");
    let decoder = load(network, &weights, FloatDType::F32, &device).expect("it fits").network;
    (encoder, decoder)
}

/// Mean squared errors of the images: of the autoencoder, and of the run's estimate x̂ where its
/// gate is open.
fn errors(store: &Path, encoder: &Path, decoder: &Path, run: &Path) -> (f64, f64) {
    let device = Device::flex();
    let store = ImageStore::open(store).expect("a store");
    let (n, side) = (store.len(), store.side());
    let planes = (0..n).flat_map(|i| store.planes(i)).collect();
    let x = Values::new(planes, [n, 3, side, side]).tensor(&device);
    let f32 = FloatDType::F32;
    let (encoder, decoder) = autoencoder(encoder, decoder);
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

/// Shape of the latents that iMF is trained on.
const LATENT: [usize; 3] = [2, 2, 2];
/// Training steps after which the velocity is learnt and its averages are not, and after which both are.
const EARLY: u64 = 150;
const LATE: u64 = 500;
/// Training steps between lines of the log.
const LOGGED: u64 = 50;
/// Sampling steps that one is compared with, and images.
const MANY: usize = 16;
const SAMPLES: usize = 64;

/// Two latents of one class, all of whose values are 0.25 or −0.25, with statistics that leave them so. They are near
/// enough to each other for the flow to part late and smoothly.
fn write_latents(place: &Path) {
    let write = |path: &Path, tensors: &[(&str, TensorView)]| {
        let named: BTreeMap<String, TensorView> =
            tensors.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
        let bytes = write_safetensors(&named, &BTreeMap::new()).expect("it fits");
        std::fs::write(path, bytes).expect("it is written");
    };
    let floats = |shape: Vec<usize>, values: &[f32]| {
        TensorView::from_f32(shape, values).expect("as many as the shape")
    };
    let [c, h, w] = LATENT;
    let values = [vec![0.25; c * h * w], vec![-0.25; c * h * w]].concat();
    let latents = floats(vec![2, c, h, w], &values);
    let labels = TensorView::from_bytes(Dtype::I64, vec![2], vec![0; 16]).expect("two classes");
    let folder = place.join("latents");
    std::fs::create_dir(&folder).expect("a folder");
    let tensors = [("latents", latents.clone()), ("latents_flip", latents), ("labels", labels)];
    write(&folder.join("shard000.safetensors"), &tensors);
    let stats = [("mean", floats(vec![c], &vec![0.0; c])), ("std", floats(vec![c], &vec![1.0; c]))];
    write(&place.join("stats.safetensors"), &stats);
}

/// The averaged network of a run after a training step.
fn network_after(run: &Path, step: u64) -> Imf {
    let device = Device::flex();
    let file = run.join(format!("checkpoints/{step:08}/ema.safetensors"));
    let weights = open(&file).expect("a checkpoint");
    let config: ImfConfig = serde_json::from_str(&weights.metadata["config"]).expect("its shape");
    let network = config.init(&device).expect("valid");
    load(network, &weights, FloatDType::F32, &device).expect("it fits").network
}

/// Samples of so many steps, the same noise whatever their number.
fn samples(network: &Imf, steps: usize) -> Vec<f64> {
    let device = Device::flex();
    let keys: Vec<_> = (0..SAMPLES as u64).map(|image| ImageKey::new(5, image)).collect();
    let noise = batch(&keys, Stream::Start, 0, LATENT, &device);
    let every = |value: f64| Tensor::<1>::full([SAMPLES], value, &device);
    let mut z: Tensor<4> = noise.cast(FloatDType::F32);
    for pair in times(steps).windows(2) {
        let (t, h) = (pair[0], pair[0] - pair[1]);
        let y = Tensor::<1, Int>::zeros([SAMPLES], &device);
        let (omega, t_min, t_max) = (every(1.0), every(0.0), every(1.0));
        let condition = Condition { h: every(h), omega, t_min, t_max, y };
        z = z.clone() - network.u(z, every(t), condition) * h;
    }
    z.into_data().iter::<f64>().collect()
}

/// How far samples of one step are from those of many, relative to these.
fn distance(network: &Imf) -> f64 {
    let (one, many) = (samples(network, 1), samples(network, MANY));
    let apart: f64 = one.iter().zip(&many).map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = many.iter().map(|b| b.powi(2)).sum();
    (apart / size).sqrt()
}

/// The flow bends from noise to one of two images, so the velocity at its beginning, where both are as likely, leads
/// between them: one step is right only once the network has learnt averages, by the derivative in their target.
///
/// An untrained network has no velocity, and its samples of any number of steps are the noise. So the distance is 0 at
/// first and grows while the velocity is learnt; it is compared from a step on where that is done, as its error tells.
#[test]
fn one_step_comes_near_many() {
    let place = TempDir::new().expect("a folder");
    write_latents(place.path());
    let [c, side, _] = LATENT;
    let config = format!(
        r#"
recipe = "meanflow"
[model]
hidden_size = 64
depth = 4
aux_head_depth = 2
num_heads = 2
mlp_hidden = 128
in_channels = {c}
input_size = {side}
patch_size = 1
num_classes = 1
num_class_tokens = 1
num_time_tokens = 1
num_cfg_tokens = 1
num_interval_tokens = 1
[data]
latents = "latents"
stats = "stats.safetensors"
[loss]
p_mean = 0.2
p_std = 1.3
flow_matching = 0.25
omega_max = 1.0
[run]
steps = {LATE}
batch = 32
log_every = {LOGGED}
checkpoint_every = {EARLY}
keep_every = {EARLY}
[optimizer]
lr = 5e-3
betas = [0.9, 0.95]
warmup_steps = 100
[ema]
decay = 0.98
"#
    );
    std::fs::write(place.path().join("imf.toml"), config).expect("it is written");
    tintype(place.path(), "train imf.toml --out imf --device cpu --quiet");
    let run = place.path().join("imf");
    let log = std::fs::read_to_string(run.join("log.jsonl")).expect("a log");
    let line = log.lines().nth((EARLY / LOGGED) as usize - 1).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    // Before training it is 1 + 0.25², the mean square of noise without the latent.
    let mse_v = line["mse_v"].as_f64().expect("an error");
    let [early, late] = [EARLY, LATE].map(|step| distance(&network_after(&run, step)));
    println!("error of v {mse_v:.3}, distances of one step from {MANY}: {early:.3}, {late:.3}");
    assert!(mse_v < 0.4, "the velocity is not learnt: {mse_v}");
    assert!(late < 0.6 * early, "{early} {late}");
}
