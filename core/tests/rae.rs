//! RAE: encoder, decoder and statistics from the files of its authors, and pictures of a network on such latents.
#![cfg(all(feature = "cpu", feature = "files"))]
#![recursion_limit = "256"]

use tempfile::TempDir;
use tintype::burn::module::Module;
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::generate::{
    Event, ImageSpec, LatentMap, LatentStats, LoadError, Parts, Pipeline, Preview, Previewer,
    Request, Settings,
};
use tintype::model::dinov2::{DinoConfig, DinoV2};
use tintype::model::lightningdit::LightningDiTConfig;
use tintype::model::rae::{
    RaeDecoder, RaeDecoderConfig, RaeEncoder, as_whole, decoder_part, encoder_part, is_decoder,
    is_encoder, noised,
};
use tintype::model::{Autoencoder, Decoder, autoencoder_config, detect};
use tintype::weights::{
    TensorView, Weights, WeightsError, is_autoencoder_config, load, open, open_autoencoder,
    parameter_count,
};
use tintype_test_models::{configs, rae, tensors};

fn weights<M: Module>(network: &M) -> Weights {
    let tensors = tensors(network, 0.4, |_| false);
    Weights { file: "x.pt".into(), tensors, ..Weights::default() }
}

/// A decoder's weights, which do not say their configuration.
fn of_decoder(config: &RaeDecoderConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

fn configured(mut weights: Weights, config: &str) -> Weights {
    weights.set_config(config);
    weights
}

fn loaded(weights: &Weights) -> RaeDecoder {
    let (device, network) = (Device::flex(), configs::rae().init(&Device::flex()).expect("valid"));
    load(network, weights, FloatDType::F32, &device).expect("it fits").network
}

/// Values of about −1…1 that repeat after a while.
fn values(shape: [usize; 4]) -> Tensor<4> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn assert_close(a: Tensor<4>, b: Tensor<4>) {
    assert_eq!(a.dims(), b.dims());
    let scale = 1.0 + b.clone().abs().max().into_scalar::<f32>();
    let error = (a - b).abs().max().into_scalar::<f32>();
    assert!(error < 1e-4 * scale, "{error} of {scale}");
}

/// Statistics with a value for each position, `mean` where there is one and `spread` under a name.
fn statistics(mean: Option<f32>, spread: (&str, f32), shape: &[usize]) -> Weights {
    let count = shape.iter().product();
    let view = |value: f32| {
        TensorView::from_f32(shape.to_vec(), &vec![value; count]).expect("as many as the shape")
    };
    let mean = mean.map(|mean| ("mean".to_string(), view(mean)));
    let tensors = mean.into_iter().chain([(spread.0.to_string(), view(spread.1))]).collect();
    Weights { file: "stat.pt".into(), tensors, ..Weights::default() }
}

#[test]
fn sizes_are_the_authors() {
    let device = Device::flex();
    let decoder = |size: &str, image: usize| {
        let config = RaeDecoderConfig::variant(size, image).expect("a size");
        parameter_count(&config.init(&device).expect("valid"))
    };
    for (size, parameters) in [
        ("B", [86_435_328, 87_025_152]),
        ("L", [304_150_272, 304_936_704]),
        ("XL", [415_352_704, 416_237_440]),
    ] {
        assert_eq!([256, 512].map(|image| decoder(size, image)), parameters, "{size}");
    }
    for (size, image) in [("S", 256), ("XL", 250), ("XL", 0)] {
        assert_eq!(RaeDecoderConfig::variant(size, image), None, "{size} {image}");
    }
    let dino = DinoConfig::base_with_registers();
    let mask_token = dino.embed_dim; // in the files, and of no use here
    let parameters = parameter_count(&dino.init(&device).expect("valid"));
    assert_eq!(parameters + mask_token, 86_583_552);
    let gflop = |macs: f64| (2.0 * macs / 1e7).round() / 100.0;
    let xl = |image| gflop(RaeDecoderConfig::variant("XL", image).expect("a size").macs());
    assert_eq!([xl(256), xl(512)], [221.65, 985.58]);
    assert_eq!([16, 32].map(|grid| gflop(dino.macs(grid))), [47.08, 214.75]);
}

#[test]
fn a_decoder_is_recognised_and_says_what_its_tensors_do_not() {
    let config = configs::rae();
    let alone = of_decoder(&config);
    assert!(matches!(detect(&alone), Err(WeightsError::Autoencoder { .. })));
    let error = autoencoder_config(&alone).expect_err("16 is no published width").to_string();
    assert!(error.contains("heads of width 16") && error.contains("config.json"), "{error}");
    // transformers' configuration, whose patch size is a text, and this library's.
    let own = serde_json::json!(config).to_string();
    for text in [rae::decoder_json(), own] {
        let found = autoencoder_config(&configured(alone.clone(), &text)).expect("a decoder");
        assert_eq!(found, Autoencoder::Rae(config.clone()));
        let sizes = (found.latent_channels(), found.downsampling(), found.grid());
        assert_eq!(sizes, (64, 16, Some([2, 2])));
    }
    // transformers leaves out what has its default.
    let heads = serde_json::json!({"model_type": "vit_mae"}).to_string();
    let found = RaeDecoderConfig::of(&configured(alone.clone(), &heads)).expect("a decoder");
    assert_eq!(found.decoder_num_attention_heads, 16);
    for (text, word) in [
        (r#"{"decoder_hidden_size": 32}"#, "decoder_hidden_size is 32, not 16"),
        (r#"{"decoder_num_attention_heads": 3}"#, "3 heads"),
        (r#"{"model_type": "vit_mae", "hidden_act": "relu"}"#, "relu"),
        (r#"{"model_type": "vit_mae", "layer_norm_eps": 0.0}"#, "layer_norm_eps"),
        ("{", "configuration"),
    ] {
        let error = autoencoder_config(&configured(alone.clone(), text)).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
    // A published width needs none.
    let wide = RaeDecoderConfig {
        patch_size: 2,
        decoder_hidden_size: 768,
        decoder_num_attention_heads: 12,
        ..configs::rae()
    };
    assert_eq!(RaeDecoderConfig::of(&of_decoder(&wide)).expect("a decoder"), wide);
    // The configuration of something else tells nothing.
    let of_another = r#"{"hidden_size": 1152, "layer_norm_eps": 1e-5, "hidden_act": "relu"}"#;
    let found = RaeDecoderConfig::of(&configured(of_decoder(&wide), of_another));
    assert_eq!(found.expect("a decoder"), wide);
    let error = autoencoder_config(&configured(alone, of_another)).expect_err("no heads");
    assert!(error.to_string().contains("heads of width 16"), "{error}");
}

#[test]
fn the_configuration_of_an_autoencoder_is_told_by_its_keys() {
    let own = serde_json::json!(configs::rae()).to_string();
    for text in [
        rae::decoder_json().as_str(),
        own.as_str(),
        r#"{"_class_name": "AutoencoderKL"}"#,
        r#"{"block_out_channels": [128, 256]}"#,
    ] {
        assert!(is_autoencoder_config(text), "{text}");
    }
    let network = serde_json::json!(configs::ditdh()).to_string();
    for text in
        [network.as_str(), r#"{"_class_name": "DiTTransformer2DModel"}"#, "null", "{", "a: 1"]
    {
        assert!(!is_autoencoder_config(text), "{text}");
    }
}

#[test]
fn a_decoder_that_is_none_is_refused() {
    let message = |change: fn(&mut RaeDecoderConfig)| {
        let mut config = configs::rae();
        change(&mut config);
        config.validate().expect_err("it is none").0
    };
    assert!(message(|config| config.grid = 0).contains("grid 0"));
    assert!(message(|config| config.patch_size = 1 << 20).contains("patch_size"));
    assert!(message(|config| config.decoder_num_attention_heads = 0).contains("0 heads"));
    assert!(message(|config| config.decoder_hidden_size = 14).contains("multiple of 4"));
    assert!(message(|config| config.layer_norm_eps = f64::NAN).contains("eps"));
    // Names without their tensors, and with those of another shape.
    let mut lacking = of_decoder(&configs::rae());
    lacking.tensors.remove("decoder_pos_embed");
    let error = autoencoder_config(&lacking).expect_err("a tensor is missing").to_string();
    assert!(error.contains("decoder_pos_embed"), "{error}");
    let odd = TensorView::from_f32(vec![1, 4, 16], &[0.0; 64]).expect("as many as the shape");
    lacking.tensors.insert("decoder_pos_embed".into(), odd);
    let error = autoencoder_config(&lacking).expect_err("3 positions").to_string();
    assert!(error.contains("no square"), "{error}");
}

#[test]
fn published_files_make_latents_and_images() {
    let device = Device::flex();
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, content).expect("it is written");
        path
    };
    let encoder = write("dinov2_vitb14_reg4_pretrain.pth", &rae::encoder_file());
    let decoder = write("decoder/model.pt", &rae::decoder_file());
    write("decoder/config.json", rae::decoder_json().as_bytes());
    let stats = write("stat.pt", &rae::statistics_file([64, 2, 2]));

    // The file and its folder are one decoder, with what lies beside it.
    for path in [decoder.as_path(), &folder.path().join("decoder")] {
        let weights = open_autoencoder(path).expect("it opens");
        let found = autoencoder_config(&weights).expect("a decoder");
        assert_eq!(found, Autoencoder::Rae(configs::rae()));
    }
    let weights = open(&decoder).expect("it opens");
    let decoder =
        load(configs::rae().init(&device).expect("valid"), &weights, FloatDType::F32, &device);
    let decoder = decoder.expect("it fits");
    assert!(decoder.report.unexpected.is_empty(), "{}", decoder.report);
    let stats = LatentStats::from_weights(&open(&stats).expect("it opens")).expect("statistics");
    assert!(stats.fits([64, 2, 2]) && !stats.fits([64, 4, 1]) && !stats.is_of_channels());

    let opened = open(&encoder).expect("it opens");
    let encoder = RaeEncoder::from_weights(opened.clone(), 28, &device).expect("it fits");
    assert_eq!((encoder.latent_channels(), encoder.patch()), (64, 14));
    let images = values([2, 3, 32, 32]) * 0.5 + 0.5;
    let tokens = encoder.forward(images.clone());
    assert_eq!(tokens.dims(), [2, 64, 2, 2]);
    // Each token is normalised, and does not depend on what lies beside its image.
    let means = tokens.clone().mean_dim(1);
    let squares = tokens.clone().square().mean_dim(1);
    assert_close(means.clone(), means.zeros_like());
    assert_close(squares.clone(), squares.ones_like());
    assert_close(encoder.forward(images.clone().narrow(0, 1, 1)), tokens.clone().narrow(0, 1, 1));
    assert_eq!(encoder.input(images).dims(), [2, 3, 28, 28]);

    let normal = stats.normalize(tokens.clone());
    assert_close(stats.denormalize(normal.clone()), tokens.clone());
    let mut host: Vec<f32> = tokens.clone().narrow(0, 0, 1).into_data().iter::<f32>().collect();
    stats.normalize_values(&mut host);
    let host = Tensor::<4>::from_data(TensorData::new(host, [1, 64, 2, 2]), &device);
    assert_close(host, normal.narrow(0, 0, 1));
    let image = decoder.network.forward(tokens.clone());
    assert_eq!(image.dims(), [2, 3, 32, 32]);
    let features = decoder.network.features(tokens.clone());
    assert_close(decoder.network.image_of_features(features), image.clone());
    let scaled = Decoder::Rae(decoder.network).decode(tokens);
    assert_close(scaled, image * 2.0 - 1.0);

    // DINOv2 without registers makes other latents.
    let plain = DinoConfig { registers: 0, ..configs::dinov2() };
    let plain = weights_of_dino(&plain);
    let error = RaeEncoder::from_weights(plain, 28, &device).expect_err("no registers").to_string();
    assert!(error.contains("without registers"), "{error}");
    let error = RaeEncoder::from_weights(opened, 30, &device).expect_err("no patches").to_string();
    assert!(error.contains("30 pixels") && error.contains("patches of 14"), "{error}");
}

fn weights_of_dino(config: &DinoConfig) -> Weights {
    weights(&config.init(&Device::flex()).expect("valid"))
}

#[test]
fn halves_are_told_apart_in_a_checkpoint_of_training() {
    let (encoder, decoder) = (weights_of_dino(&configs::dinov2()), of_decoder(&configs::rae()));
    let mut whole = as_whole(decoder.clone());
    whole.tensors.extend(as_whole(encoder.clone()).tensors);
    assert!(whole.contains("decoder.decoder_embed.weight"));
    assert!(whole.contains("encoder.encoder.cls_token"));
    assert!(matches!(detect(&whole), Err(WeightsError::Autoencoder { .. })));
    let names = |weights: &Weights| weights.tensors.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&decoder_part(whole.clone())), names(&decoder));
    assert_eq!(names(&encoder_part(whole.clone())), names(&encoder));
    assert_eq!([&encoder, &decoder, &whole].map(is_encoder), [true, false, true]);
    assert_eq!([&encoder, &decoder, &whole].map(is_decoder), [false, true, true]);
    let error = autoencoder_config(&encoder).expect_err("an encoder").to_string();
    assert!(error.contains("DINOv2") && error.contains("decoder"), "{error}");
    // Of two files, the configuration is the decoder's.
    let config = |weights: &Weights| as_whole(configured(weights.clone(), "{}")).metadata.len();
    assert_eq!([&encoder, &decoder].map(config), [0, 1]);
    assert!(encoder_part(decoder).tensors.is_empty());
    // The final norm's weights, which training drops, are not needed.
    whole.tensors.retain(|name, _| !name.starts_with("encoder.encoder.norm."));
    let dropped = encoder_part(whole);
    let device = Device::flex();
    assert!(DinoV2::from_weights(dropped.clone(), None, &device).is_err());
    let a = RaeEncoder::from_weights(dropped, 28, &device).expect("it fits");
    let b = RaeEncoder::from_weights(encoder, 28, &device).expect("it fits");
    let images = values([1, 3, 28, 28]) * 0.5 + 0.5;
    assert_close(a.forward(images.clone()), b.forward(images));
}

#[test]
fn training_noise_is_scaled_by_image() {
    let tokens = values([2, 3, 2, 2]);
    let eps = tokens.ones_like();
    let u = Tensor::<1>::from_data(TensorData::from([0.5f32, 0.0]), &Device::flex());
    let noised = noised(tokens.clone(), 0.8, u, eps);
    let added = noised - tokens;
    let expected =
        Tensor::<4>::from_data(TensorData::new(vec![0.4f32, 0.0], [2, 1, 1, 1]), &Device::flex());
    assert_close(added, expected.expand([2, 3, 2, 2]));
}

#[test]
fn another_grid_is_resized_to_the_decoders() {
    let decoder = loaded(&of_decoder(&configs::rae()));
    let image = decoder.forward(values([1, 64, 3, 3]));
    assert_eq!(image.dims(), [1, 3, 32, 32]);
    // Tokens that are equal everywhere stay so.
    let same = values([1, 64, 1, 1]);
    let [small, large] =
        [[1usize, 64, 2, 2], [1, 64, 5, 5]].map(|shape| same.clone().expand(shape));
    assert_close(decoder.forward(large), decoder.forward(small));
}

#[test]
fn statistics_have_the_shape_of_channels_or_positions() {
    let read = |weights: &Weights| LatentStats::from_weights(weights);
    let stats = read(&statistics(Some(1.0), ("var", 4.0 - 1e-5), &[3, 2, 2])).expect("RAE's");
    assert_eq!((stats.shape, stats.mean.len()), ([3, 2, 2], 12));
    assert!(stats.std.iter().all(|std| (std - 2.0).abs() < 1e-6), "{stats:?}");
    let without = read(&statistics(None, ("var", 1.0), &[3, 2, 2])).expect("RAE's");
    assert!(without.mean.iter().all(|mean| *mean == 0.0));
    for shape in [&[3][..], &[1, 3], &[3, 1, 1], &[1, 3, 1, 1]] {
        let stats = read(&statistics(Some(1.0), ("std", 2.0), shape)).expect("by channel");
        assert_eq!(stats, LatentStats::of_channels(vec![1.0; 3], vec![2.0; 3]), "{shape:?}");
        assert!(stats.fits([3, 5, 7]) && stats.is_of_channels());
        let mut latent = [3.0; 12];
        stats.normalize_values(&mut latent);
        assert_eq!(latent, [1.0; 12]);
    }
    let refused = |weights: &Weights, word: &str| {
        let error = read(weights).expect_err(word).to_string();
        assert!(error.contains(word) && error.contains("stat.pt"), "{error}");
    };
    refused(&statistics(None, ("mean", 0.0), &[3, 2, 2]), "neither std nor var");
    refused(&statistics(None, ("scale", 1.0), &[3, 2, 2]), "neither mean and std");
    refused(&statistics(None, ("var", -1.0), &[3]), "negative");
    refused(&statistics(Some(0.0), ("std", 0.0), &[3]), "not positive");
    refused(&statistics(Some(0.0), ("var", f32::NAN), &[3]), "not finite");
    refused(&statistics(Some(0.0), ("var", 1.0), &[2, 3]), "shape [2, 3]");
    let mut other = statistics(Some(0.0), ("var", 1.0), &[3, 2, 2]);
    other.tensors.extend(statistics(None, ("mean", 0.0), &[3, 1, 1]).tensors);
    refused(&other, "have shapes");
}

/// A network on the latents of these halves.
fn network(in_channels: usize, input_size: usize) -> Weights {
    let config = LightningDiTConfig { in_channels, input_size, ..configs::lightningdit() };
    let weights = weights(&config.init(&Device::flex()).expect("valid"));
    configured(weights, &serde_json::json!(config).to_string())
}

fn parts<'a>(model: &'a Weights, vae: &'a Weights, stats: &'a Weights) -> Parts<'a> {
    Parts { model, vae: Some(vae), stats: Some(stats), guide: None }
}

#[test]
fn a_network_on_tokens_makes_pictures() {
    let (model, device) = (network(64, 2), Device::flex());
    let decoder = configured(of_decoder(&configs::rae()), &rae::decoder_json());
    let stats = statistics(Some(0.5), ("var", 4.0), &[64, 2, 2]);
    let pipeline = |parts: Parts<'_>| Pipeline::load(parts, FloatDType::F32, &device);
    let made = pipeline(parts(&model, &decoder, &stats)).expect("it loads");
    assert_eq!(made.image_size(), [32, 32]);
    let z = values([3, 64, 2, 2]);
    let stats = LatentStats::from_weights(&stats).expect("statistics");
    let expected = loaded(&decoder).forward(stats.denormalize(z.clone())) * 2.0 - 1.0;
    assert_close(made.decode(z), expected);

    let settings = Settings { steps: 2, ..made.architecture().default_settings() };
    let request = Request { settings, images: vec![ImageSpec::new(Some(3), 1, 0)] };
    let mut sizes = Vec::new();
    let mut on_event = async |event: Event<'_>| {
        if let Event::Image(picture) = event {
            sizes.push(picture.image.pixels.len());
        }
        Ok(())
    };
    pollster::block_on(made.generate(&request, &mut on_event)).expect("a picture");
    assert_eq!(sizes, [3 * 32 * 32]);

    // As many values in another shape are those of other latents.
    let refused = |parts: Parts<'_>, words: &[&str]| match pipeline(parts) {
        Err(LoadError::IncompatibleParts(why)) => {
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
        other => panic!("{other:?}"),
    };
    let of = |shape: &[usize]| statistics(Some(0.5), ("var", 4.0), shape);
    refused(parts(&model, &decoder, &of(&[64, 4, 1])), &["statistics", "1 by 4"]);
    refused(parts(&model, &decoder, &of(&[16, 4, 4])), &["64 latent channels", "statistics 16"]);
    refused(parts(&network(32, 2), &decoder, &of(&[32])), &["32 latent", "autoencoder 64"]);
    refused(parts(&network(64, 4), &decoder, &of(&[64])), &["4 by 4", "2 by 2"]);
    let channels = of(&[64]);
    let lacking = Parts { stats: None, ..parts(&model, &decoder, &channels) };
    assert!(matches!(pipeline(lacking), Err(LoadError::NoStats(_))));
}

