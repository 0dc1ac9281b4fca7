//! Pictures are functions of their requests, and finite, whatever the sampler: of small networks whose operations
//! do not depend on the batch.
#![cfg(feature = "cpu")]
#![recursion_limit = "256"]

use std::sync::{Arc, Mutex};

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use serde_json::{Value, json};
use tintype::Precision;
#[cfg(feature = "wgpu")]
use tintype::device::state_dtype;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{
    Answer, Event, GenerateError, Half, HalfError, ImageSpec, LoadError, Parts, Picture, Pipeline,
    Request, Rows, SecondHalf, between,
};
use tintype::model::{
    Architecture, Clock, DiffusionModel, Family, InvalidConfig, LatentSpace, Network, Process,
    Untrained, register,
};
use tintype::noise::{Blend, ImageKey, Stream, normals};
use tintype::settings::{Sampler, Settings};
use tintype::weights::{TensorView, Weights, WeightsError};

static FAMILY: Family = Family { name: "Toy", recognize };

const SHAPE: [usize; 3] = [3, 16, 24];

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    let kind = weights.metadata.get("toy");
    Ok(kind.map(|kind| {
        let classes = if kind.ends_with("of classes") { 2 } else { 0 };
        ToyConfig { denoises: kind.starts_with("denoiser"), classes }.into()
    }))
}

#[derive(Clone, Copy, Debug)]
struct ToyConfig {
    denoises: bool,
    classes: usize,
}

#[derive(Module, Debug)]
struct Toy {
    /// `[1]`; enters twice, so that a finite one can lead out of every range.
    gain: Param<Tensor<1>>,
    denoises: bool,
    classes: usize,
}

impl Network for Toy {
    /// A decay that ends near 0, or what a denoiser sees of data about ±1.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let mut gain: Tensor<4> = self.gain.val().reshape([1, 1, 1, 1]);
        if self.classes > 0 {
            let labels: Tensor<4> = labels.float().reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
            gain = gain * (labels * 0.1 + 0.8);
        }
        let y = if self.denoises {
            let sigma: Tensor<4> = times.reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
            (x / (sigma.square() + 1.0)).tanh()
        } else {
            (x * 2.0).tanh() * 0.8
        };
        y * gain.clone() * gain
    }
}

impl DiffusionModel for ToyConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> Value {
        json!({"denoises": self.denoises, "classes": self.classes})
    }

    fn state_shape(&self) -> [usize; 3] {
        SHAPE
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        None
    }

    fn num_classes(&self) -> usize {
        self.classes
    }

    fn process(&self) -> Process {
        match self.denoises {
            true => Process::Denoiser { sigma_min: 0.05, sigma_max: 5.0 },
            false => Process::Flow(Clock::NoiseAtOne),
        }
    }

    fn samplers(&self) -> &'static [Sampler] {
        if self.denoises { &Sampler::KARRAS } else { &Sampler::FLOW }
    }

    fn default_settings(&self) -> Settings {
        Settings::new(Sampler::Euler, 6, Guidance::NONE)
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        let gain = Initializer::Ones.init([1], device);
        Ok(Box::new(Toy { gain, denoises: self.denoises, classes: self.classes }))
    }
}

fn toy(file: &str, kind: &str, gain: f32) -> Weights {
    register(&FAMILY);
    let gain = TensorView::from_f32(vec![1], &[gain]).expect("one value");
    Weights {
        file: file.into(),
        tensors: [("gain".to_string(), gain)].into(),
        metadata: [("toy".to_string(), kind.to_string())].into(),
        ..Weights::default()
    }
}

fn pipeline(kind: &str, gain: f32, precision: FloatDType) -> Pipeline {
    pipeline_on(&Device::flex(), kind, gain, precision)
}

fn pipeline_on(device: &Device, kind: &str, gain: f32, precision: FloatDType) -> Pipeline {
    let model = toy("toy", kind, gain);
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    Pipeline::load(parts, precision, device).expect("it loads")
}

/// The pictures, with the indices of the steps; each step shows all of them.
fn make(
    pipeline: &Pipeline,
    sampler: Sampler,
    seeds: &[u64],
) -> Result<(Vec<Picture>, Vec<usize>), GenerateError> {
    let settings = Settings { sampler, ..pipeline.architecture().default_settings() };
    make_with(pipeline, settings, seeds)
}

