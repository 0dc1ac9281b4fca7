//! An image depends on its request alone: not on the batch size, nor on the backend beyond rounding.
#![recursion_limit = "256"]

use std::path::Path;
use std::sync::{Arc, Mutex};

use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{
    Answer, Event, Half, ImageSpec, Parts, Picture, Pipeline, Request, Sampler, SecondHalf,
    Settings,
};
use tintype::sampler::Stop;
use tintype::weights::open;
use tintype_tests::family::emoji_folder;

fn pipeline(device: &Device) -> Pipeline {
    let model = open(&emoji_folder().join("hidit.safetensors")).expect("the shipped model");
    let vae = open(&emoji_folder().join("vae-decoder.safetensors")).expect("the shipped decoder");
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    Pipeline::load(parts, FloatDType::F32, device).expect("the shipped model loads")
}

/// Few steps, with the pixel stream in the last.
fn settings(pipeline: &Pipeline, sampler: Sampler) -> Settings {
    let default = pipeline.architecture().default_settings();
    Settings { sampler, steps: 3, tau: Some(0.5), keep_latent: true, ..default }
}

fn make(pipeline: &Pipeline, settings: Settings, images: &[ImageSpec]) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let request = Request { settings, images: images.to_vec() };
    let mut keep = async |event: Event<'_>| {
        if let Event::Image(picture) = event {
            pictures.push(picture);
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut keep)).expect("the request is valid");
    pictures
}

fn specs() -> Vec<ImageSpec> {
    let spec = |(class, seed)| ImageSpec::new(Some(class), seed, 0);
    [(17, 0), (36, 1), (21, 2), (3, 900)].map(spec).to_vec()
}

#[test]
fn a_batch_of_four_equals_four_batches_of_one() {
    let pipeline = pipeline(&Device::flex());
    // With guidance at every step, at some, and at none: another number of rows each time.
    for (sampler, scale, high, evaluations) in [
        (Sampler::EulerMaruyama, 2.0, 1.0, 8),
        (Sampler::Euler, 2.0, 0.5, 6),
        (Sampler::Euler, 1.0, 1.0, 4),
        (Sampler::UniPc, 2.0, 1.0, 8),
        (Sampler::DpmPp2s, 2.0, 1.0, 10),
        // The second evaluation before the gate is below 0.5, and unguided as its step is.
        (Sampler::Heun, 2.0, 0.5, 8),
    ] {
        let mut settings = settings(&pipeline, sampler);
        settings.guidance.scale = scale;
        settings.guidance.high = high;
        let together = make(&pipeline, settings, &specs());
        for (spec, picture) in specs().iter().zip(&together) {
            assert_eq!(picture.evaluations, evaluations, "{sampler:?} {scale}");
            let alone = make(&pipeline, settings, &[*spec]);
            assert_eq!(alone[0].image, picture.image, "{sampler:?} {scale} {spec:?}");
            assert_eq!(alone[0].latent, picture.latent, "{sampler:?} {scale} {spec:?}");
        }
    }
}

/// Guidance that ends by an image's own predictions: a batch goes on with fewer of its second half.
#[test]
fn a_batch_whose_guidance_ends_equals_its_images() {
    let pipeline = pipeline(&Device::flex());
    let settings = settings(&pipeline, Sampler::Euler);
    let full: Vec<usize> =
        make(&pipeline, settings, &specs()).iter().map(|p| p.evaluations).collect();
    assert_eq!(full, [8; 4], "three steps and the opening of the gate, twice each");
    for agreement in [0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0] {
        let settings = Settings { agreement: Some(agreement), ..settings };
        let together = make(&pipeline, settings, &specs());
        for (spec, picture) in specs().iter().zip(&together) {
            let alone = &make(&pipeline, settings, &[*spec])[0];
            assert_eq!(alone.image, picture.image, "{agreement} {spec:?}");
            assert_eq!(alone.evaluations, picture.evaluations, "{agreement} {spec:?}");
            let expected = if agreement == 0.0 { 5..=5 } else { 5..=8 };
            assert!(expected.contains(&picture.evaluations), "{agreement} {}", picture.evaluations);
        }
    }
}

