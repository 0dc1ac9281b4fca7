//! JiT as its authors publish it, and pictures of small ones.
#![cfg(feature = "cpu")]
#![recursion_limit = "256"]

use std::collections::BTreeMap;

use serde_json::json;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Event, ImageSpec, Parts, Picture, Pipeline, Request};
use tintype::image::Rounding;
use tintype::model::jit::{Jit, JitConfig};
use tintype::model::{Architecture, Clock, Network, Process, detect, notes};
use tintype::settings::{Sampler, Settings};
use tintype::weights::{TensorView, Weights, snapshot, write_safetensors};
use tintype_test_models::configs::jit;
use tintype_test_models::tensors;

fn device() -> Device {
    Device::flex()
}

fn weights(tensors: BTreeMap<String, TensorView>) -> Weights {
    Weights { file: "x.pth".into(), tensors, ..Weights::default() }
}

fn of(config: &JitConfig) -> Weights {
    weights(tensors(&config.init(&device()).expect("valid"), 0.4, |_| false))
}

/// The tensors around the blocks, those of a block, and how many there are, as the authors' code has them.
#[test]
fn sizes_are_the_published_ones() {
    let around = [
        "pos_embed",
        "in_context_posemb",
        "t_embedder.mlp.0.weight",
        "t_embedder.mlp.0.bias",
        "t_embedder.mlp.2.weight",
        "t_embedder.mlp.2.bias",
        "y_embedder.embedding_table.weight",
        "x_embedder.proj1.weight",
        "x_embedder.proj2.weight",
        "x_embedder.proj2.bias",
        "final_layer.norm_final.weight",
        "final_layer.linear.weight",
        "final_layer.linear.bias",
        "final_layer.adaLN_modulation.1.weight",
        "final_layer.adaLN_modulation.1.bias",
    ];
    let of_a_block = [
        "norm1.weight",
        "attn.q_norm.weight",
        "attn.k_norm.weight",
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
        "norm2.weight",
        "mlp.w12.weight",
        "mlp.w12.bias",
        "mlp.w3.weight",
        "mlp.w3.bias",
        "adaLN_modulation.1.weight",
        "adaLN_modulation.1.bias",
    ];
    for (name, count, trained, start, [width, gates, head, bottleneck, patch]) in [
        ("B/16", 183, 131_123_712, 4, [768, 4096, 64, 128, 16]),
        ("B/32", 183, 133_190_400, 4, [768, 4096, 64, 128, 32]),
        ("L/16", 351, 458_877_664, 8, [1024, 5460, 64, 128, 16]),
        ("L/32", 351, 461_534_176, 8, [1024, 5460, 64, 128, 32]),
        ("H/16", 463, 952_514_368, 10, [1280, 6826, 80, 256, 16]),
        ("H/32", 463, 956_055_616, 10, [1280, 6826, 80, 256, 32]),
    ] {
        let config = JitConfig::variant(name).expect("a size");
        assert_eq!(config.in_context_start, start, "{name}");
        let untrained = Architecture::from(config.clone()).untrained(&device()).expect("valid");
        let layout: BTreeMap<_, _> = untrained.layout().into_iter().collect();
        assert_eq!(layout.len(), count, "{name}");
        let blocks = (0..config.depth).flat_map(|block| {
            of_a_block.iter().map(move |tensor| format!("blocks.{block}.{tensor}"))
        });
        for tensor in around.iter().map(|tensor| tensor.to_string()).chain(blocks) {
            assert!(layout.contains_key(&tensor), "{name}: {tensor}");
        }
        for (tensor, shape) in [
            ("pos_embed", vec![1, 256, width]),
            ("in_context_posemb", vec![1, 32, width]),
            ("y_embedder.embedding_table.weight", vec![1001, width]),
            ("x_embedder.proj1.weight", vec![bottleneck, 3, patch, patch]),
            ("x_embedder.proj2.weight", vec![width, bottleneck, 1, 1]),
            ("blocks.0.attn.q_norm.weight", vec![head]),
            ("blocks.0.mlp.w12.weight", vec![gates, width]),
            ("blocks.0.mlp.w3.weight", vec![width, gates / 2]),
            ("final_layer.linear.weight", vec![3 * patch * patch, width]),
        ] {
            assert_eq!(layout[tensor], shape, "{name}: {tensor}");
        }
        assert_eq!(untrained.parameter_count() - 256 * width, trained, "{name}");
    }
    assert!(["G/16", "B/8", "B", "JiT-B/16"].map(JitConfig::variant).iter().all(Option::is_none));
}

