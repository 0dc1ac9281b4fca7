//! Pictures are functions of their requests, and finite, whatever the sampler: of small networks whose operations
//! do not depend on the batch.
#![cfg(feature = "cpu")]
#![recursion_limit = "256"]

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use serde_json::{Value, json};
use tintype::Precision;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Event, GenerateError, ImageSpec, Parts, Picture, Pipeline, Request};
use tintype::model::{
    Architecture, Clock, DiffusionModel, Family, InvalidConfig, LatentSpace, Network, Process,
    Untrained, register,
};
use tintype::settings::{Sampler, Settings};
use tintype::weights::{TensorView, Weights, WeightsError};

static FAMILY: Family = Family { name: "Toy", recognize };

const SHAPE: [usize; 3] = [3, 16, 24];

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    let denoises = weights.metadata.get("toy").map(|kind| kind == "denoiser");
    Ok(denoises.map(|denoises| ToyConfig { denoises }.into()))
}

#[derive(Clone, Copy, Debug)]
struct ToyConfig {
    denoises: bool,
}

#[derive(Module, Debug)]
struct Toy {
    /// `[1]`; enters twice, so that a finite one can lead out of every range.
    gain: Param<Tensor<1>>,
    denoises: bool,
}

impl Network for Toy {
    /// A decay that ends near 0, or what a denoiser sees of data about ±1.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, _: Tensor<1, Int>) -> Tensor<4> {
        let gain: Tensor<4> = self.gain.val().reshape([1, 1, 1, 1]);
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
        json!({"denoises": self.denoises})
    }

    fn state_shape(&self) -> [usize; 3] {
        SHAPE
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        None
    }

    fn num_classes(&self) -> usize {
        0
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
        Ok(Box::new(Toy { gain, denoises: self.denoises }))
    }
}

fn pipeline(kind: &str, gain: f32, precision: FloatDType) -> Pipeline {
    register(&FAMILY);
    let gain = TensorView::from_f32(vec![1], &[gain]).expect("one value");
    let model = Weights {
        file: "toy".into(),
        tensors: [("gain".to_string(), gain)].into(),
        metadata: [("toy".to_string(), kind.to_string())].into(),
        ..Weights::default()
    };
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    Pipeline::load(parts, precision, &Device::flex()).expect("it loads")
}

/// The pictures, with the indices of the steps; each step shows all of them.
fn make(
    pipeline: &Pipeline,
    sampler: Sampler,
    seeds: &[u64],
) -> Result<(Vec<Picture>, Vec<usize>), GenerateError> {
    let settings = Settings { sampler, ..pipeline.architecture().default_settings() };
    let images = seeds.iter().map(|&seed| ImageSpec { class: None, seed, index: 0 }).collect();
    let (mut pictures, mut steps) = (Vec::new(), Vec::new());
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Step { index, preview, .. } => {
                let [channels, height, width] = SHAPE;
                assert_eq!(preview.clean.dims(), [seeds.len(), channels, height, width]);
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
