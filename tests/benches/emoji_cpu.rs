//! One emoji image on the CPU: a network evaluation at batch size 2, a decode, and the whole image
//! with 50 steps and guidance 2. PyTorch's side is `tests/peers/emoji_pytorch.py`.
//!
//!     cargo bench --locked --bench emoji_cpu
#![recursion_limit = "256"]

use std::time::Instant;

use tintype::burn::tensor::{Device, FloatDType, Int, Tensor};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Event, ImageSpec, Parts, Pipeline, Request, Settings};
use tintype::model::hidit::HiDiTConfig;
use tintype::model::vae_config;
use tintype::weights::{load, open};
use tintype_tests::family::emoji_folder;

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn time(rounds: usize, mut f: impl FnMut()) -> f64 {
    f();
    let round = |_| {
        let started = Instant::now();
        f();
        started.elapsed().as_secs_f64()
    };
    median((0..rounds).map(round).collect())
}

fn main() {
    let device = Device::flex();
    let model = open(&emoji_folder().join("hidit.safetensors")).expect("the shipped model");
    let vae = open(&emoji_folder().join("vae-decoder.safetensors")).expect("the shipped decoder");
    let config: HiDiTConfig = serde_json::from_str(&model.metadata["config"]).expect("its config");
    let network = load(config.init(&device).expect("valid"), &model, FloatDType::F32, &device)
        .expect("it fits")
        .network;
    let z = Tensor::<4>::ones([2, 16, 16, 16], &device) * 0.3;
    let t = Tensor::<1>::full([2], 0.5, &device);
    let y = Tensor::<1, Int>::from_ints([17, 41], &device);
    let forward = time(20, || {
        network.forward_latent(z.clone(), t.clone(), y.clone()).into_data();
    });
    let decoder = vae_config(&vae).expect("a VAE").init_decoder(&device).expect("valid");
    let decoder = load(decoder, &vae, FloatDType::F32, &device).expect("it fits").network;
    let decode = time(5, || {
        decoder.decode(z.clone().narrow(0, 0, 1)).into_data();
    });
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    let pipeline = Pipeline::load(parts, FloatDType::F32, &device).expect("it loads");
    let settings = Settings {
        guidance: Guidance::new(2.0),
        steps: 50,
        ..pipeline.architecture().default_settings()
    };
    let picture = time(3, || {
        let images = vec![ImageSpec::new(Some(17), 0, 0)];
        let request = Request { settings, images };
        pollster::block_on(pipeline.generate(&request, &mut async |_: Event<'_>| Ok(())))
            .expect("a picture");
    });
    println!(
        "{}",
        serde_json::json!({
            "forward_two_rows_s": forward, "decode_s": decode, "picture_s": picture,
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
        })
    );
}