#[test]
fn it_is_recognised_by_its_tensors() {
    let found = detect(&of(&jit())).expect("a JiT");
    assert_eq!(found, Architecture::from(jit()));
    assert_eq!(found.process(), Process::Flow(Clock::NoiseAtZero));
    assert!(notes(&of(&jit())).is_empty(), "that it has a null class is no guess");
    // Its authors' names have a prefix.
    for prefix in ["net.", "module.net.", "_orig_mod."] {
        let tensors = of(&jit()).tensors.into_iter();
        let prefixed = tensors.map(|(name, view)| (format!("{prefix}{name}"), view));
        let file = write_safetensors(&prefixed.collect(), &BTreeMap::new()).expect("a file");
        let file = Weights::from_bytes(file, "x.safetensors").expect("it opens");
        assert_eq!(detect(&file).expect("a JiT"), found, "{prefix}");
        let report = found.untrained(&device()).expect("valid").compare(&file);
        assert!(report.fits() && report.unexpected.is_empty(), "{prefix}: {report}");
    }
    // Without tokens of the class.
    let plain = JitConfig { in_context_len: 0, ..jit() };
    assert!(!of(&plain).contains("in_context_posemb"));
    assert_eq!(detect(&of(&plain)).expect("a JiT"), Architecture::from(plain));
}

#[test]
fn arguments_and_a_configuration_say_what_the_tensors_do_not() {
    let with = |key: &str, value: serde_json::Value| {
        let mut weights = of(&jit());
        weights.metadata.insert(key.into(), value.to_string());
        detect(&weights)
    };
    let arguments = json!({"model": "JiT-B/16", "noise_scale": 2.0, "t_eps": 0.1});
    let trained = JitConfig { noise_scale: 2.0, t_eps: 0.1, ..jit() };
    let found = with("args", arguments).expect("a JiT");
    assert_eq!(found, Architecture::from(trained));
    assert_eq!((found.noise_scale(), found.time_floor()), (2.0, 0.1));
    let told = with("config", json!({"in_context_start": 2})).expect("a JiT");
    assert_eq!(told, Architecture::from(JitConfig { in_context_start: 2, ..jit() }));
    let error = with("config", json!({"in_context_start": 3})).expect_err("beyond the blocks");
    assert!(error.to_string().contains("in_context_start 3 is not below depth 3"), "{error}");

    // What a configuration of one's own leaves out is as published.
    let large: JitConfig = serde_json::from_value(json!({
        "input_size": 512, "patch_size": 32, "hidden_size": 1280, "depth": 32, "num_heads": 16,
        "bottleneck_dim": 256,
    }))
    .expect("a configuration");
    assert_eq!(Some(large), JitConfig::variant("H/32"));
}

#[test]
fn a_network_that_is_none_is_refused() {
    let message = |change: fn(&mut JitConfig)| {
        let mut config = jit();
        change(&mut config);
        config.init(&device()).expect_err("it is none").0
    };
    assert!(message(|config| config.in_context_start = 3).contains("in_context_start 3"));
    assert!(message(|config| config.num_heads = 4).contains("head size 6"));
    assert!(message(|config| config.num_heads = 0).contains("num_heads 0"));
    assert!(message(|config| config.input_size = 18).contains("input_size 18"));
    assert!(message(|config| config.bottleneck_dim = 0).contains("bottleneck_dim"));
    assert!(message(|config| config.noise_scale = 0.0).contains("noise_scale"));
    assert!(message(|config| config.t_eps = 0.0).contains("t_eps"));
    // Sizes whose products are no numbers any more.
    assert!(message(|config| config.input_size = 1 << 40).contains("input_size 1099511627776"));
    assert!(message(|config| config.hidden_size = 1 << 40).contains("hidden_size 1099511627776"));
    assert!(message(|config| config.num_classes = usize::MAX).contains("num_classes"));
    for mlp_ratio in [0.0, 0.01, 1e300, f64::NAN] {
        let error = JitConfig { mlp_ratio, ..jit() }.validate().expect_err("no width");
        assert!(error.0.contains("mlp_ratio"), "{error}");
    }
    // Without tokens there is nothing to enter.
    let plain = JitConfig { in_context_len: 0, in_context_start: 9, ..jit() };
    plain.validate().expect("valid");
}

