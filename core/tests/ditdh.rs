//! DiT-DH as RAE's authors publish it, and pictures of small ones.
#![cfg(feature = "cpu")]
#![recursion_limit = "256"]

use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use tintype::diffusion::flow::early_times;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Event, ImageSpec, LoadError, Parts, Pipeline, Request};
use tintype::model::ditdh::{DitDh, DitDhConfig};
use tintype::model::{Architecture, detect};
use tintype::nn::block::{BlockConfig, DitBlock};
use tintype::nn::norm::NormKind;
use tintype::settings::{Sampler, Settings};
use tintype::weights::{TensorView, Weights, WeightsError, layout, load};
use tintype_test_models::configs::{autoencoder, ditdh};
use tintype_test_models::pickles::{checkpoint, number, section};
use tintype_test_models::tensors;

fn weights<M: Module>(network: &M) -> Weights {
    let tensors = tensors(network, 0.4, |_| false);
    Weights { file: "x.pt".into(), tensors, ..Weights::default() }
}

fn of(config: &DitDhConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

fn network(config: &DitDhConfig) -> DitDh {
    let device = Device::flex();
    let untrained = config.init(&device).expect("valid");
    load(untrained, &of(config), FloatDType::F32, &device).expect("it fits").network
}

/// Backbone and head of one width, told apart by the norms of heads of two sizes.
fn same_width() -> DitDhConfig {
    DitDhConfig { hidden_size: [48; 2], num_heads: [2, 12], use_qknorm: true, ..ditdh() }
}

/// LayerNorm and GELU, and no position table.
fn plain() -> DitDhConfig {
    DitDhConfig { use_swiglu: false, use_rmsnorm: false, use_pos_embed: false, ..ditdh() }
}

#[test]
fn variants_have_the_published_tensors_and_work() {
    let variant = |size, side| DitDhConfig::variant(size, side).expect("a size");
    for (size, side, tensors, gflop) in [
        ("XL", 16, 382, 323.16),
        ("XL", 32, 382, 1405.63),
        ("S", 16, 190, 96.94),
        ("S", 32, 190, 415.08),
    ] {
        let config = variant(size, side);
        let untrained = config.init(&Device::flex()).expect("valid");
        assert_eq!(layout(&untrained).len(), tensors, "{size}");
        let found = 2e-9 * config.macs();
        assert!((found - gflop).abs() < 0.01, "{size} {side}: {found}");
    }
    // The widths in between are DiT-B's.
    let b = variant("B", 16);
    assert_eq!((b.hidden_size, b.depth, b.num_heads), ([768, 2048], [12, 2], [12, 16]));
    assert_eq!(DitDhConfig::variant("L", 16), None);
}

#[test]
fn names_and_shapes_are_the_authors() {
    let tensors = of(&ditdh()).tensors;
    for (name, shape) in [
        ("pos_embed", vec![1, 64, 32]),
        ("x_embedder.proj.weight", vec![48, 4, 1, 1]),
        ("s_embedder.proj.weight", vec![32, 4, 1, 1]),
        ("s_projector.weight", vec![48, 32]),
        ("s_projector.bias", vec![48]),
        ("t_embedder.W", vec![256]),
        ("t_embedder.mlp.0.weight", vec![32, 512]),
        ("t_embedder.mlp.2.bias", vec![32]),
        ("y_embedder.embedding_table.weight", vec![13, 32]),
        ("final_layer.norm_final.weight", vec![48]),
        ("final_layer.adaLN_modulation.1.weight", vec![96, 48]),
        ("enc_feat_rope.freqs_cos", vec![64, 8]),
        ("dec_feat_rope.freqs_sin", vec![64, 16]),
        ("blocks.1.attn.qkv.weight", vec![96, 32]),
        ("blocks.2.attn.qkv.weight", vec![144, 48]),
        ("blocks.2.mlp.w12.weight", vec![256, 48]),
        ("blocks.2.adaLN_modulation.1.bias", vec![288]),
    ] {
        let view = tensors.get(name).unwrap_or_else(|| panic!("{name} of {:?}", tensors.keys()));
        assert_eq!(view.shape, shape, "{name}");
    }
    let without = [of(&same_width()).tensors, of(&plain()).tensors];
    assert!(!without[0].contains_key("s_projector.weight"));
    assert!(!without[1].contains_key("pos_embed"));
}

#[test]
fn the_tensors_tell_the_network() {
    let without_null = DitDhConfig { num_classes: 10, class_dropout_prob: 0.0, ..ditdh() };
    for config in [
        ditdh(),
        plain(),
        same_width(),
        without_null,
        DitDhConfig { use_qknorm: true, depth: [1, 3], ..ditdh() },
        DitDhConfig { input_size: 3, hidden_size: [48, 32], num_heads: [3, 8], ..ditdh() },
    ] {
        assert_eq!(detect(&of(&config)).expect("a DiT-DH"), Architecture::from(config));
    }
    // As training leaves it.
    let untrained = ditdh().init(&Device::flex()).expect("valid");
    let raw = DitDhConfig { depth: [1, 1], ..ditdh() }.init(&Device::flex()).expect("valid");
    let entries = [
        ("step", number(7)),
        ("epoch", number(1)),
        ("model", section(&raw)),
        ("ema", section(&untrained)),
    ];
    let file = Weights::from_bytes(checkpoint(&entries), "ep-last.pt").expect("it opens");
    assert_eq!(detect(&file).expect("a DiT-DH"), Architecture::from(ditdh()));
}

#[test]
fn one_width_needs_a_configuration() {
    let same = DitDhConfig { hidden_size: [48; 2], num_heads: [3; 2], ..ditdh() };
    let mut weights = of(&same);
    match detect(&weights) {
        Err(WeightsError::NeedsConfiguration { reason, .. }) => {
            assert!(reason.contains("width 48"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    weights.metadata.insert("config".into(), serde_json::json!(same).to_string());
    assert_eq!(detect(&weights).expect("it is told"), Architecture::from(same.clone()));
    // The authors' file, of which the options have defaults.
    let yaml = "
stage_2:
  params:
    input_size: 8
    in_channels: 4
    hidden_size: [48, 48]
    depth: [2, 1]
    num_heads: [3, 3]
    num_classes: 12
";
    weights.metadata.insert("config".into(), yaml.into());
    assert_eq!(detect(&weights).expect("it is told"), Architecture::from(same));
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} and {b}");
    }
}

/// Numbers between −1 and 1.
fn numbers<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// State, times and labels of two samples.
fn inputs() -> (Tensor<4>, Tensor<1>, Tensor<1, Int>) {
    let device = Device::flex();
    let t = Tensor::<1>::from_data(TensorData::from([0.3f32, 0.9]), &device);
    let y = Tensor::<1, Int>::from_data(TensorData::from([4i32, 12]), &device);
    (numbers([2, 4, 8, 8]), t, y)
}

#[test]
fn an_untrained_network_has_no_velocity() {
    let (x, t, y) = inputs();
    let untrained = ditdh().init(&Device::flex()).expect("valid");
    assert!(values(untrained.forward(x, t, y)).iter().all(|v| *v == 0.0));
}

/// `W·a + b`
fn linear(weight: &[f32], bias: &[f32], a: &[f32]) -> Vec<f32> {
    let row = |(row, b): (&[f32], &f32)| -> f32 {
        let products = row.iter().zip(a).map(|(w, a)| f64::from(*w) * f64::from(*a));
        (products.sum::<f64>() + f64::from(*b)) as f32
    };
    weight.chunks_exact(a.len()).zip(bias).map(row).collect()
}

/// Each token of the last layer is modulated by its own row of the condition: the formula, token by token.
#[test]
fn the_last_layer_is_modulated_token_by_token() {
    let (x, t, y) = inputs();
    let network = network(&ditdh());
    let trace = network.trace(x.clone(), t.clone(), y.clone());
    let velocity = network.forward(x, t, y);
    // Tokens are rows of pixels.
    let tokens: Tensor<3> = velocity.permute([0, 2, 3, 1]).reshape([2, 64, 4]);
    assert_close(&values(tokens), &values(trace.tokens.clone()));
    let stored = of(&ditdh()).tensors;
    let get = |name: &str| stored[&format!("final_layer.{name}")].to_f32();
    let (gain, w, b) = (get("norm_final.weight"), get("linear.weight"), get("linear.bias"));
    let (modulation, shifts) = (get("adaLN_modulation.1.weight"), get("adaLN_modulation.1.bias"));
    let last = values(trace.blocks[2].clone());
    let conditions = values(trace.s_projected);
    let mut expected = Vec::new();
    for (h, s) in last.chunks_exact(48).zip(conditions.chunks_exact(48)) {
        let silu: Vec<f32> = s.iter().map(|s| s / (1.0 + (-s).exp())).collect();
        let m = linear(&modulation, &shifts, &silu);
        let (shift, scale) = m.split_at(48);
        let mean_square = h.iter().map(|h| h * h).sum::<f32>() / 48.0;
        let rms = (mean_square + 1e-6).sqrt();
        let modulated: Vec<f32> =
            (0..48).map(|i| h[i] / rms * gain[i] * (1.0 + scale[i]) + shift[i]).collect();
        expected.extend(linear(&w, &b, &modulated));
    }
    assert_close(&values(trace.tokens), &expected);
}

/// Tokens that have one condition are those of an image with it, and without attention between them each is as it would be
/// alone.
#[test]
fn a_block_takes_a_condition_for_each_token() {
    let device = Device::flex();
    let config = BlockConfig {
        hidden: 16,
        heads: 2,
        mlp_width: 64,
        norm: NormKind::RmsNorm,
        qk_norm: None,
        swiglu: true,
        shift: true,
    };
    let block = DitBlock::new(config, &device);
    let weights = weights(&block);
    let block = load(block, &weights, FloatDType::F32, &device).expect("it fits").network;
    let (x, c) = (numbers([2, 3, 16]), numbers([2, 16]));
    let repeated: Tensor<3> = c.clone().reshape([2, 1, 16]);
    let repeated: Tensor<3> = repeated.expand([2, 3, 16]);
    let repeated: Tensor<2> = repeated.reshape([6, 16]);
    let of_image = values(block.forward(x.clone(), c, None));
    assert_close(&values(block.forward(x.clone(), repeated, None)), &of_image);
    // One token an image: nothing but its own condition matters.
    let (x, c): (Tensor<3>, Tensor<2>) = (x.reshape([6, 1, 16]), numbers([6, 16]));
    let all = block.forward(x.clone(), c.clone(), None);
    for token in 0..6 {
        let alone =
            block.forward(x.clone().narrow(0, token, 1), c.clone().narrow(0, token, 1), None);
        assert_close(&values(all.clone().narrow(0, token, 1)), &values(alone));
    }
}

#[test]
fn samples_do_not_see_each_other_and_conditions_matter() {
    let (x, t, y) = inputs();
    let network = network(&ditdh());
    let both = network.forward(x.clone(), t.clone(), y.clone());
    let [first, second] = [0, 1].map(|i| values(both.clone().narrow(0, i, 1)));
    let alone = |i: usize| {
        let one = |x: Tensor<4>| x.narrow(0, i, 1);
        values(network.forward(
            one(x.clone()),
            t.clone().narrow(0, i, 1),
            y.clone().narrow(0, i, 1),
        ))
    };
    assert_close(&first, &alone(0));
    assert_close(&second, &alone(1));
    let differs = |other: Tensor<4>| {
        let other = values(other.narrow(0, 1, 1));
        second.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-3)
    };
    assert!(differs(network.forward(x.clone(), t.clone() * 0.5, y.clone())), "the time");
    assert!(differs(network.forward(x, t, y - 1)), "the class");
}

fn statistics() -> Weights {
    let view = |value: f32| TensorView::from_f32(vec![1, 4, 1, 1], &[value; 4]).expect("four");
    let tensors = [("mean".to_string(), view(0.0)), ("std".to_string(), view(1.0))].into();
    Weights { file: "stat.pt".into(), tensors, ..Weights::default() }
}

fn decoder() -> Weights {
    let network = autoencoder().init_decoder(&Device::flex()).expect("valid");
    Weights { file: "vae.pt".into(), ..weights(&network) }
}

fn pipeline(guide: Option<&DitDhConfig>) -> Result<Pipeline, LoadError> {
    let guide = guide.map(|config| Weights { file: "guide.pt".into(), ..of(config) });
    let (model, vae, stats) = (of(&ditdh()), decoder(), statistics());
    let parts =
        Parts { model: &model, vae: Some(&vae), stats: Some(&stats), guide: guide.as_ref() };
    Pipeline::load(parts, FloatDType::F32, &Device::flex())
}

/// A picture of class 3, the times of its steps, and how often networks were evaluated for it.
fn make(pipeline: &Pipeline, settings: Settings) -> (Vec<u8>, Vec<f64>, usize) {
    let request = Request { settings, images: vec![ImageSpec::new(Some(3), 1, 0)] };
    let (mut picture, mut times, mut evaluations) = (Vec::new(), Vec::new(), 0);
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Image(made) => (picture, evaluations) = (made.image.pixels, made.evaluations),
            Event::Step { time, .. } => times.push(time),
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event)).expect("a picture");
    (picture, times, evaluations)
}

