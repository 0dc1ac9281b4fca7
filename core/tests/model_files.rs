//! Models as people have them: what is said of them before and while they load.
#![cfg(all(feature = "cpu", feature = "embedded-model"))]

use tintype::burn::tensor::Device;
use tintype::device::{Found, Kind};
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{
    Event, ImageSpec, LoadError, ModelFiles, ModelPaths, Pipeline, Request, Sampler, Settings,
};
use tintype::precision::Precision;
use tintype::weights::{TensorView, Weights};

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
            assert!(needed > 50_000_000 && free == 1 << 20, "{needed} of {free}");
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
    // Both networks in float32, and three activations of 64 channels by 128 by 128 pixels.
    let values =
        |weights: &Weights| weights.tensors.values().map(|view| view.len() as u64).sum::<u64>();
    let embedded = ModelFiles::embedded().expect("it is inside");
    let weights = 4 * (values(&embedded.model) + embedded.vae.as_ref().map_or(0, values));
    let activations = 4 * 3 * 64 * 128 * 128;
    assert!(alone > activations && alone.abs_diff(weights + activations) < weights / 100);
    // A guide is a second network.
    files.guide = Some(embedded.model.clone());
    let more = needed(&files) - alone;
    assert!(more.abs_diff(4 * values(&embedded.model)) < weights / 100, "{more}");
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