fn state() -> Tensor<4> {
    let values: Vec<f32> = (0..2 * 768).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, 16, 16]), &device())
}

fn times(values: [f32; 2]) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), &device())
}

fn labels(values: [i32; 2]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(values), &device())
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn an_untrained_network_predicts_no_image() {
    let network = jit().init(&device()).expect("valid");
    let t = times([0.5, 0.99]);
    let x_hat = network.forward(state(), t.clone(), labels([0, 6]));
    assert!(values(x_hat).iter().all(|&x| x == 0.0));
    // Later than 1 − t_eps velocities are divided by t_eps.
    let velocity = values(network.predict(state(), t, labels([0, 6])));
    for (i, (v, z)) in velocity.iter().zip(values(state())).enumerate() {
        let left = if i < 768 { 0.5 } else { 0.05 };
        assert!((v + z / left).abs() < 1e-4, "{i}: {v} and {z}");
    }
}

#[test]
fn tokens_of_the_class_enter_behind_the_first_blocks() {
    let loaded = |config: &JitConfig| -> Jit {
        let network = config.init(&device()).expect("valid");
        let loaded = tintype::weights::load(network, &of(config), FloatDType::F32, &device());
        loaded.expect("it fits").network
    };
    let lengths = |config: &JitConfig| -> Vec<usize> {
        let trace = loaded(config).trace(state(), times([0.2, 0.8]), labels([1, 6]));
        assert_eq!(trace.tokens.dims(), [2, 16, 48]);
        trace.streams.iter().map(|stream| stream.dims()[1]).collect()
    };
    assert_eq!(lengths(&jit()), [16, 16, 19, 19]);
    assert_eq!(lengths(&JitConfig { in_context_start: 0, ..jit() }), [19; 4]);
    assert_eq!(lengths(&JitConfig { in_context_len: 0, ..jit() }), [16; 4]);
    // They are not rotated, and the patches as without them.
    let network = loaded(&jit());
    let (alone, behind) = (network.rope(0, &device()), network.rope(3, &device()));
    let patches: Vec<f32> = alone.cos.into_data().iter::<f32>().collect();
    let all: Vec<f32> = behind.cos.into_data().iter::<f32>().collect();
    assert!(all[..3 * 12].iter().all(|&cos| cos == 1.0));
    assert_eq!(all[3 * 12..], patches);
    // The trace is the forward pass.
    let (t, y) = (times([0.2, 0.8]), labels([1, 6]));
    let tokens = network.trace(state(), t.clone(), y.clone()).tokens;
    let image = tintype::nn::patch::unpatchify(tokens, 4);
    assert_eq!(values(image), values(network.forward(state(), t, y)));
}

/// What a run of one picture shows: the clean estimates before its steps, and the picture.
fn run(weights: &Weights, settings: Settings) -> (Vec<(f64, Vec<f32>)>, Picture) {
    run_in(FloatDType::F32, weights, settings)
}

/// [`run`] of a network in another precision.
fn run_in(
    precision: FloatDType,
    weights: &Weights,
    settings: Settings,
) -> (Vec<(f64, Vec<f32>)>, Picture) {
    let parts = Parts { model: weights, vae: None, stats: None, guide: None };
    let pipeline = Pipeline::load(parts, precision, &device()).expect("it loads");
    let request = Request { settings, images: vec![ImageSpec::new(Some(3), 1, 0)] };
    let (mut shown, mut pictures) = (Vec::new(), Vec::new());
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Step { time, preview, .. } => shown.push((time, values(preview.clean.clone()))),
            Event::Image(picture) => pictures.push(picture),
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event)).expect("a picture");
    (shown, pictures.remove(0))
}

/// Heun's method evaluates twice a step but once in the last one, and every evaluation asks at its own time whether it
/// is guided: of five steps that begin at 0 on the authors' clock the first evaluation alone lies before 0.1, and none
/// where nothing is left out.
#[test]
fn the_last_step_is_eulers_and_guidance_has_open_ends() {
    let evaluations = |sampler, low, high| {
        let guidance = Guidance { low, high, ..Guidance::new(3.0) };
        run(&of(&jit()), Settings::new(sampler, 5, guidance)).1.evaluations
    };
    let once = 2 * 5 - 1;
    assert_eq!(evaluations(Sampler::Heun, 0.0, 1.0), 2 * once);
    assert_eq!(evaluations(Sampler::Heun, 0.0, 0.9), 2 * once - 1);
    // Of 0, 0.2, 0.4, 0.6 and 0.8 three lie above 0.2, and one between 0.2 and 0.6.
    assert_eq!(evaluations(Sampler::Euler, 0.0, 0.8), 2 * 5 - 2);
    assert_eq!(evaluations(Sampler::Euler, 0.4, 0.8), 5 + 1);
    let unguided = Settings::new(Sampler::Heun, 5, Guidance::NONE);
    assert_eq!(run(&of(&jit()), unguided).1.evaluations, once);
}