fn steps(steps: usize, scale: f64) -> Settings {
    let own = Architecture::from(ditdh()).default_settings();
    Settings { steps, guidance: Guidance::new(scale), ..own }
}

#[test]
fn pictures_come_of_latents_in_the_published_steps() {
    let pipeline = pipeline(None).expect("it loads");
    assert_eq!(pipeline.image_size(), [32, 32]);
    let own = pipeline.architecture().default_settings();
    assert_eq!((own.sampler, own.steps, own.guidance), (Sampler::Euler, 49, Guidance::NONE));
    own.validate(pipeline.architecture()).expect("its own settings");
    // 256 latent values are a sixteenth of those without a shift.
    assert!((own.shift - 4.0).abs() < 1e-12, "{}", own.shift);
    let (picture, times, evaluations) = make(&pipeline, steps(5, 1.0));
    assert_eq!((picture.len(), times.len(), evaluations), (3 * 32 * 32, 5, 5));
    assert_eq!(times, early_times(6, 0.001, 4.0)[..5]);
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
    let (guided, _, evaluations) = make(&pipeline, steps(5, 2.0));
    assert_eq!(evaluations, 10);
    assert_ne!(guided, picture);

    let (model, vae) = (of(&ditdh()), decoder());
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    let without = Pipeline::load(parts, FloatDType::F32, &Device::flex());
    assert!(matches!(without, Err(LoadError::NoStats("DiT-DH"))), "{without:?}");
}