/// [`make`] with any settings.
fn make_with(
    pipeline: &Pipeline,
    settings: Settings,
    seeds: &[u64],
) -> Result<(Vec<Picture>, Vec<usize>), GenerateError> {
    let images = seeds.iter().map(|&seed| ImageSpec::new(None, seed, 0)).collect();
    make_images(pipeline, settings, images)
}

/// [`make_with`] of any images.
fn make_images(
    pipeline: &Pipeline,
    settings: Settings,
    images: Vec<ImageSpec>,
) -> Result<(Vec<Picture>, Vec<usize>), GenerateError> {
    let count = images.len();
    let (mut pictures, mut steps) = (Vec::new(), Vec::new());
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Step { index, preview, .. } => {
                let [channels, height, width] = SHAPE;
                assert_eq!(preview.clean.dims(), [count, channels, height, width]);
                steps.push(index);
            }
            Event::Image(picture) => pictures.push(picture),
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&Request { settings, images }, &mut on_event))?;
    Ok((pictures, steps))
}

#[test]
fn an_image_is_the_same_alone_and_among_others() {
    for kind in ["flow", "denoiser"] {
        let pipeline = pipeline(kind, 1.0, FloatDType::F32);
        let mut seen = Vec::new();
        for &sampler in pipeline.architecture().samplers() {
            let (together, steps) = make(&pipeline, sampler, &[3, 1, 4]).expect("pictures");
            assert_eq!(together.len(), 3);
            // Counted on from image to image.
            assert!(steps.iter().copied().eq(0..steps.len()), "{sampler:?}: {steps:?}");
            // The first and the last step of some samplers take one.
            if let Some(each) = sampler.evaluations() {
                let steps = pipeline.architecture().default_settings().steps;
                let expected = each * (steps - 2) + 2..=each * steps;
                let evaluations = together[0].evaluations;
                assert!(expected.contains(&evaluations), "{sampler:?}: {evaluations}");
            }
            for (index, picture) in together.iter().enumerate() {
                assert_eq!(picture.index, index);
                let alone = make(&pipeline, sampler, &[picture.spec.seed]).expect("a picture").0;
                assert_eq!(alone[0].image, picture.image, "{sampler:?}, image {index}");
            }
            seen.push(together[0].image.clone());
        }
        assert!(seen.iter().any(|image| *image != seen[0]), "samplers differ");
    }
}

#[test]
fn a_row_from_seed_to_seed_has_their_pictures_at_its_ends() {
    for kind in ["flow", "denoiser"] {
        let pipeline = pipeline(kind, 1.0, FloatDType::F32);
        let usual = pipeline.architecture().default_settings();
        let own = ImageSpec::new(None, 3, 0);
        let other = ImageSpec::new(None, 1, 0);
        let blended = |amount| ImageSpec { blend: Some(Blend { seed: 1, amount }), ..own };
        for &sampler in pipeline.architecture().samplers() {
            let images = |specs: Vec<ImageSpec>| -> Vec<_> {
                let settings = Settings { sampler, ..usual };
                let made = make_images(&pipeline, settings, specs).expect("pictures").0;
                made.into_iter().map(|picture| picture.image).collect()
            };
            let ends = images(vec![own, other]);
            let row = images(between(None, [3, 1], 0, 4));
            assert_eq!([&row[0], &row[3]], [&ends[0], &ends[1]], "{sampler:?}");
            assert!(row[0] != row[1] && row[1] != row[2] && row[2] != row[3], "{sampler:?}");
            assert_eq!(images(vec![blended(0.0), blended(1.0)]), ends, "{sampler:?}");
        }
    }
}

#[test]
fn a_blend_is_an_amount_from_0_to_1() {
    let pipeline = pipeline("flow", 1.0, FloatDType::F32);
    let architecture = pipeline.architecture();
    let check = |amount| {
        let own = ImageSpec::new(None, 3, 0);
        let blended = ImageSpec { blend: Some(Blend { seed: 1, amount }), ..own };
        let settings = architecture.default_settings();
        Request { settings, images: vec![own, blended] }.validate(architecture)
    };
    for amount in [0.0, 0.5, 1.0] {
        assert_eq!(check(amount), Ok(()));
    }
    for amount in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = check(amount).expect_err("it is refused").to_string();
        assert_eq!(error, format!("blend {amount} is not between 0 and 1"));
    }
}

