//! JiT on pixels and DiT-DH on latents overfit one image of each class.

use std::path::Path;

use tempfile::TempDir;
use tintype::burn::tensor::Device;
use tintype::generate::{ImageSpec, LatentStats};
use tintype::image::Rgb;
use tintype::weights::open;
use tintype_trainer::data::store::ImageStore;
use tintype_trainer::train::host::Values;
use tintype_trainer::train::preview::{Imager, Wish};

use super::{SIDE, autoencoder, tintype, write_images};

/// Images, one of each class.
const CLASSES: usize = 8;

/// A folder with the prepared images.
fn prepared() -> TempDir {
    let place = TempDir::new().expect("a folder");
    write_images(&place.path().join("images"));
    tintype(place.path(), &format!("prepare images --out store --size {SIDE}"));
    place
}

/// Planes in −1…1 of the image of each class.
fn images(store: &Path) -> Vec<Vec<f32>> {
    let store = ImageStore::open(store).expect("a store");
    let of_class = |class: usize| {
        let item = (0..store.len()).find(|&item| store.label(item) == Some(class));
        store.planes(item.expect("an image"))
    };
    (0..CLASSES).map(of_class).collect()
}

/// Planes in −1…1 of an image that a run makes of each class, as `generate` would.
fn generated(run: &Path, imager: &Imager) -> Vec<Vec<f32>> {
    let spec = |i: usize, class| ImageSpec::new(class, i as u64, 0);
    let wish = Wish { count: CLASSES, batch: CLASSES, steps: None, cfg: None, spec: &spec };
    let model = open(run).expect("a run");
    let mut found: Vec<Rgb> = Vec::new();
    let made = imager.generate(&model, &Device::flex(), &wish, &mut |images| {
        found.extend(images);
        Ok(true)
    });
    made.expect("images");
    let planes = |image: &Rgb| -> Vec<f32> {
        let plane =
            |c: usize| image.pixels.iter().skip(c).step_by(3).map(|&v| v as f32 / 127.5 - 1.0);
        (0..3).flat_map(plane).collect()
    };
    found.iter().map(planes).collect()
}

/// Mean squared error.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// Every image is that of its class: no other is nearer, and all together they are much nearer than the nearest others
/// are to each other.
fn assert_learnt(found: &[Vec<f32>], images: &[Vec<f32>]) {
    assert_eq!((found.len(), images.len()), (CLASSES, CLASSES));
    let mut apart = 0.0;
    let mut errors = Vec::new();
    for (class, picture) in found.iter().enumerate() {
        let of = |image: &[f32]| -> Vec<f64> {
            images.iter().map(|other| error(image, other)).collect()
        };
        let distances = of(picture);
        let nearest = (0..CLASSES).min_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        assert_eq!(nearest, Some(class), "{distances:?}");
        errors.push(distances[class]);
        let others =
            of(&images[class]).into_iter().enumerate().filter(|(other, _)| *other != class);
        apart += others.map(|(_, distance)| distance).fold(f64::INFINITY, f64::min);
    }
    let (mean, apart) = (errors.iter().sum::<f64>() / CLASSES as f64, apart / CLASSES as f64);
    println!("mean squared error {mean:.5}, of the nearest other image {apart:.5}");
    assert!(mean < 0.4 * apart, "{errors:?}, {apart}");
}

/// The tables of a run that both have.
const RUN: &str = "[run]
steps = 600
batch = 16
checkpoint_every = 600
[optimizer]
lr = 2e-3
betas = [0.9, 0.95]
max_grad_norm = 1.0
warmup_steps = 20
[ema]
decay = 0.98
";

#[test]
fn a_toy_jit_learns_its_images() {
    let place = prepared();
    let config = format!(
        r#"
recipe = "jit"
[model]
input_size = {SIDE}
patch_size = 8
hidden_size = 96
depth = 3
num_heads = 4
bottleneck_dim = 48
in_context_len = 2
in_context_start = 1
num_classes = {CLASSES}
[data]
images = "store"
[loss]
flips = false
{RUN}"#
    );
    std::fs::write(place.path().join("jit.toml"), config).expect("it is written");
    tintype(place.path(), "train jit.toml --out jit --device cpu --quiet");
    let imager = Imager::open(None, None).expect("it needs nothing");
    let found = generated(&place.path().join("jit"), &imager);
    assert_learnt(&found, &images(&place.path().join("store")));
}

/// What the emoji model's autoencoder makes of images is what can be learnt.
#[test]
fn a_toy_ditdh_learns_its_latents() {
    let place = prepared();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let (encoder, decoder) =
        (models.join("vae-encoder.safetensors"), models.join("vae-decoder.safetensors"));
    let line = format!("encode store --vae {} --out latents --device cpu", encoder.display());
    tintype(place.path(), &line);
    let grid = SIDE / 8;
    // Latents this small would be shifted towards the data, where classes are told without being learnt.
    let config = format!(
        r#"
recipe = "ditdh"
[model]
input_size = {grid}
in_channels = 16
hidden_size = [96, 128]
depth = [2, 1]
num_heads = [4, 4]
num_classes = {CLASSES}
time_dist_shift_dim = 4096
[data]
latents = "latents"
[loss]
time_dist_type = "uniform"
flips = false
{RUN}"#
    );
    std::fs::write(place.path().join("ditdh.toml"), config).expect("it is written");
    tintype(place.path(), "train ditdh.toml --out ditdh --device cpu --quiet");
    let stats = open(&place.path().join("latents/latents_stats.pt")).expect("statistics");
    let stats = LatentStats::from_weights(&stats).expect("of each channel");
    let imager = Imager::open(Some(&decoder), Some(&stats)).expect("an autoencoder");
    let found = generated(&place.path().join("ditdh"), &imager);
    let (encoder, decoder) = autoencoder(&encoder, &decoder);
    let planes = images(&place.path().join("store")).concat();
    let images = Values::new(planes, [CLASSES, 3, SIDE, SIDE]).tensor(&Device::flex());
    let decoded = decoder.decode(encoder.encode(images).mean).clamp(-1.0, 1.0);
    let decoded: Vec<f32> = decoded.into_data().iter::<f32>().collect();
    let images: Vec<Vec<f32>> =
        decoded.chunks_exact(3 * SIDE * SIDE).map(<[f32]>::to_vec).collect();
    assert_learnt(&found, &images);
}