#[test]
fn published_sizes_stop_where_the_authors_do() {
    for (preset, shift, last) in [
        ("rae-ditdh-xl-256", 6.928_203_230_275_509, 0.006_887),
        ("rae-ditdh-s-512", 13.856_406_460_551_018, 0.013_680),
    ] {
        let architecture = tintype::preset::find(preset).expect("a preset").architecture;
        let own = architecture.default_settings();
        assert!((own.shift * shift - 1.0).abs() < 1e-12, "{preset}: {}", own.shift);
        let times = early_times(own.steps + 1, architecture.last_time(), own.shift);
        assert_eq!((times.len(), times[0]), (50, 1.0));
        assert!((times[49] - last).abs() < 1e-6, "{preset}: {}", times[49]);
    }
}

#[test]
fn another_size_guides_for_the_same_class() {
    let small = DitDhConfig { hidden_size: [16, 24], depth: [1, 1], num_heads: [2, 3], ..ditdh() };
    let alone = make(&pipeline(None).expect("it loads"), steps(3, 1.0)).0;
    let with_guide = pipeline(Some(&small)).expect("of one kind");
    let (guided, _, evaluations) = make(&with_guide, steps(3, 1.42));
    assert_eq!(evaluations, 6);
    assert_ne!(guided, alone);
    assert_ne!(guided, make(&pipeline(None).expect("it loads"), steps(3, 1.42)).0);
    assert_eq!(make(&with_guide, steps(3, 1.0)).0, alone);
    // `guide + w·(model − guide)`: at 0 the guide alone.
    let guide_alone = {
        let (model, vae, stats) = (of(&small), decoder(), statistics());
        let parts = Parts { model: &model, vae: Some(&vae), stats: Some(&stats), guide: None };
        let pipeline = Pipeline::load(parts, FloatDType::F32, &Device::flex()).expect("it loads");
        make(&pipeline, steps(3, 1.0)).0
    };
    let zero = make(&with_guide, steps(3, 0.0)).0;
    let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
    assert!(zero.iter().zip(&guide_alone).all(near), "{zero:?} and {guide_alone:?}");
    for (other, words) in [
        (DitDhConfig { num_classes: 8, ..small.clone() }, ["12 classes", "8 classes"]),
        (DitDhConfig { input_size: 4, ..small }, ["4 × 8 × 8", "4 × 4 × 4"]),
    ] {
        let error = pipeline(Some(&other)).expect_err("another kind").to_string();
        for word in words.into_iter().chain(["x.pt", "guide.pt"]) {
            assert!(error.contains(word), "{error}");
        }
    }
}