/// NaN was a black picture, and with an adaptive sampler a failure of the device.
#[test]
fn values_that_are_not_finite_are_an_error() {
    for kind in ["flow", "denoiser"] {
        let pipeline = pipeline(kind, 1e30, FloatDType::F32);
        for &sampler in pipeline.architecture().samplers() {
            match make(&pipeline, sampler, &[0]) {
                Err(GenerateError::NotFinite { precision, instead }) => {
                    assert_eq!((precision, instead), (Precision::F32, Vec::new()), "{sampler:?}");
                }
                other => panic!("{sampler:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_run_whose_values_are_not_finite_ends_with_its_first_step() {
    let pipeline = pipeline("flow", 1e30, FloatDType::F32);
    let usual = pipeline.architecture().default_settings();
    let images = vec![ImageSpec::new(None, 0, 0)];
    let request = Request { settings: Settings { steps: 50, ..usual }, images };
    let mut told = 0;
    let mut on_event = async |_: Event<'_>| {
        told += 1;
        Ok(())
    };
    let result = pollster::block_on(pipeline.generate(&request, &mut on_event));
    assert!(matches!(result, Err(GenerateError::NotFinite { .. })), "{result:?}");
    assert_eq!(told, 0);
}

/// wgpu has no float64: the state is float32 there.
#[cfg(feature = "wgpu")]
#[test]
fn a_float32_state_makes_the_pictures_of_a_float64_state() {
    let Ok(chosen) = tintype::device::choose("wgpu") else {
        return println!("no wgpu adapter, nothing to compare");
    };
    let (wide, narrow) = (Device::flex(), chosen.found.device);
    assert_eq!([&wide, &narrow].map(state_dtype), [FloatDType::F64, FloatDType::F32]);
    for (kind, sampler, steps) in [
        ("flow", Sampler::Euler, 50),
        ("flow", Sampler::UniPc, 12),
        ("flow", Sampler::EulerMaruyama, 50),
        ("flow", Sampler::Dopri5, 1),
        ("denoiser", Sampler::DpmPp2m, 12),
        ("denoiser", Sampler::DpmPp3mSde, 25),
    ] {
        let values = |device: &Device| -> Vec<u8> {
            let pipeline = pipeline_on(device, kind, 1.0, FloatDType::F32);
            let usual = pipeline.architecture().default_settings();
            let settings = Settings { sampler, steps, ..usual };
            let pictures = make_with(&pipeline, settings, &[3, 1]).expect("pictures").0;
            pictures.into_iter().flat_map(|picture| picture.image.pixels).collect()
        };
        let (expected, found) = (values(&wide), values(&narrow));
        assert!(expected.iter().any(|value| *value != expected[0]), "{sampler:?}: one colour");
        // A value beside the middle of two levels falls to either.
        let off = expected.iter().zip(&found).map(|(a, b)| a.abs_diff(*b)).filter(|&off| off > 0);
        let off: Vec<u8> = off.collect();
        assert!(off.iter().all(|&levels| levels == 1), "{kind}, {sampler:?}: {off:?}");
        let most = expected.len() / 200;
        assert!(off.len() <= most, "{kind}, {sampler:?}: {} of {}", off.len(), expected.len());
    }
    // What is not finite is found there, too, whether a step waits for the device or the picture is read.
    for (sampler, steps) in [(Sampler::Euler, 1), (Sampler::UniPc, 12), (Sampler::Dopri5, 1)] {
        let pipeline = pipeline_on(&narrow, "flow", 1e30, FloatDType::F32);
        let usual = pipeline.architecture().default_settings();
        let result = make_with(&pipeline, Settings { sampler, steps, ..usual }, &[3]);
        assert!(matches!(result, Err(GenerateError::NotFinite { .. })), "{sampler:?}");
    }
}

#[test]
fn a_narrow_precision_names_the_wider_ones() {
    for (dtype, precision) in
        [(FloatDType::F16, Precision::F16), (FloatDType::BF16, Precision::Bf16)]
    {
        // In range of the weights, and not of their square.
        let gain = if precision == Precision::F16 { 6e4 } else { 1e30 };
        let error = make(&pipeline("flow", gain, dtype), Sampler::Euler, &[0]);
        let error = error.expect_err("it is not finite");
        let sentence = error.to_string();
        assert!(sentence.contains(&format!("range of {precision}")), "{sentence}");
        match error {
            GenerateError::NotFinite { instead, .. } => assert_eq!(instead, precision.wider()),
            other => panic!("{other:?}"),
        }
    }
}

/// A network of gain 1 and its guide.
fn guided(kind: &str, guide: (&str, f32)) -> Result<Pipeline, LoadError> {
    let (model, guide) = (toy("network", kind, 1.0), toy("guide", guide.0, guide.1));
    let parts = Parts { model: &model, vae: None, stats: None, guide: Some(&guide) };
    Pipeline::load(parts, FloatDType::F32, &Device::flex())
}

#[test]
fn a_network_that_guides_itself_is_not_guided() {
    for kind in ["flow", "denoiser"] {
        let alone = pipeline(kind, 1.0, FloatDType::F32);
        let itself = guided(kind, (kind, 1.0)).expect("of one kind");
        let other = guided(kind, (kind, 0.7)).expect("of one kind");
        let usual = alone.architecture().default_settings();
        let at =
            |scale| Settings { guidance: Guidance { high: 10.0, ..Guidance::new(scale) }, ..usual };
        // Without classes there is nothing else to guide by.
        let error = make_with(&alone, at(2.0), &[3]).expect_err("it is not guided");
        assert!(error.to_string().contains("needs classes"), "{error}");
        let unguided = make_with(&alone, usual, &[3, 1]).expect("pictures").0;
        let images = |pipeline: &Pipeline, scale: f64| -> Vec<_> {
            let made = make_with(pipeline, at(scale), &[3, 1]).expect("pictures").0;
            let twice = if scale == 1.0 { 1 } else { 2 };
            assert!(made.iter().all(|picture| picture.evaluations == usual.steps * twice));
            made.into_iter().map(|picture| picture.image).collect()
        };
        let expected: Vec<_> = unguided.into_iter().map(|picture| picture.image).collect();
        for scale in [0.0, 0.5, 1.0, 3.0] {
            assert_eq!(images(&itself, scale), expected, "{kind} {scale}");
        }
        assert_eq!(images(&other, 1.0), expected, "{kind}");
        assert_ne!(images(&other, 3.0), expected, "{kind}");
        // At 0 the guide is alone.
        let guide = pipeline(kind, 0.7, FloatDType::F32);
        let alone = make_with(&guide, usual, &[3]).expect("a picture").0;
        assert_eq!(images(&other, 0.0)[0], alone[0].image, "{kind}");
    }
}

#[test]
fn a_guide_takes_the_place_of_the_unconditional_prediction() {
    let pipeline = guided("flow", ("flow", 0.5)).expect("of one kind");
    assert_eq!(pipeline.guide(), Some(pipeline.architecture()));
    let settings = Settings::new(Sampler::Euler, 1, Guidance::new(2.5));
    let picture = make_with(&pipeline, settings, &[3]).expect("a picture").0.remove(0);
    let [channels, height, width] = SHAPE;
    let key = ImageKey::new(3, 0);
    let noise = normals(key, Stream::Start, 0, channels * height * width);
    let velocity = |x: f32, gain: f32| (x * 2.0).tanh() * 0.8 * gain * gain;
    for (place, &x) in noise.iter().enumerate() {
        let guide = velocity(x, 0.5);
        // One step of Euler, from time 1 to 0.
        let clean = x - (guide + 2.5 * (velocity(x, 1.0) - guide));
        let expected = (255.0 * ((clean + 1.0) / 2.0)).clamp(0.0, 255.0) as u8;
        let (channel, at) = (place / (height * width), place % (height * width));
        let found = picture.image.pixels[at * 3 + channel];
        assert!(found.abs_diff(expected) <= 1, "{place}: {found} and {expected}");
    }
}

#[test]
fn a_guide_ends_where_both_networks_agree() {
    let pipeline = guided("flow", ("flow", 0.5)).expect("of one kind");
    let usual = pipeline.architecture().default_settings();
    let settings = Settings { guidance: Guidance::new(2.0), agreement: Some(0.999), ..usual };
    // Their velocities differ by a factor.
    let pictures = make_with(&pipeline, settings, &[3, 1]).expect("pictures").0;
    assert!(pictures.iter().all(|picture| picture.evaluations == usual.steps + 1));
}

#[test]
fn a_denoisers_guidance_ends_where_its_velocities_agree() {
    let itself = guided("denoiser", ("denoiser", 1.0)).expect("of one kind");
    let other = guided("denoiser", ("denoiser", 0.5)).expect("of one kind");
    let usual = itself.architecture().default_settings();
    let make = |pipeline: &Pipeline, sampler, agreement, seeds: &[u64]| {
        let guidance = Guidance { high: 10.0, ..Guidance::new(2.0) };
        let settings = Settings { sampler, guidance, agreement: Some(agreement), ..usual };
        let pictures = make_with(pipeline, settings, seeds).expect("pictures").0.into_iter();
        pictures.map(|picture| (picture.image, picture.evaluations)).collect::<Vec<_>>()
    };
    // Equal predictions agree wholly, others never do.
    for (pipeline, agreement, evaluations) in [
        (&itself, 1.0, usual.steps + 1),
        (&other, 0.0, usual.steps + 1),
        (&other, 1.0, 2 * usual.steps),
    ] {
        let made = make(pipeline, Sampler::Euler, agreement, &[3, 1]);
        assert!(made.iter().all(|(_, counted)| *counted == evaluations), "{agreement}");
    }
    // Each image decides for itself, also where it chooses its steps.
    for sampler in [Sampler::Heun, Sampler::DpmPp3mSde, Sampler::DpmAdaptive] {
        for agreement in [0.9, 0.99, 0.999] {
            let together = make(&other, sampler, agreement, &[3, 1, 4]);
            for (seed, made) in [3, 1, 4].into_iter().zip(together) {
                let alone = make(&other, sampler, agreement, &[seed]).remove(0);
                assert_eq!(alone, made, "{sampler:?} {agreement} {seed}");
            }
        }
    }
}

#[test]
fn settings_that_do_not_apply_are_refused_by_name() {
    let denoiser = Architecture::from(ToyConfig { denoises: true, classes: 0 });
    let hidit = tintype::preset::find("hidit-xl-1-256").expect("a preset").architecture;
    for (architecture, name) in [(denoiser, "Toy"), (hidit, "Hi-DiT")] {
        let usual = architecture.default_settings();
        let agreement = |cosine| Settings { agreement: Some(cosine), ..usual };
        assert_eq!(agreement(0.9).validate(&architecture), Ok(()), "{name}");
        let error = agreement(1.1).validate(&architecture).expect_err("no cosine").to_string();
        assert_eq!(error, "guidance agreement 1.1 is not between 0 and 1");
        let shifted = Settings { shift: 0.3, ..usual }.validate(&architecture);
        match name {
            "Hi-DiT" => assert_eq!(shifted, Ok(())),
            _ => {
                let error = shifted.expect_err("a denoiser has no such times").to_string();
                assert_eq!(error, format!("time shift does not apply to {name}"));
            }
        }
    }
}

#[test]
fn a_guide_of_another_kind_is_refused() {
    let error = guided("flow", ("denoiser", 1.0)).expect_err("another process");
    let sentence = error.to_string();
    assert!(matches!(error, LoadError::IncompatibleParts(_)), "{sentence}");
    for word in ["network is a network of a flow", "guide guide one of a denoiser"] {
        assert!(sentence.contains(word), "{sentence}");
    }
}

/// A pipeline with somebody beside it who gives answers, and what that one was asked for.
fn beside(
    kind: &str,
    answer: impl Fn(Half) -> Option<Answer> + Send + Sync + 'static,
) -> (Pipeline, Arc<Mutex<Vec<Half>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let mut pipeline = pipeline(kind, 1.0, FloatDType::F32);
    pipeline.share(SecondHalf::new(move |half| {
        seen.lock().expect("nobody panicked").push(half.clone());
        answer(half)
    }));
    (pipeline, asked)
}

#[test]
fn a_picture_is_the_same_whoever_computes_its_second_half() {
    for (kind, [low, high]) in
        [("flow of classes", [0.3, 0.8]), ("denoiser of classes", [0.1, 2.0])]
    {
        let alone = pipeline(kind, 1.0, FloatDType::F32);
        let usual = alone.architecture().default_settings();
        let guidance = Guidance { low, high, ..Guidance::new(3.0) };
        let make = |pipeline: &Pipeline, sampler, guidance| -> Vec<_> {
            let images = [3, 1].map(|seed| ImageSpec::new(Some(1), seed, 0)).to_vec();
            let settings = Settings { sampler, guidance, ..usual };
            let pictures = make_images(pipeline, settings, images).expect("pictures").0;
            pictures.into_iter().map(|picture| (picture.image, picture.evaluations)).collect()
        };
        let other = Arc::new(pipeline(kind, 1.0, FloatDType::F32));
        let (shared, asked) = beside(kind, move |half| {
            let other = other.clone();
            Some(Box::pin(async move { other.second_half(half).await.ok() }))
        });
        for sampler in [Sampler::Euler, Sampler::Heun, Sampler::DpmPp2m] {
            let expected = make(&alone, sampler, guidance);
            assert_eq!(make(&shared, sampler, guidance), expected, "{kind} {sampler:?}");
            let asked: Vec<Half> = asked.lock().expect("nobody panicked").drain(..).collect();
            let guided = asked.len();
            assert!(guided > 0 && guided < expected[0].1 / 2, "{kind} {sampler:?}: {guided}");
            for Half { streams, times, labels, gate } in asked {
                let [channels, height, width] = SHAPE;
                assert_eq!(streams.len(), 1);
                assert_eq!(streams[0].shape, [2, channels, height, width]);
                assert_eq!((labels, gate), (vec![2, 2], None), "the null class");
                assert_eq!((times.len(), times[0]), (2, times[1]));
            }
        }
        let unguided = make(&shared, Sampler::Euler, Guidance::NONE);
        assert!(asked.lock().expect("nobody panicked").is_empty(), "there is no second half");

        // Nobody there, no answer, and part of one; what fits is taken.
        let expected = make(&alone, Sampler::Euler, guidance);
        assert_ne!(expected[0].0, unguided[0].0);
        let (absent, asked) = beside(kind, |_| None);
        assert_eq!(make(&absent, Sampler::Euler, guidance), expected);
        assert!(!asked.lock().expect("nobody panicked").is_empty());
        let (silent, _) = beside(kind, |_| Some(Box::pin(async { None })));
        assert_eq!(make(&silent, Sampler::Euler, guidance), expected);
        let (empty, _) = beside(kind, |_| Some(Box::pin(async { Some(Vec::new()) })));
        assert_eq!(make(&empty, Sampler::Euler, guidance), expected);
        let (cut, _) = beside(kind, |mut half| {
            let rows = &mut half.streams[0];
            rows.shape[0] = 1;
            rows.values.truncate(rows.values.len() / 2);
            Some(Box::pin(async move { Some(half.streams) }))
        });
        assert_eq!(make(&cut, Sampler::Euler, guidance), expected);
        let (wrong, _) = beside(kind, |half| Some(Box::pin(async move { Some(half.streams) })));
        assert_ne!(make(&wrong, Sampler::Euler, guidance), expected);
    }
}

#[test]
fn samples_of_another_network_are_refused() {
    let pipeline = pipeline("flow of classes", 1.0, FloatDType::F32);
    let [channels, height, width] = SHAPE;
    let rows =
        Rows { shape: [1, channels, height, width], values: vec![0.5; channels * height * width] };
    let half = Half { streams: vec![rows.clone()], times: vec![0.5], labels: vec![2], gate: None };
    let compute = |half: Half| pollster::block_on(pipeline.second_half(half));
    let results = compute(half.clone()).expect("it fits");
    assert_eq!((results.len(), results[0].shape), (1, rows.shape));
    let cut = Rows { values: vec![0.5; 7], ..rows.clone() };
    for unfit in [
        Half { streams: vec![rows.clone(), rows], gate: Some(0.5), ..half.clone() },
        Half { streams: vec![cut], ..half.clone() },
        Half { streams: Vec::new(), ..half.clone() },
        Half { times: Vec::new(), ..half.clone() },
        Half { labels: vec![3], ..half.clone() },
        Half { labels: vec![-1], ..half },
    ] {
        assert_eq!(compute(unfit), Err(HalfError::Unfit));
    }
}
