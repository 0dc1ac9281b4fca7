//! iMF and pMF as their authors publish them, and pictures of small ones.
#![cfg(feature = "cpu")]
#![recursion_limit = "256"]

use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Event, GenerateError, ImageSpec, LoadError, Parts, Pipeline, Request};
use tintype::model::imf::ImfConfig;
use tintype::model::meanflow::{Condition, MeanFlow, Shape};
use tintype::model::pmf::PmfConfig;
use tintype::model::{Architecture, Network, Process, detect};
use tintype::settings::{Problem, Sampler, Setting, Settings};
use tintype::weights::{Dtype, TensorView, Weights, snapshot, write_safetensors};
use tintype_test_models::configs::{f8d4, imf, pmf};
use tintype_test_models::tensors;

fn weights<M: Module>(network: &M) -> Weights {
    let tensors = tensors(network, 0.4, |_| false);
    Weights { file: "x.pth".into(), tensors, ..Weights::default() }
}

fn of_imf(config: &ImfConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

fn of_pmf(config: &PmfConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

fn zeros(shape: &[usize]) -> TensorView {
    let count = shape.iter().product();
    TensorView::from_f32(shape.to_vec(), &vec![0.0; count]).expect("as many as the shape")
}

fn configured(mut weights: Weights, config: serde_json::Value) -> Weights {
    weights.metadata.insert("config".into(), config.to_string());
    weights
}

#[test]
fn each_is_recognised_by_its_tensors() {
    assert_eq!(detect(&of_imf(&imf())).expect("an iMF"), Architecture::from(imf()));
    assert_eq!(detect(&of_pmf(&pmf())).expect("a pMF"), Architecture::from(pmf()));
    // The names are the authors'.
    let names = of_pmf(&pmf()).tensors;
    for name in [
        "class_tokens",
        "pos_embed",
        "x_embedder.proj2.weight",
        "cfg_t_start_embedder.mlp.0._flax_linear.weight",
        "y_embedder.embedding_table._flax_embedding.weight",
        "shared_blocks.0.attn_scale",
        "u_heads.1.attn.out_proj._flax_linear.weight",
        "u_heads.1.attn.k_norm.weight",
        "u_heads.1.mlp.w2._flax_linear.weight",
        "u_final_layer.linear._flax_linear.bias",
    ] {
        assert!(names.contains_key(name), "{name} of {:?}", names.keys());
    }
    assert_eq!(names["class_tokens"].shape, [1, 3, 24]);
    assert_eq!(of_imf(&imf()).tensors["class_tokens"].shape, [3, 24]);
}

#[test]
fn a_configuration_says_what_the_tensors_do_not() {
    let smaller = ImfConfig { shape: Shape { input_size: 16, ..imf().shape } };
    let told = configured(of_imf(&imf()), serde_json::json!({"input_size": 16}));
    assert_eq!(detect(&told).expect("an iMF"), Architecture::from(smaller));
    let noisier = PmfConfig { noise_scale: 4.0, ..pmf() };
    let told = configured(of_pmf(&pmf()), serde_json::json!(noisier));
    let found = detect(&told).expect("a pMF");
    assert_eq!((found.process(), found.noise_scale()), (Process::MeanFlow, 4.0));
    for (size, patch, scale) in [
        ("B", 16, 1.0),
        ("B", 32, 2.0),
        ("L", 16, 1.0),
        ("L", 32, 4.0),
        ("H", 16, 2.0),
        ("H", 32, 4.0),
    ] {
        let published = PmfConfig::variant(size, patch).expect("a size");
        assert_eq!(published.noise_scale, scale, "{size}/{patch}");
    }
}

/// As the authors' files are: with a prefix, and with what no network reads.
#[test]
fn published_files_have_nothing_unexpected() {
    let device = Device::flex();
    let unread = [
        ("v_final_layer.norm.weight", vec![24usize]),
        ("v_final_layer.linear._flax_linear.weight", vec![256usize, 24]),
        ("v_final_layer.linear._flax_linear.bias", vec![256usize]),
        ("v_heads.0.attn_scale", vec![24usize]),
    ];
    let mut file = of_imf(&imf());
    file.tensors.extend(unread.map(|(name, shape)| (name.to_string(), zeros(&shape))));
    let report = tintype::weights::compare(&imf().init(&device).expect("valid"), &file);
    assert!(report.fits() && report.unexpected.is_empty(), "{report}");
    // A network with the head of v reads all of it.
    let with_head = ImfConfig { shape: Shape { v_heads: true, ..imf().shape } };
    let report = tintype::weights::compare(&with_head.init(&device).expect("valid"), &file);
    assert!(report.missing.iter().any(|name| name == "v_heads.1.attn_scale"), "{report}");
    assert!(report.unexpected.is_empty(), "{report}");

    let mut tensors = of_pmf(&pmf()).tensors;
    tensors.insert("rope_freqs".into(), zeros(&[16, 3, 2]));
    let prefixed = tensors.into_iter().map(|(name, view)| (format!("net.{name}"), view)).collect();
    let bytes = write_safetensors(&prefixed, &Default::default()).expect("a file");
    let file = Weights::from_bytes(bytes, "x.safetensors").expect("it opens");
    let found = detect(&file).expect("a pMF");
    assert_eq!(found, Architecture::from(pmf()));
    let report = found.untrained(&device).expect("valid").compare(&file);
    assert!(report.fits() && report.unexpected.is_empty(), "{report}");
    assert!(file.tensors.values().all(|view| view.dtype == Dtype::F32));
}

/// One number for each of two samples.
fn pair(values: [f32; 2]) -> Tensor<1> {
    Tensor::from_data(TensorData::from(values), &Device::flex())
}

fn labels(values: [i32; 2]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(values), &Device::flex())
}

fn condition(omega: [f32; 2], y: [i32; 2]) -> Condition {
    let (t_min, t_max) = (pair([0.4, 0.2]), pair([0.6, 0.7]));
    Condition { h: pair([1.0, 0.5]), omega: pair(omega), t_min, t_max, y: labels(y) }
}

fn state(channels: usize, side: usize) -> Tensor<4> {
    let count = 2 * channels * side * side;
    let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [2, channels, side, side]), &Device::flex())
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} and {b}");
    }
}