/// An estimate of 0 is what every step shows, also where the velocity to it is divided by more than the time that is
/// left; and so the last step does not arrive there.
#[test]
fn steps_show_the_estimate_of_the_image() {
    let untrained = |noise_scale: f64| {
        let config = JitConfig { noise_scale, ..jit() };
        let mut weights = weights(snapshot(&config.init(&device()).expect("valid")));
        weights.metadata.insert("config".into(), json!(config).to_string());
        run(&weights, Settings::new(Sampler::Heun, 25, Guidance::NONE))
    };
    let (shown, picture) = untrained(4.0);
    assert_eq!(shown.len(), 25);
    assert!((shown[24].0 - 0.04).abs() < 1e-6, "{}", shown[24].0);
    for (time, clean) in &shown {
        assert!(clean.iter().all(|x| x.abs() < 1e-4), "{time}: {clean:?}");
    }
    // Before the last step 0.044 of the first noise is left, as the corrector there divides by 0.05 in place of 0.04, and
    // behind it a fifth of that: times 4, four and a half levels.
    let deviation = |picture: &Picture| {
        let pixels = &picture.image.pixels;
        let squares = pixels.iter().map(|&p| (f64::from(p) - 127.5).powi(2));
        (squares.sum::<f64>() / pixels.len() as f64).sqrt()
    };
    let of_four = deviation(&picture);
    assert!((4.0..5.0).contains(&of_four), "{of_four}");
    let of_eight = deviation(&untrained(8.0).1);
    assert!((8.0..10.0).contains(&of_eight), "{of_eight}");
}

/// An untrained network estimates 0 in every precision, and the velocity to it is that of the state itself.
#[test]
fn a_state_is_not_rounded_to_the_networks_precision() {
    let weights = weights(snapshot(&jit().init(&device()).expect("valid")));
    let settings = Settings::new(Sampler::Heun, 25, Guidance::NONE);
    let (expected, of_float32) = run(&weights, settings);
    for precision in [FloatDType::F16, FloatDType::BF16] {
        let (shown, picture) = run_in(precision, &weights, settings);
        assert_eq!(shown, expected, "{precision:?}");
        assert_eq!(picture.image, of_float32.image, "{precision:?}");
    }
}

#[test]
fn a_guide_of_other_noise_is_refused() {
    let (model, mut guide) = (of(&jit()), of(&jit()));
    guide.metadata.insert("args".into(), json!({"noise_scale": 2.0}).to_string());
    let parts = Parts { model: &model, vae: None, stats: None, guide: Some(&guide) };
    let error = Pipeline::load(parts, FloatDType::F32, &device()).expect_err("another path");
    let sentence = error.to_string();
    for word in ["x.pth is a network of noise scale 1", "its guide x.pth one of noise scale 2"] {
        assert!(sentence.contains(word), "{sentence}");
    }
}

#[test]
fn the_authors_settings_fit() {
    for (preset, scale, noise) in [
        ("jit-b-16", 3.0, 1.0),
        ("jit-l-16", 2.4, 1.0),
        ("jit-h-16", 2.2, 1.0),
        ("jit-b-32", 3.0, 2.0),
        ("jit-l-32", 2.5, 2.0),
        ("jit-h-32", 2.3, 2.0),
    ] {
        let architecture = tintype::preset::find(preset).expect("a preset").architecture;
        let own = architecture.default_settings();
        own.validate(&architecture).expect("its own settings");
        let Guidance { low, high, .. } = own.guidance;
        assert_eq!((own.sampler, own.steps), (Sampler::Heun, 50), "{preset}");
        assert_eq!((own.guidance.scale, low, high), (scale, 0.0, 0.9), "{preset}");
        assert_eq!((architecture.noise_scale(), architecture.time_floor()), (noise, 0.05));
        assert_eq!(architecture.rounding(), Rounding::Even);
        let published = tintype::catalogue::Catalogue::built_in().get(preset).expect("an entry");
        assert_eq!(published.sampling, Some(own), "{preset}");
    }
    let architecture = Architecture::from(jit());
    let stochastic = Settings::new(Sampler::EulerMaruyama, 5, Guidance::NONE);
    let error = stochastic.validate(&architecture).expect_err("its score needs unit noise");
    assert!(error.to_string().contains("does not fit JiT; use euler, heun"), "{error}");
}

