//! SiT as REPA-E, REPA and SiT's own authors publish it, LightningDiT beside it, and networks without a null
//! class.
#![cfg(feature = "cpu")]

use std::path::Path;

use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{
    Event, GenerateError, ImageSpec, LoadError, Parts, Pipeline, Request, Sampler, Settings,
};
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::sit::{SiT, SiTConfig};
use tintype::model::vavae::VaeConfig;
use tintype::model::{Architecture, Clock, Process, detect, notes, sit_config};
use tintype::settings::{Problem, Setting};
use tintype::weights::{TensorView, Weights, WeightsError, load, snapshot};
use tintype_test_models::{configs, tensors};

/// A SiT as REPA-E has it.
fn sit() -> SiTConfig {
    SiTConfig { depth: 2, encoder_depth: 2, ..configs::sit() }
}

fn authors() -> SiTConfig {
    SiTConfig { latent_norm: false, learn_sigma: true, noise_at_zero: true, ..sit() }
}

fn repa() -> SiTConfig {
    SiTConfig { latent_norm: false, ..sit() }
}

fn lightningdit() -> LightningDiTConfig {
    LightningDiTConfig {
        input_size: 4,
        in_channels: 8,
        depth: 2,
        use_qknorm: true,
        use_swiglu: false,
        use_rope: false,
        use_rmsnorm: false,
        ..configs::lightningdit()
    }
}

fn weights<M: Module>(network: &M) -> Weights {
    let tensors = tensors(network, 0.3, |name| name.ends_with("running_var"));
    Weights { file: "x.pt".into(), tensors, ..Weights::default() }
}

fn of(config: &SiTConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

fn case(name: &str) -> Weights {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    Weights::from_bytes(std::fs::read(path).expect("a case"), name).expect("it opens")
}

fn autoencoder(levels: usize) -> Weights {
    let config = VaeConfig { ch_mult: vec![1; levels], ..configs::f8d4() };
    let json = serde_json::to_string(&config).expect("it serialises");
    let metadata = [("config".to_string(), json)].into();
    let network = config.init_decoder(&Device::flex()).expect("valid");
    Weights { file: "vae".into(), tensors: snapshot(&network), metadata, ..Weights::default() }
}

fn configured(mut weights: Weights, config: serde_json::Value) -> Weights {
    weights.metadata.insert("config".into(), config.to_string());
    weights
}

#[test]
fn each_is_recognised_by_its_tensors() {
    for config in [sit(), repa(), authors()] {
        assert_eq!(detect(&of(&config)).expect("a SiT"), Architecture::from(config));
    }
    let projectors = SiTConfig { z_dims: vec![24], projector_dim: 16, in_channels: 8, ..repa() };
    assert_eq!(detect(&of(&projectors)).expect("REPA's"), Architecture::from(projectors));
    let case = detect(&case("repa-sit.safetensors")).expect("REPA's");
    assert_eq!(case, Architecture::from(SiTConfig { num_classes: 10, ..repa() }));
    // A doubled head with statistics or projectors is REPA's, on its clock.
    let doubled = SiTConfig { learn_sigma: true, ..sit() };
    assert_eq!(detect(&of(&doubled)).expect("REPA-E's"), Architecture::from(doubled));
    // A configuration may leave out what the tensors tell.
    let mut json = serde_json::json!(authors());
    for key in ["latent_norm", "learn_sigma", "noise_at_zero"] {
        json.as_object_mut().expect("an object").remove(key);
    }
    assert_eq!(
        detect(&configured(of(&authors()), json)).expect("a SiT"),
        Architecture::from(authors())
    );
}

#[test]
fn the_authors_clock_runs_the_other_way() {
    let process = |config: SiTConfig| Architecture::from(config).process();
    assert_eq!(process(sit()), Process::Flow(Clock::NoiseAtOne));
    assert_eq!(process(repa()), Process::Flow(Clock::NoiseAtOne));
    assert_eq!(process(authors()), Process::Flow(Clock::NoiseAtZero));
}

#[test]
fn the_first_half_of_a_doubled_head_is_the_velocity() {
    let device = Device::flex();
    let full = of(&authors());
    let mut half = full.clone();
    // Values of the head: place in the patch, channel fastest.
    for (name, width) in [("final_layer.linear.weight", 48), ("final_layer.linear.bias", 1)] {
        let values = full.tensors[name].to_f32();
        let rows = values.chunks_exact(width).enumerate().filter(|(row, _)| row % 8 < 4);
        let kept: Vec<f32> = rows.flat_map(|(_, row)| row.to_vec()).collect();
        let shape = if width == 1 { vec![16] } else { vec![16, width] };
        let view = TensorView::from_f32(shape, &kept).expect("half of them");
        half.tensors.insert(name.into(), view);
    }
    let network = |config: SiTConfig, weights: &Weights| -> SiT {
        let network = config.init(&device).expect("valid");
        load(network, weights, FloatDType::F32, &device).expect("it fits").network
    };
    let run = |network: SiT| -> Vec<f32> {
        let x: Vec<f32> = (0..256).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [1, 4, 8, 8]), &device);
        let t = Tensor::<1>::from_data(TensorData::new(vec![0.3f32], [1]), &device);
        let y = Tensor::<1, Int>::from_data(TensorData::new(vec![1i32], [1]), &device);
        let velocity = network.forward(x, t, y);
        assert_eq!(velocity.dims(), [1, 4, 8, 8]);
        velocity.into_data().iter::<f32>().collect()
    };
    let (a, b) = (run(network(authors(), &full)), run(network(repa(), &half)));
    assert!(a.iter().any(|v| v.abs() > 1e-3));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} and {b}");
    }
}