#[test]
fn untrained_networks_predict_no_velocity_or_no_image() {
    let device = Device::flex();
    let imf = imf().init(&device).expect("valid");
    let u = imf.u(state(4, 32), pair([1.0, 0.5]), condition([8.0, 1.0], [0, 6]));
    assert!(values(u).iter().all(|&u| u == 0.0));
    let pmf = pmf().init(&device).expect("valid");
    let z = state(3, 16);
    // The second time is below the floor of the division.
    let u = pmf.u(z.clone(), pair([0.5, 0.01]), condition([8.0, 1.0], [0, 6]));
    let expected =
        z / Tensor::<4>::from_data(TensorData::new(vec![0.5f32, 0.05], [2, 1, 1, 1]), &device);
    assert_close(&values(u), &values(expected));
}

#[test]
fn samples_do_not_see_each_other_and_conditions_matter() {
    let device = Device::flex();
    let untrained = pmf().init(&device).expect("valid");
    let loaded = tintype::weights::load(untrained, &of_pmf(&pmf()), FloatDType::F32, &device);
    let network = loaded.expect("it fits").network;
    let z = state(3, 16);
    let t = pair([1.0, 0.5]);
    let u = |omega, y| network.u(z.clone(), t.clone(), condition(omega, y));
    let both = u([8.0, 2.0], [0, 5]);
    let [first, second] = [0, 1].map(|i| values(both.clone().narrow(0, i, 1)));
    let other = u([8.0, 4.0], [0, 5]);
    assert_close(&first, &values(other.clone().narrow(0, 0, 1)));
    let differs = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4);
    assert!(differs(&second, &values(other.narrow(0, 1, 1))), "guidance is an input");
    let unconditional = u([8.0, 2.0], [0, 6]);
    assert!(differs(&second, &values(unconditional.narrow(0, 1, 1))), "the class is one, too");
    // The instantaneous velocity is that over no time, unguided.
    let v = network.predict(z.clone(), t.clone(), labels([0, 5]));
    let at_once = Condition::instantaneous(labels([0, 5]), &t);
    assert_close(&values(v), &values(network.u(z, t, at_once)));
}