/// JiT's checkpoints hold two averages, and so do runs here.
#[cfg(feature = "files")]
mod averages {
    use std::path::Path;

    use tempfile::TempDir;
    use tintype::generate::{ModelFiles, ModelPaths};
    use tintype::weights::{open, open_average};
    use tintype_test_models::pickles::{checkpoint, dict, tensor};

    use super::*;

    /// A section with one tensor of so many values.
    fn section(values: u32) -> Vec<u8> {
        dict(&[("net.w", tensor("FloatStorage", &[values], &[1]))])
    }

    fn refused(path: &Path, number: usize) -> String {
        open_average(path, number).expect_err("there is none").to_string()
    }

    #[test]
    fn any_average_of_a_checkpoint_opens() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("checkpoint-last.pth");
        let entries =
            [("model", section(3)), ("model_ema1", section(4)), ("model_ema2", section(5))];
        std::fs::write(&path, checkpoint(&entries)).expect("it is written");
        let opened = |number| open_average(&path, number).expect("it opens");
        for (weights, name, values) in [
            (open(&path).expect("it opens"), "model_ema1", 4),
            (opened(1), "model_ema1", 4),
            (opened(2), "model_ema2", 5),
        ] {
            assert_eq!(weights.metadata["section"], name);
            assert_eq!(weights.tensors["w"].shape, [values]);
            assert_eq!(weights.averages(), ["model_ema1", "model_ema2"]);
        }
        let error = refused(&path, 3);
        let expected = r#"it holds no average 3; its averages are "model_ema1", "model_ema2""#;
        assert!(error.ends_with(expected), "{error}");
        assert!(refused(&path, 0).contains("no average 0"));
        let paths = |average| ModelPaths {
            model: Some(path.clone()),
            average: Some(average),
            ..ModelPaths::default()
        };
        let files = ModelFiles::open(&paths(2)).expect("it opens");
        assert_eq!(files.model.metadata["section"], "model_ema2");
        assert!(ModelFiles::open(&paths(3)).is_err());
        let raw = folder.path().join("raw.pt");
        std::fs::write(&raw, checkpoint(&entries[..1])).expect("it is written");
        assert!(refused(&raw, 1).ends_with("it holds no averaged weights"));
        assert!(open(&raw).expect("it opens").averages().is_empty());
    }

    #[test]
    fn any_average_of_a_run_opens() {
        let folder = TempDir::new().expect("a folder");
        let step = folder.path().join("checkpoints/00000010");
        std::fs::create_dir_all(&step).expect("a folder");
        for (name, value) in [("model", 0.0), ("ema", 1.0), ("ema_2", 2.0)] {
            let tensors =
                [("w".to_string(), TensorView::from_f32(vec![1], &[value]).expect("one"))];
            let file = write_safetensors(&tensors.into(), &BTreeMap::new()).expect("a file");
            std::fs::write(step.join(format!("{name}.safetensors")), file).expect("written");
        }
        for (number, value) in [(1, 1.0), (2, 2.0)] {
            for place in [folder.path(), step.as_path()] {
                let weights = open_average(place, number).expect("it opens");
                assert_eq!(weights.tensors["w"].to_f32(), [value]);
                assert_eq!(weights.averages(), ["ema.safetensors", "ema_2.safetensors"]);
            }
        }
        let error = refused(folder.path(), 3);
        let expected = "it holds no average 3; its averages are ema.safetensors, ema_2.safetensors";
        assert!(error.ends_with(expected), "{error}");
        let names = |path: &Path| open(path).expect("it opens").averages();
        assert_eq!(names(folder.path()), ["ema.safetensors", "ema_2.safetensors"]);
        assert!(names(&step.join("ema.safetensors")).is_empty());
        let alone = refused(&step.join("ema.safetensors"), 1);
        assert!(alone.ends_with("it holds no averages to choose from"), "{alone}");
    }
}