/// One picture in two steps.
fn picture(pipeline: &Pipeline) -> Vec<u8> {
    let settings = Settings::new(Sampler::Euler, 2, Guidance::NONE);
    let images = vec![ImageSpec::new(Some(3), 1, 0)];
    let mut pixels = Vec::new();
    let mut on_event = async |event: Event<'_>| {
        if let Event::Image(picture) = event {
            pixels = picture.image.pixels;
        }
        Ok(())
    };
    let request = Request { settings, images };
    pollster::block_on(pipeline.generate(&request, &mut on_event)).expect("a picture");
    pixels
}

#[test]
fn latents_of_stable_diffusion_have_a_known_scale() {
    let device = Device::flex();
    let stats = case("sd-vae-latents-stats.safetensors");
    for model in [case("repa-sit.safetensors"), of(&authors())] {
        let (f8, f4) = (autoencoder(4), autoencoder(3));
        let load = |vae: &Weights, stats: Option<&Weights>| {
            let parts = Parts { model: &model, vae: Some(vae), stats, guide: None };
            Pipeline::load(parts, FloatDType::F32, &device)
        };
        let usual = picture(&load(&f8, None).expect("Stable Diffusion's"));
        assert_eq!(usual.len(), 3 * 64 * 64);
        assert_eq!(usual, picture(&load(&f8, Some(&stats)).expect("the same statistics")));
        assert!(matches!(load(&f4, None), Err(LoadError::NoStats("SiT"))));
        assert!(load(&f4, Some(&stats)).is_ok());
    }
    // A network that holds statistics uses those.
    let (model, vae) = (of(&sit()), autoencoder(3));
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    assert!(Pipeline::load(parts, FloatDType::F32, &device).is_ok());
}