fn pipeline(model: &Weights, vae: Option<&Weights>) -> Pipeline {
    let parts = Parts { model, vae, stats: None, guide: None };
    Pipeline::load(parts, FloatDType::F32, &Device::flex()).expect("it loads")
}

/// The pictures of these seeds, and the times of the steps.
fn make(
    pipeline: &Pipeline,
    settings: Settings,
    seeds: &[u64],
) -> Result<(Vec<Vec<u8>>, Vec<f64>), GenerateError> {
    let spec = |&seed: &u64| ImageSpec::new(Some(3), seed, 0);
    let request = Request { settings, images: seeds.iter().map(spec).collect() };
    let (mut pictures, mut times) = (Vec::new(), Vec::new());
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Image(picture) => pictures.push(picture.image.pixels),
            Event::Step { time, preview, .. } => {
                assert_eq!(preview.clean.dims()[0], seeds.len());
                times.push(time);
            }
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event))?;
    Ok((pictures, times))
}

#[test]
fn pictures_take_one_evaluation_a_step() {
    let pipeline = pipeline(&of_pmf(&pmf()), None);
    let settings = |steps, scale| {
        Settings::new(Sampler::MeanFlow, steps, Guidance { high: 0.7, ..Guidance::new(scale) })
    };
    let run = |steps, scale, seeds: &[u64]| {
        make(&pipeline, settings(steps, scale), seeds).expect("pictures")
    };
    let (one, times) = run(1, 7.5, &[1, 2]);
    assert_eq!((one[0].len(), times), (3 * 16 * 16, vec![1.0]));
    let (four, times) = run(4, 7.5, &[2]);
    assert_eq!(times, [1.0, 0.75, 0.5, 0.25]);
    assert_ne!(four[0], one[1]);
    assert_eq!(run(1, 7.5, &[2]).0[0], one[1], "a picture does not depend on the others");
    assert_ne!(run(1, 2.0, &[2]).0[0], one[1]);
    // Without guidance there is no interval.
    let whole = Settings::new(Sampler::MeanFlow, 1, Guidance::NONE);
    let whole = make(&pipeline, whole, &[2]).expect("a picture");
    assert_eq!(run(1, 1.0, &[2]).0, whole.0);
}

#[test]
fn latents_need_an_autoencoder_and_no_statistics() {
    let config = f8d4();
    let tensors = snapshot(&config.init_decoder(&Device::flex()).expect("valid"));
    let vae = Weights { file: "vae".into(), tensors, ..Weights::default() };
    let vae = configured(vae, serde_json::json!(config));
    let small = serde_json::json!({"input_size": 8});
    let pipeline = pipeline(&configured(of_imf(&imf()), small), Some(&vae));
    assert_eq!(pipeline.image_size(), [64, 64]);
    let (pictures, _) =
        make(&pipeline, pipeline.architecture().default_settings(), &[1]).expect("a picture");
    assert_eq!(pictures[0].len(), 3 * 64 * 64);
    // Raw latents, by the constants of the authors.
    let network = imf().init(&Device::flex()).expect("valid");
    let ones = Tensor::<4>::ones([1, 4, 1, 1], &Device::flex());
    let raw = values(network.denormalize(ones));
    assert_close(&raw, &[5.719_917, 5.041_351, 4.153_423, 4.360_841]);
}