#[test]
fn previews_of_wide_latents_are_decoded_or_stand_still() {
    let (channels, device) = (256, Device::flex());
    let config = RaeDecoderConfig { latent_channels: channels, ..configs::rae() };
    let decoder = configured(of_decoder(&config), &serde_json::json!(config).to_string());
    let (model, stats) =
        (network(channels, 2), statistics(Some(0.5), ("var", 4.0), &[channels, 2, 2]));
    let pipeline = Pipeline::load(parts(&model, &decoder, &stats), FloatDType::F32, &device);
    let pipeline = pipeline.expect("it loads");
    let mut map = LatentMap::new(channels);
    let mut previewer = Previewer::new(&pipeline, &mut map);
    let mut shown = |clean: &Tensor<4>| {
        let images = previewer.images(Preview { clean, pixels: None });
        pollster::block_on(images).expect("images")
    };
    let first = values([1, channels, 2, 2]);
    let second = first.clone() * -0.5 + 0.25;
    let decoded = [&first, &second].map(|clean| pipeline.decode(clean.clone()));
    assert_close(shown(&first), decoded[0].clone());
    // Whether there is time to decode the second one, too, is up to the machine.
    let found = shown(&second);
    let error =
        |image: &Tensor<4>| (found.clone() - image.clone()).abs().max().into_scalar::<f32>();
    assert!(error(&decoded[0]).min(error(&decoded[1])) < 1e-4);
    assert!((decoded[0].clone() - decoded[1].clone()).abs().max().into_scalar::<f32>() > 1e-2);
}
