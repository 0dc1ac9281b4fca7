//! Models as people have them: what is said of them before and while they load.
#![cfg(all(feature = "cpu", feature = "embedded-model"))]
#![recursion_limit = "256"]

use tintype::burn::module::{Module, ModuleVisitor, Param};
use tintype::burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use tintype::device::{Found, Kind};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{
    Event, ImageSpec, LoadError, ModelFiles, ModelPaths, Pipeline, Request, Sampler, Settings,
};
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::{Architecture, detect};
use tintype::precision::Precision;
use tintype::weights::{
    Dtype, TensorView, Weights, load, load_for_inference, open, write_safetensors,
};
use tintype_test_models::configs::{ditdh, imf, jit, lightningdit, pmf, sit};
use tintype_test_models::tensors;

fn found(memory: Option<u64>) -> Found {
    Found {
        id: "gpu:0".into(),
        description: "a device with this much memory".into(),
        kind: Kind::Discrete,
        memory,
        device: Device::flex(),
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_both_sizes() {
    let files = ModelFiles::embedded().expect("it is inside");
    match files.load(Precision::F32, &found(Some(1 << 20))) {
        Err(LoadError::Memory { needed, free, .. }) => {
            assert!(needed > 40_000_000 && free == 1 << 20, "{needed} of {free}");
        }
        other => panic!("{other:?}"),
    }
    assert!(files.load(Precision::F32, &found(Some(1 << 30))).is_ok());
    assert!(files.load(Precision::F32, &found(None)).is_ok());
}

#[test]
fn memory_is_counted_of_what_is_loaded() {
    let needed = |files: &ModelFiles| match files.load(Precision::F32, &found(Some(1))) {
        Err(LoadError::Memory { needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    let mut files = ModelFiles::embedded().expect("it is inside");
    let alone = needed(&files);
    // What a training checkpoint holds besides, and the encoder.
    let rest = TensorView::from_f32(vec![1 << 16], &[0.0; 1 << 16]).expect("as many");
    for name in ["loss.perceptual.weight", "foundation_model.weight", "optimizer.weight"] {
        files.model.tensors.insert(name.into(), rest.clone());
    }
    let vae = files.vae.as_mut().expect("an autoencoder");
    vae.tensors.insert("encoder.conv_in.weight".into(), rest);
    assert_eq!(needed(&files), alone);
    // Weights of layers in the file's 16 bits, the rest of both networks in float32, and three activations of 64
    // channels by 128 by 128 pixels.
    let embedded = ModelFiles::embedded().expect("it is inside");
    let size = |view: &TensorView| if view.shape.len() == 2 { 2 } else { 4 };
    let network: u64 =
        embedded.model.tensors.values().map(|view| view.len() as u64 * size(view)).sum();
    let values =
        |weights: &Weights| weights.tensors.values().map(|view| view.len() as u64).sum::<u64>();
    let weights = network + 4 * embedded.vae.as_ref().map_or(0, values);
    let activations = 4 * 3 * 64 * 128 * 128;
    assert!(alone > activations && alone.abs_diff(weights + activations) < weights / 100);
    // A guide is a second network.
    files.guide = Some(embedded.model.clone());
    let more = needed(&files) - alone;
    assert!(more.abs_diff(network) < weights / 100, "{more}");
}

/// The same tensors in another dtype.
fn converted(weights: &Weights, dtype: Dtype) -> Weights {
    let mut weights = weights.clone();
    for view in weights.tensors.values_mut() {
        *view = view.converted(dtype).expect("its numbers are small");
    }
    weights
}

/// What a network predicts, and the bytes of its parameters.
fn prediction(architecture: &Architecture, weights: &Weights) -> (TensorData, usize) {
    prediction_in(FloatDType::F32, architecture, weights)
}

/// [`prediction`] of a flow in another precision.
fn prediction_in(
    precision: FloatDType,
    architecture: &Architecture,
    weights: &Weights,
) -> (TensorData, usize) {
    let device = Device::flex();
    let untrained = architecture.untrained(&device).expect("valid");
    let memory = untrained.memory(weights, precision, &device);
    let (network, _) = untrained.load(weights, precision, &device).expect("it fits");
    let [c, h, w] = architecture.state_shape();
    let values: Vec<f32> = (0..2 * c * h * w).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = Tensor::<4>::from_data(TensorData::new(values, [2, c, h, w]), &device);
    let times = Tensor::<1>::from_data(TensorData::from([0.3f32, 0.7]), &device);
    let labels = Tensor::<1, Int>::from_data(TensorData::from([1i32, 2]), &device);
    let predicted = network.predict(x.cast(precision), times, labels);
    (predicted.cast(FloatDType::F32).into_data(), memory)
}

/// Tables of rotations and frequencies stay in float32 beside layers of 16 bits.
#[test]
fn networks_compute_in_16_bits_on_the_processor() {
    fn of<M: Module>(network: &M, scale: f32) -> Weights {
        Weights { tensors: tensors(network, scale, |_| false), ..Weights::default() }
    }
    let device = Device::flex();
    let qk_norm = LightningDiTConfig { use_qknorm: true, ..lightningdit() };
    let networks = [
        (
            of(&lightningdit().init(&device).expect("valid"), 0.4),
            Architecture::from(lightningdit()),
        ),
        (of(&qk_norm.init(&device).expect("valid"), 0.4), Architecture::from(qk_norm)),
        // Its condition of each token is not normalised, and leaves the range of f16 with larger weights.
        (of(&ditdh().init(&device).expect("valid"), 0.1), Architecture::from(ditdh())),
        (of(&jit().init(&device).expect("valid"), 0.4), Architecture::from(jit())),
    ];
    let norm = |values: &[f32]| values.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
    for (weights, architecture) in networks {
        let of = |precision| {
            let (data, _) = prediction_in(precision, &architecture, &weights);
            data.iter::<f32>().collect::<Vec<_>>()
        };
        let expected = of(FloatDType::F32);
        for (precision, most) in [(FloatDType::F16, 0.05), (FloatDType::BF16, 0.25)] {
            let found = of(precision);
            let difference: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let share = norm(&difference) / norm(&expected);
            assert!(share < most, "{} in {precision:?}: {share}", architecture.name());
        }
    }
}

#[test]
fn weights_of_16_bits_predict_what_widened_ones_do() {
    let device = Device::flex();
    let of = |tensors| Weights { file: "tiny".into(), tensors, ..Weights::default() };
    let is_one = |name: &str| name.ends_with("running_var");
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let hdit = open(&cases.join("kdiffusion.pth")).expect("an HDiT");
    let of_sit = of(tensors(&sit().init(&device).expect("valid"), 0.4, is_one));
    let of_lightningdit = of(tensors(&lightningdit().init(&device).expect("valid"), 0.4, is_one));
    let of_ditdh = of(tensors(&ditdh().init(&device).expect("valid"), 0.4, is_one));
    let of_imf = of(tensors(&imf().init(&device).expect("valid"), 0.4, is_one));
    let of_pmf = of(tensors(&pmf().init(&device).expect("valid"), 0.4, is_one));
    let of_jit = of(tensors(&jit().init(&device).expect("valid"), 0.4, is_one));
    let emoji = ModelFiles::embedded().expect("it is inside").model;
    let networks = [
        (Architecture::from(sit()), of_sit, Dtype::F16),
        (Architecture::from(lightningdit()), of_lightningdit, Dtype::BF16),
        (Architecture::from(ditdh()), of_ditdh, Dtype::BF16),
        (Architecture::from(imf()), of_imf, Dtype::F16),
        (Architecture::from(pmf()), of_pmf, Dtype::BF16),
        (Architecture::from(jit()), of_jit, Dtype::F16),
        (detect(&hdit).expect("an HDiT"), hdit, Dtype::F16),
        (detect(&emoji).expect("a Hi-DiT"), emoji, Dtype::F16),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (architecture, weights, dtype) in networks {
        let name = architecture.name();
        let narrow = converted(&weights, dtype);
        let wide = converted(&narrow, Dtype::F32);
        let path = folder.path().join(format!("{name}.safetensors"));
        let bytes = write_safetensors(&narrow.tensors, &narrow.metadata).expect("it writes");
        std::fs::write(&path, bytes).expect("it writes");
        let narrow = open(&path).expect("it opens");
        let (expected, of_wide) = prediction(&architecture, &wide);
        let values = expected.iter::<f32>().collect::<Vec<_>>();
        assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0), "{name}");
        // Again: what a mapped file has given back is read anew.
        for _ in 0..2 {
            let (found, of_narrow) = prediction(&architecture, &narrow);
            found.assert_eq(&expected, true);
            assert!(of_narrow < of_wide, "{name}: {of_narrow} and {of_wide}");
        }
    }
}

/// The dtypes of parameters: of matrices that are no tables, and of the others.
#[derive(Default)]
struct Seen {
    path: String,
    layers: Vec<DType>,
    others: Vec<DType>,
}

impl ModuleVisitor for Seen {
    fn enter_module(&mut self, name: &str, _: &str) {
        if name == "weight" || name == "embedding_table" {
            self.path = format!("{} {name}", self.path);
        }
    }
    fn exit_module(&mut self, name: &str, _: &str) {
        if let Some(path) = self.path.strip_suffix(&format!(" {name}")) {
            self.path = path.into();
        }
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let dtype = param.val().dtype();
        match D == 2 && self.path == " weight" {
            true => self.layers.push(dtype),
            false => self.others.push(dtype),
        }
    }
}

#[test]
fn weights_of_layers_alone_keep_16_bits_and_for_inference_alone() {
    let device = Device::flex();
    let network = || sit().init(&device).expect("valid");
    let tensors = tensors(&network(), 0.4, |name| name.ends_with("running_var"));
    let weights = Weights { file: "tiny".into(), tensors, ..Weights::default() };
    let weights = converted(&weights, Dtype::F16);
    let seen = |network: tintype::model::sit::SiT| {
        let mut seen = Seen::default();
        network.visit(&mut seen);
        assert!(seen.layers.len() > 5 && seen.others.len() > 10);
        (seen.layers, seen.others)
    };
    let all = |dtypes: &[DType], dtype: DType| dtypes.iter().all(|found| *found == dtype);
    let loaded = load_for_inference(network(), &weights, FloatDType::F32, &device);
    let (layers, others) = seen(loaded.expect("it fits").network);
    assert!(all(&layers, DType::F16) && all(&others, DType::F32), "{layers:?} and {others:?}");
    let loaded = load(network(), &weights, FloatDType::F32, &device);
    let (layers, others) = seen(loaded.expect("it fits").network);
    assert!(all(&layers, DType::F32) && all(&others, DType::F32), "{layers:?} and {others:?}");
}

#[test]
fn inspecting_tells_what_loading_would() {
    let device = Device::flex();
    let files = ModelFiles::embedded().expect("it is inside");
    let inspection = files.inspect(&device).expect("it would load");
    let pipeline = files.load(Precision::F32, &found(None)).expect("it loads");
    assert_eq!(inspection.architecture, *pipeline.architecture());
    assert_eq!(inspection.image_size, pipeline.image_size());
    assert_eq!(inspection.labels, *pipeline.labels());
    assert_eq!(inspection.reports.len(), 2);
    assert!(inspection.reports.iter().all(|(_, report)| report.fits()));
    let alone = ModelFiles { vae: None, ..ModelFiles::embedded().expect("it is inside") };
    assert!(matches!(alone.inspect(&device), Err(LoadError::NoVae("Hi-DiT"))));
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let paths =
        ModelPaths { model: Some(models.join("vae-decoder.safetensors")), ..Default::default() };
    let vae = ModelFiles::open(&paths).expect("it opens");
    let trouble = vae.inspect(&device).expect_err("an autoencoder is no network").to_string();
    assert!(trouble.contains("autoencoder"), "{trouble}");
}

/// Steps at which the pixel stream was at work.
fn pixel_steps(pipeline: &Pipeline, settings: Settings) -> Vec<usize> {
    let request = Request { settings, images: vec![ImageSpec::new(Some(1), 1, 0)] };
    let mut steps = Vec::new();
    let mut on_event = async |event: Event<'_>| {
        if let Event::Step { index, preview, .. } = event
            && let Some(pixels) = preview.pixels
        {
            assert_eq!(pixels.dims(), [1, 3, 128, 128]);
            steps.push(index);
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event)).expect("a picture");
    steps
}

#[test]
fn the_gate_opens_where_the_request_says() {
    let files = ModelFiles::embedded().expect("it is inside");
    let pipeline = files.load(Precision::F32, &found(None)).expect("it loads");
    assert_eq!(pipeline.gate(), Some(0.3));
    let settings = Settings {
        steps: 4,
        sampler: tintype::generate::Sampler::Euler,
        ..pipeline.architecture().default_settings()
    };
    // Times 1, 0.75, 0.5, 0.25.
    assert_eq!(pixel_steps(&pipeline, settings), [3]);
    let at = |tau| pixel_steps(&pipeline, Settings { tau: Some(tau), ..settings });
    assert_eq!(at(0.3), [3]);
    assert_eq!(at(0.6), [2, 3]);
    assert_eq!(at(0.0), [0; 0]);
}

/// Both streams come from both networks, for the same class and with the gate at the same time.
#[test]
fn a_network_of_two_streams_that_guides_itself_is_not_guided() {
    let mut files = ModelFiles::embedded().expect("it is inside");
    let alone = files.load(Precision::F32, &found(None)).expect("it loads");
    files.guide = Some(files.model.clone());
    let inspection = files.inspect(&Device::flex()).expect("it would load");
    assert_eq!(inspection.reports.len(), 3);
    let guided = files.load(Precision::F32, &found(None)).expect("it loads");
    let picture = |pipeline: &Pipeline, scale: f64| {
        let settings =
            Settings { tau: Some(0.6), ..Settings::new(Sampler::Euler, 2, Guidance::new(scale)) };
        let images = vec![ImageSpec::new(Some(1), 1, 0)];
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
    };
    let unguided = picture(&alone, 1.0);
    assert_eq!(picture(&guided, 3.0), unguided);
    assert_ne!(picture(&alone, 3.0), unguided);
}