#[test]
fn a_plain_lightningdit_is_not_taken_for_a_sit() {
    let device = Device::flex();
    let of = |config: &LightningDiTConfig| weights(&config.init(&device).expect("valid"));
    let plain = lightningdit();
    match detect(&of(&plain)) {
        Err(WeightsError::NeedsConfiguration { reason, .. }) => {
            assert!(reason.contains("opposite directions"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let named = configured(of(&plain), serde_json::json!(plain));
    assert_eq!(detect(&named).expect("it is named"), Architecture::from(plain.clone()));
    // As its trainer's checkpoints name it, also in variants that nobody published.
    let file = serde_json::json!({"model": {"model_type": "LightningDiT-Tiny/1"}});
    assert_eq!(
        detect(&configured(of(&plain), file)).expect("it is named"),
        Architecture::from(plain.clone())
    );
    for own in [
        LightningDiTConfig { use_rope: true, ..plain.clone() },
        LightningDiTConfig { wo_shift: true, ..plain.clone() },
    ] {
        assert_eq!(detect(&of(&own)).expect("its own tensors"), Architecture::from(own));
    }
}

fn refused(result: Result<(), tintype::settings::InvalidSetting>) -> (Setting, Problem) {
    let error = result.expect_err("refused");
    assert!(error.to_string().contains("trained without class dropout"), "{error}");
    (error.setting, error.problem)
}

#[test]
fn a_network_without_a_null_class_makes_all_its_classes_unguided() {
    let none = SiTConfig { num_classes: 10, class_dropout_prob: 0.0, ..sit() };
    let weights = of(&none);
    let architecture = detect(&weights).expect("a SiT");
    assert_eq!(architecture, Architecture::from(none.clone()));
    assert_eq!((architecture.num_classes(), architecture.null_class()), (10, None));
    // It is assumed, and said.
    assert!(notes(&weights)[0].contains("10 rows"), "{:?}", notes(&weights));
    let settings = architecture.default_settings();
    assert_eq!(settings.guidance.scale, 1.0);
    settings.validate(&architecture).expect("its own settings");
    for scale in [0.0, 0.5, 2.4] {
        let settings = Settings { guidance: Guidance::new(scale), ..settings };
        let (setting, problem) = refused(settings.validate(&architecture));
        assert_eq!(
            (setting, problem),
            (Setting::GuidanceScale, Problem::NoUnconditional { scale })
        );
    }
    let request = |class| Request { settings, images: vec![ImageSpec::new(class, 0, 0)] };
    assert!(request(Some(9)).validate(&architecture).is_ok());
    assert!(request(Some(10)).validate(&architecture).is_err());
    let needs = (Setting::Class, Problem::NeedsClass);
    assert_eq!(refused(request(None).validate(&architecture)), needs);
    // The pipeline refuses, too.
    let vae = autoencoder(3);
    let parts = Parts { model: &weights, vae: Some(&vae), stats: None, guide: None };
    let pipeline = Pipeline::load(parts, FloatDType::F32, &Device::flex()).expect("it loads");
    let mut quiet = async |_: Event<'_>| Ok(());
    let outcome = pollster::block_on(pipeline.generate(&request(None), &mut quiet));
    assert!(matches!(outcome, Err(GenerateError::Request(_))), "{outcome:?}");
    let request = Request {
        settings: Settings { steps: 2, ..settings },
        images: vec![ImageSpec::new(Some(9), 0, 0)],
    };
    pollster::block_on(pipeline.generate(&request, &mut quiet)).expect("the last class");
}

#[test]
fn metadata_tells_whether_there_is_a_null_class() {
    let rows = |rows: usize| of(&SiTConfig { num_classes: rows - 1, ..sit() });
    let classes = |weights: &Weights| {
        let architecture = detect(weights).expect("a SiT");
        (architecture.num_classes(), architecture.null_class(), notes(weights).len())
    };
    assert_eq!(classes(&rows(13)), (12, Some(12), 1));
    assert_eq!(classes(&rows(100)), (100, None, 1));
    assert_eq!(classes(&rows(1000)), (1000, None, 0));
    assert_eq!(classes(&rows(1001)), (1000, Some(1000), 0));
    let told = |key: &str, value: serde_json::Value| {
        let mut weights = rows(13);
        weights.metadata.insert(key.into(), value.to_string());
        classes(&weights)
    };
    let names = |n: usize| serde_json::json!(vec!["x"; n]);
    assert_eq!(told("classes", names(13)), (13, None, 0));
    assert_eq!(told("classes", names(12)), (12, Some(12), 0));
    assert_eq!(told("args", serde_json::json!({"cfg_prob": 0.0})), (13, None, 0));
    assert_eq!(told("args", serde_json::json!({"num_classes": 13})), (13, None, 0));
    let config = |classes: usize, dropout: f64| {
        serde_json::json!(SiTConfig { num_classes: classes, class_dropout_prob: dropout, ..sit() })
    };
    assert_eq!(told("config", config(12, 0.1)), (12, Some(12), 0));
    assert_eq!(told("config", config(13, 0.0)), (13, None, 0));
    // As earlier versions and other programs wrote it, without the dropout.
    assert_eq!(told("config", config(13, 0.1)), (13, None, 0));
    let with = |text: String| {
        let mut weights = rows(13);
        weights.metadata.insert("config".into(), text);
        weights
    };
    // Embedded as Windows' Notepad saves it.
    assert_eq!(classes(&with(format!("\u{feff}{}", config(13, 0.0)))), (13, None, 0));
    // Half of it is no reason to assume its classes.
    let half = Weights { file: "half.pt".into(), ..with("{\"num_classes\": 13".into()) };
    let error = sit_config(&half).expect_err("half a configuration").to_string();
    assert!(error.starts_with("half.pt: its configuration cannot be read: "), "{error}");
}

#[test]
fn lightningdit_without_class_dropout_is_known_by_its_classes() {
    let config = LightningDiTConfig { class_dropout_prob: 0.0, use_rope: true, ..lightningdit() };
    let weights = weights(&config.init(&Device::flex()).expect("valid"));
    let told = serde_json::json!(LightningDiTConfig { class_dropout_prob: 0.1, ..config.clone() });
    let architecture = detect(&configured(weights, told)).expect("a LightningDiT");
    assert_eq!((architecture.num_classes(), architecture.null_class()), (12, None));
    assert_eq!(architecture.default_settings().guidance, Guidance::NONE);
    assert!(architecture.needs_class());
}

#[test]
fn checkpoints_that_people_brought_are_recognised() {
    let weights = case("sit-learn-sigma.safetensors");
    let found = detect(&weights).expect("SiT's own authors'");
    assert_eq!(found, Architecture::from(SiTConfig { num_classes: 10, ..authors() }));
    let untrained = found.untrained(&Device::flex()).expect("valid");
    assert!(untrained.compare(&weights).fits());

    let weights = case("no-class-dropout.safetensors");
    let found = detect(&weights).expect("a SiT");
    assert_eq!((found.num_classes(), found.null_class()), (10, None));
    assert!(found.needs_class());
    let untrained = found.untrained(&Device::flex()).expect("valid");
    assert!(untrained.compare(&weights).fits());
}

#[test]
fn a_guide_is_a_network_of_the_same_kind_for_the_same_class() {
    let plain = SiTConfig { num_classes: 10, class_dropout_prob: 0.0, ..sit() };
    let (weights, vae) = (of(&plain), autoencoder(3));
    let load = |guide: &SiTConfig| {
        let guide = Weights { file: "guide.pt".into(), ..of(guide) };
        let parts = Parts { model: &weights, vae: Some(&vae), stats: None, guide: Some(&guide) };
        Pipeline::load(parts, FloatDType::F32, &Device::flex())
    };
    // A network without a null class is guided, too, by one with or without.
    let settings = Settings::new(Sampler::Euler, 2, Guidance::new(2.4));
    let small = SiTConfig { hidden_size: 24, num_heads: 2, ..plain.clone() };
    for guide in [small.clone(), SiTConfig { class_dropout_prob: 0.1, ..small }] {
        let pipeline = load(&guide).expect("of one kind");
        settings.validate_with(pipeline.architecture(), pipeline.guide()).expect("it is guided");
        let mut evaluations = Vec::new();
        let mut on_event = async |event: Event<'_>| {
            if let Event::Image(picture) = event {
                evaluations.push(picture.evaluations);
            }
            Ok(())
        };
        let request = |class| Request { settings, images: vec![ImageSpec::new(class, 0, 0)] };
        pollster::block_on(pipeline.generate(&request(Some(9)), &mut on_event)).expect("the last");
        for none in [None, Some(10)] {
            let outcome = pollster::block_on(pipeline.generate(&request(none), &mut on_event));
            assert!(matches!(outcome, Err(GenerateError::Request(_))), "{outcome:?}");
        }
        assert_eq!(evaluations, [4]);
    }
    let others = [
        (SiTConfig { num_classes: 8, ..sit() }, ["10 classes", "8 classes"]),
        (SiTConfig { input_size: 16, ..plain.clone() }, ["4 × 8 × 8", "4 × 16 × 16"]),
        (
            SiTConfig { latent_norm: false, learn_sigma: true, noise_at_zero: true, ..plain },
            ["noise at time 1", "noise at time 0"],
        ),
    ];
    for (guide, words) in others {
        let error = load(&guide).expect_err("another kind");
        let sentence = error.to_string();
        assert!(matches!(error, LoadError::IncompatibleParts(_)), "{sentence}");
        for word in words.into_iter().chain(["x.pt", "guide.pt"]) {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