/// Two streams, of which the second opens at the gate; the other pipeline has loaded the model for itself.
#[test]
fn a_picture_is_the_same_whoever_computes_its_second_half() {
    let (alone, other) = (pipeline(&Device::flex()), Arc::new(pipeline(&Device::flex())));
    let mut shared = pipeline(&Device::flex());
    let streams = Arc::new(Mutex::new(Vec::new()));
    let seen = streams.clone();
    shared.share(SecondHalf::new(move |half: Half| {
        seen.lock().expect("nobody panicked").push((half.streams.len(), half.gate));
        let other = other.clone();
        let answer: Answer = Box::pin(async move { other.second_half(half).await.ok() });
        Some(answer)
    }));
    // The gate is another one than the network's own.
    let settings = settings(&alone, Sampler::Euler);
    let image = &specs()[..1];
    let (expected, found) = (make(&alone, settings, image), make(&shared, settings, image));
    assert_eq!(found[0].image, expected[0].image);
    assert_eq!(found[0].latent, expected[0].latent);
    let streams = streams.lock().expect("nobody panicked");
    assert_eq!(*streams, [(1, None), (1, None), (1, None), (2, Some(0.5))]);
}

/// Adaptive samplers choose their steps by an image's own error.
#[test]
fn a_batch_of_a_denoiser_equals_its_images() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/cases");
    let model = open(&cases.join("imagenet-crane.safetensors")).expect("a toy HDiT");
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    let pipeline = Pipeline::load(parts, FloatDType::F32, &Device::flex()).expect("it loads");
    for sampler in [Sampler::DpmAdaptive, Sampler::DpmPp3mSde] {
        let default = pipeline.architecture().default_settings();
        let settings = Settings { sampler, steps: 4, ..default };
        let together = make(&pipeline, settings, &specs()[..3]);
        for (spec, picture) in specs().iter().zip(&together) {
            let alone = make(&pipeline, settings, &[*spec]);
            assert_eq!(alone[0].image, picture.image, "{sampler:?} {spec:?}");
        }
    }
}

#[test]
fn seeds_and_classes_make_different_pictures() {
    let pipeline = pipeline(&Device::flex());
    let settings = settings(&pipeline, Sampler::Euler);
    let spec = |class, seed, index| ImageSpec::new(Some(class), seed, index);
    let images = [spec(17, 0, 0), spec(17, 1, 0), spec(36, 0, 0), spec(17, 0, 1)];
    let pictures = make(&pipeline, settings, &images);
    for i in 0..images.len() {
        for j in 0..i {
            assert_ne!(pictures[i].image, pictures[j].image, "{:?} {:?}", images[i], images[j]);
        }
    }
}

#[test]
fn cpu_and_wgpu_make_the_same_picture() {
    let Ok(wgpu) = tintype::device::choose("wgpu") else {
        return println!("no wgpu adapter, nothing to compare");
    };
    let (cpu, gpu) = (pipeline(&Device::flex()), pipeline(&wgpu.found.device));
    let settings = settings(&cpu, Sampler::EulerMaruyama);
    let spec = [ImageSpec::new(Some(21), 5, 0)];
    let (a, b) = (make(&cpu, settings, &spec), make(&gpu, settings, &spec));
    let pixels = a[0].image.pixels.iter().zip(&b[0].image.pixels);
    let difference: u64 = pixels.map(|(a, b)| a.abs_diff(*b) as u64).sum();
    let mean = difference as f64 / a[0].image.pixels.len() as f64;
    println!("mean absolute difference on {}: {mean} of 255", wgpu.found.description);
    assert!(mean <= 1.0, "{mean}");
}

#[test]
fn a_run_can_be_cancelled_at_every_step() {
    let pipeline = pipeline(&Device::flex());
    let settings = settings(&pipeline, Sampler::EulerMaruyama);
    let request = Request { settings, images: specs()[..1].to_vec() };
    for stop_at in [0, 1, 2] {
        let mut seen = 0;
        let result = pollster::block_on(pipeline.generate(&request, &mut async |event: Event<
            '_,
        >| match event {
            Event::Step { index, .. } if index == stop_at => Err(Stop::Cancelled),
            Event::Step { .. } => {
                seen += 1;
                Ok(())
            }
            Event::Image(_) => panic!("a cancelled run makes no picture"),
        }));
        assert!(result.is_err());
        assert_eq!(seen, stop_at);
    }
}