#[test]
fn what_the_networks_were_not_trained_with_is_refused() {
    let architecture = Architecture::from(imf());
    let settings = |guidance| Settings::new(Sampler::MeanFlow, 1, guidance);
    let refused = |settings: Settings| settings.validate(&architecture).expect_err("refused");
    for preset in ["imf-b-2", "imf-xl-2", "pmf-b-16", "pmf-h-32"] {
        let architecture = tintype::preset::find(preset).expect("a preset").architecture;
        let own = architecture.default_settings();
        own.validate(&architecture).expect("its own settings");
        assert_eq!((own.sampler, own.steps), (Sampler::MeanFlow, 1));
        assert!(own.guidance.scale > 1.0);
    }
    let error = refused(settings(Guidance::new(0.5)));
    assert_eq!(error.setting, Setting::GuidanceScale);
    assert_eq!(error.to_string(), "guidance scale 0.5 is not 1 or more");
    let error = refused(settings(Guidance { high: 1.5, ..Guidance::new(8.0) }));
    assert_eq!(error.to_string(), "guidance interval 1.5 is not between 0 and 1");
    let network = "iMF";
    let error = refused(settings(Guidance { channels: Some(3), ..Guidance::new(8.0) }));
    assert_eq!(
        (error.setting, error.problem),
        (Setting::GuidanceChannels, Problem::NotOf { network })
    );
    let error = refused(Settings { shift: 0.3, ..settings(Guidance::new(8.0)) });
    assert_eq!((error.setting, error.problem), (Setting::TimeShift, Problem::NotOf { network }));
    let error = refused(Settings::new(Sampler::Euler, 1, Guidance::NONE));
    assert!(error.to_string().ends_with("does not fit iMF; use mean-flow"), "{error}");
}

#[test]
fn guidance_is_an_input_and_takes_no_guide() {
    let (model, guide) = (of_pmf(&pmf()), Weights { file: "guide.pth".into(), ..of_pmf(&pmf()) });
    let parts = Parts { model: &model, vae: None, stats: None, guide: Some(&guide) };
    match Pipeline::load(parts, FloatDType::F32, &Device::flex()) {
        Err(LoadError::IncompatibleParts(why)) => {
            assert!(why.contains("x.pth") && why.contains("guide.pth"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_network_that_is_none_is_refused() {
    let message = |change: fn(&mut Shape)| {
        let mut config = imf();
        change(&mut config.shape);
        config.validate().expect_err("it is none").0
    };
    assert!(message(|shape| shape.hidden_size = 0).contains("hidden_size 0"));
    assert!(message(|shape| shape.num_heads = 0).contains("num_heads 0"));
    assert!(message(|shape| shape.num_heads = 8).contains("head size 3"));
    assert!(message(|shape| shape.input_size = 30).contains("input_size 30"));
    assert!(message(|shape| shape.aux_head_depth = 4).contains("aux_head_depth 4"));
    assert!(message(|shape| shape.num_cfg_tokens = 0).contains("tokens"));
    assert!(
        message(|shape| shape.input_size = 1 << 40).contains("input_size 1099511627776 is above")
    );
    assert!(message(|shape| shape.in_channels = usize::MAX).contains("in_channels"));
    assert!(message(|shape| shape.hidden_size <<= 40).contains("hidden_size"));
    assert!(message(|shape| shape.mlp_hidden = usize::MAX).contains("mlp_hidden"));
    assert!(message(|shape| shape.num_classes = usize::MAX).contains("num_classes"));
    let pmf = |change: fn(&mut PmfConfig)| {
        let mut config = pmf();
        change(&mut config);
        config.validate().expect_err("it is none").0
    };
    assert!(pmf(|config| config.noise_scale = 0.0).contains("noise_scale"));
    assert!(pmf(|config| config.pca_channels = 0).contains("pca_channels"));
    assert!(pmf(|config| config.pca_channels = usize::MAX).contains("is above"));
    assert!(pmf(|config| config.shape.num_heads = 12).contains("divisible by 4"));
}
