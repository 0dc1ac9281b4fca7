//! Autoencoders under diffusers' names: files, folders and what their configuration says.
#![cfg(all(feature = "cpu", feature = "files"))]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tintype::burn::tensor::{Device, FloatDType};
use tintype::generate::{LatentStats, ModelFiles, ModelPaths};
use tintype::model::vae_config;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{
    Dtype, TensorView, Weights, WeightsError, compare, from_diffusers, load, open, snapshot,
    write_safetensors,
};

type Tensors = BTreeMap<String, TensorView>;

/// Three levels, the coarsest with attention.
fn tiny() -> VaeConfig {
    VaeConfig {
        ch: 8,
        ch_mult: vec![1, 2, 2],
        num_res_blocks: 1,
        z_channels: 4,
        embed_dim: Some(4),
        attn_resolutions: vec![64],
        num_groups: 4,
        ..VaeConfig::f8d4()
    }
}

/// diffusers' configuration of the same.
fn tiny_json() -> serde_json::Value {
    serde_json::json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.42.1", "act_fn": "silu",
        "block_out_channels": [8, 16, 16], "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 4, "sample_size": 32,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    })
}

/// Fresh tensors of both halves under CompVis' names.
fn fresh(config: &VaeConfig) -> Tensors {
    let device = Device::flex();
    let mut tensors = snapshot(&config.init_encoder(&device).expect("valid"));
    tensors.extend(snapshot(&config.init_decoder(&device).expect("valid")));
    tensors
}

/// How a file of diffusers writes an attention.
#[derive(Clone, Copy, Debug)]
enum Attention {
    /// `to_q` as a linear layer.
    Today,
    /// `query` as a linear layer.
    Older,
    /// `to_q` as a convolution along one axis.
    OneAxis,
    /// `query` as a convolution.
    Convolution,
}

/// The tensors as a file of diffusers has them.
fn theirs(tensors: &Tensors, levels: usize, attention: Attention) -> Tensors {
    let older = matches!(attention, Attention::Older | Attention::Convolution);
    let words = match older {
        false => [".to_q.", ".to_k.", ".to_v.", ".to_out.0."],
        true => [".query.", ".key.", ".value.", ".proj_attn."],
    };
    let one = |(name, view): (&String, &TensorView)| {
        let mut name = name.replace(".norm_out.", ".conv_norm_out.");
        for (ours, diffusers) in [
            (".mid.block_1.", ".mid_block.resnets.0."),
            (".mid.block_2.", ".mid_block.resnets.1."),
            (".mid.attn_1.", ".mid_block.attentions.0."),
            (".nin_shortcut.", ".conv_shortcut."),
            (".block.", ".resnets."),
            (".attn.", ".attentions."),
            (".downsample.", ".downsamplers.0."),
            (".upsample.", ".upsamplers.0."),
        ] {
            name = name.replace(ours, diffusers);
        }
        for level in 0..levels {
            let [down, up] = [format!("encoder.down.{level}."), format!("decoder.up.{level}.")];
            name = name.replace(&down, &format!("encoder.down_blocks.{level}."));
            name = name.replace(&up, &format!("decoder.up_blocks.{}.", levels - 1 - level));
        }
        let mut shape = view.shape.clone();
        if name.contains(".attentions.") {
            name = name.replace(".norm.", ".group_norm.");
            for (ours, diffusers) in [".q.", ".k.", ".v.", ".proj_out."].into_iter().zip(words) {
                name = name.replace(ours, diffusers);
            }
            shape.truncate(match attention {
                Attention::Today | Attention::Older => 2,
                Attention::OneAxis => 3,
                Attention::Convolution => 4,
            });
        }
        let view = TensorView::from_bytes(view.dtype, shape, view.to_bytes());
        (name, view.expect("the same number of elements"))
    };
    tensors.iter().map(one).collect()
}

fn bytes(tensors: &Tensors) -> Vec<u8> {
    write_safetensors(tensors, &BTreeMap::new()).expect("it writes")
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("it is written");
    path
}

fn weights(tensors: Tensors) -> Weights {
    Weights { file: "test".into(), tensors, metadata: BTreeMap::new(), ..Weights::default() }
}

/// The same names, shapes and bits.
fn same(found: &Weights, expected: &Tensors, what: &str) {
    assert!(found.tensors.keys().eq(expected.keys()), "{what}: {:?}", found.tensors.keys());
    for (name, view) in expected {
        let other = &found.tensors[name];
        assert_eq!(other.shape, view.shape, "{what}: {name}");
        assert!(other.to_bytes() == view.to_bytes(), "{what}: {name}");
    }
}

/// Both halves are filled from the weights.
fn fits(weights: &Weights, config: &VaeConfig) {
    let device = Device::flex();
    let is_encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let encoder = weights.clone().filtered(is_encoder);
    let network = config.init_encoder(&device).expect("valid");
    let report = load(network, &encoder, FloatDType::F32, &device).expect("it loads").report;
    assert!(report.unexpected.is_empty(), "{report}");
    let decoder = weights.clone().filtered(|name| !is_encoder(name));
    let network = config.init_decoder(&device).expect("valid");
    let report = load(network, &decoder, FloatDType::F32, &device).expect("it loads").report;
    assert!(report.unexpected.is_empty(), "{report}");
}

#[test]
fn every_way_to_write_an_attention_gives_the_same_tensors() {
    let ours = fresh(&tiny());
    for attention in
        [Attention::Today, Attention::Older, Attention::OneAxis, Attention::Convolution]
    {
        let file = bytes(&theirs(&ours, 3, attention));
        let found = Weights::from_bytes(file, "x.safetensors").expect("it opens");
        same(&found, &ours, &format!("{attention:?}"));
        // Without a configuration the shapes decide, with 32 groups.
        assert!(vae_config(&found).is_err(), "8 channels do not split into 32 groups");
    }
    // What has CompVis' names keeps them.
    let found = Weights::from_bytes(bytes(&ours), "x.safetensors").expect("it opens");
    same(&found, &ours, "unchanged");
    assert!(found.metadata.is_empty());
}

#[test]
fn a_folder_is_opened_with_its_configuration() {
    let folder = TempDir::new().expect("a folder");
    let ours = fresh(&tiny());
    write(&folder, "config.json", tiny_json().to_string());
    let file =
        write(&folder, "diffusion_pytorch_model.bin", bytes(&theirs(&ours, 3, Attention::Older)));
    for path in [folder.path(), file.as_path()] {
        let found = open(path).expect("it opens");
        same(&found, &ours, "a folder");
        assert_eq!(vae_config(&found).expect("an autoencoder"), tiny());
        // As diffusers assumes where a configuration does not say it.
        assert_eq!(found.metadata["scaling_factor"], "0.18215");
        fits(&found, &tiny());
    }
    // What is converted knows it still.
    let found = open(folder.path()).expect("it opens");
    let converted = write_safetensors(&found.tensors, &found.metadata).expect("it writes");
    let converted = Weights::from_bytes(converted, "x.safetensors").expect("it opens");
    same(&converted, &ours, "converted");
    assert_eq!(vae_config(&converted).expect("an autoencoder"), tiny());
    assert_eq!(converted.metadata["scaling_factor"], "0.18215");
    // A configuration of something else that lies beside it is none of its business.
    write(&folder, "config.json", r#"{"model": {"type": "image_transformer_v2"}}"#);
    assert!(open(folder.path()).expect("it opens").metadata.is_empty());
    write(&folder, "config.json", "{");
    let error = open(folder.path()).expect_err("it is damaged").to_string();
    assert!(error.contains("configuration"), "{error}");
}

#[test]
fn models_are_opened_with_an_autoencoder_in_a_folder() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let source = goldens.join("sdvae_diffusers_folder");
    let read = |name: &str| std::fs::read(source.join(name)).expect("a file");
    let folder = TempDir::new().expect("a folder");
    write(&folder, "config.json", read("config.json"));
    write(&folder, "diffusion_pytorch_model.bin", read("diffusion_pytorch_model.bin"));
    let paths = ModelPaths {
        model: Some(source.clone()),
        vae: Some(folder.path().into()),
        ..ModelPaths::default()
    };
    let files = ModelFiles::open(&paths).expect("it opens");
    let vae = files.vae.expect("an autoencoder");
    same(&vae, &files.model.tensors, "PyTorch's file with the older names");
    let config = vae_config(&vae).expect("an autoencoder");
    assert_eq!((config.num_groups, config.ch_mult.as_slice()), (2, [1, 2, 2].as_slice()));
    fits(&vae, &config);
}

#[test]
fn a_decoder_alone_in_half_precision_is_a_stable_diffusions() {
    let config = VaeConfig { ch: 32, ch_mult: vec![1, 1, 1, 1], ..VaeConfig::f8d4() };
    let decoder = snapshot(&config.init_decoder(&Device::flex()).expect("valid"));
    let half = |(name, view): (String, TensorView)| {
        Some((name, view.converted(Dtype::F16)?)) // fresh weights are small
    };
    let decoder: Tensors = decoder.into_iter().filter_map(half).collect();
    let file = bytes(&theirs(&decoder, 4, Attention::Today));
    let found = Weights::from_bytes(file, "x.safetensors").expect("it opens");
    same(&found, &decoder, "half a file");
    assert!(!found.metadata.contains_key("scaling_factor"));
    let seen = vae_config(&found).expect("an autoencoder");
    assert!(seen.is_f8d4() && !VaeConfig::f16d32().is_f8d4());
    let network = seen.init_decoder(&Device::flex()).expect("valid");
    assert!(load(network, &found, FloatDType::F32, &Device::flex()).is_ok());
}

#[test]
fn shards_are_renamed_together() {
    let folder = TempDir::new().expect("a folder");
    let ours = fresh(&tiny());
    let all = theirs(&ours, 3, Attention::Today);
    let mut map = serde_json::Map::new();
    for (number, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let part = |(i, (name, view)): (usize, (&String, &TensorView))| {
            (i % 2 == number).then(|| (name.clone(), view.clone()))
        };
        let part: Tensors = all.iter().enumerate().filter_map(part).collect();
        write(&folder, shard, bytes(&part));
        map.extend(part.into_keys().map(|name| (name, shard.into())));
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    let sharded = "diffusion_pytorch_model.safetensors.index.json";
    // As macOS keeps it beside a file on a foreign disk.
    write(&folder, "._x.safetensors.index.json", b"\0\x05\x16\x07");
    // The second as Windows' Notepad saves texts.
    for (name, mark) in [(sharded, ""), ("x.safetensors.index.json", "\u{feff}")] {
        write(&folder, "config.json", format!("{mark}{}", tiny_json()));
        let file = write(&folder, name, format!("{mark}{index}"));
        let found = open(folder.path()).expect("it opens");
        same(&found, &ours, name);
        assert_eq!(vae_config(&found).expect("an autoencoder"), tiny());
        std::fs::remove_file(file).expect("it goes");
    }
    write(&folder, "x.safetensors.index.json", b"\xff\xfe{\0}\0");
    let error = open(folder.path()).expect_err("UTF-16").to_string();
    let words = "x.safetensors.index.json: it is UTF-16; save it as UTF-8";
    assert!(error.ends_with(words), "{error}");
}

#[test]
fn folders_without_weights_or_with_several_say_what_was_looked_for() {
    let folder = TempDir::new().expect("a folder");
    let said = |folder: &TempDir| match open(folder.path()) {
        Err(error @ WeightsError::Format { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let none = said(&folder);
    for name in [
        "model.safetensors",
        "pytorch_model.bin",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        ".safetensors.index.json",
    ] {
        assert!(none.contains(name), "{none}");
    }
    let file = bytes(&theirs(&fresh(&tiny()), 3, Attention::Today));
    write(&folder, "pytorch_model.bin", &file);
    assert!(open(folder.path()).is_ok());
    write(&folder, "diffusion_pytorch_model.safetensors", &file);
    let several = said(&folder);
    assert!(
        several.contains("pytorch_model.bin and diffusion_pytorch_model.safetensors"),
        "{several}"
    );
}

#[test]
fn missing_quant_convolutions_are_the_identity_unless_the_configuration_wants_them() {
    let mut ours = fresh(&tiny());
    ours.retain(|name, _| !name.contains("quant_conv"));
    let without = weights(theirs(&ours, 3, Attention::Today));
    let json = |uses: bool| {
        let mut json = tiny_json();
        json["use_quant_conv"] = uses.into();
        json["use_post_quant_conv"] = uses.into();
        json.to_string()
    };
    for config in [None, Some(json(false))] {
        let found = from_diffusers(without.clone(), config.as_deref()).expect("it is renamed");
        fits(&found, &tiny());
        let quant = found.tensors["quant_conv.weight"].to_f32();
        assert!((0..64).all(|i| quant[i] == f32::from(u8::from(i / 8 == i % 8))), "{quant:?}");
        assert_eq!(found.tensors["quant_conv.bias"].to_f32(), [0.0; 8]);
        assert_eq!(found.tensors["post_quant_conv.weight"].shape, [4, 4, 1, 1]);
    }
    let found = from_diffusers(without, Some(&json(true))).expect("it is renamed");
    let decoder = found.filtered(|name| name.starts_with("decoder."));
    let report = compare(&tiny().init_decoder(&Device::flex()).expect("valid"), &decoder);
    assert_eq!(report.missing, ["post_quant_conv.bias", "post_quant_conv.weight"]);
}

#[test]
fn a_configuration_states_the_statistics_of_the_latents() {
    let ours = theirs(&fresh(&tiny()), 3, Attention::Today);
    let stats = |more: serde_json::Value| {
        let mut json = tiny_json();
        for (key, value) in more.as_object().expect("an object") {
            json[key] = value.clone();
        }
        let weights = weights(ours.clone());
        let weights = from_diffusers(weights, Some(&json.to_string())).expect("it is renamed");
        LatentStats::of_autoencoder(&weights, 4)
    };
    let found = stats(serde_json::json!({"scaling_factor": 0.5, "shift_factor": 0.25}));
    let expected = LatentStats::of_channels(vec![0.25; 4], vec![2.0; 4]);
    assert_eq!(found.expect("numbers"), Some(expected));
    let found = stats(serde_json::json!({
        "scaling_factor": 2, "shift_factor": null,
        "latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [2.0, 4.0, 6.0, 8.0],
    }));
    let expected = LatentStats::of_channels(vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 2.0, 3.0, 4.0]);
    assert_eq!(found.expect("numbers"), Some(expected));
    for wrong in [serde_json::json!("much"), serde_json::json!(0)] {
        assert!(stats(serde_json::json!({ "scaling_factor": wrong })).is_err());
    }
    let without = weights(ours.clone());
    assert_eq!(LatentStats::of_autoencoder(&without, 4).expect("nothing"), None);
}

#[test]
fn other_networks_are_refused_by_name() {
    let refused = |key: &str, value: serde_json::Value| {
        let mut json = tiny_json();
        json[key] = value;
        VaeConfig::from_diffusers(&json.to_string()).expect_err(key).to_string()
    };
    let list = |names: [&str; 3]| serde_json::json!(names);
    for (key, value, word) in [
        ("_class_name", "AutoencoderKLWan".into(), "AutoencoderKLWan"),
        ("act_fn", "gelu".into(), "gelu"),
        ("mid_block_add_attention", false.into(), "attention"),
        ("block_out_channels", serde_json::json!([8, 12, 16]), "multiples"),
        ("block_out_channels", serde_json::json!([]), "length"),
        ("norm_num_groups", 3.into(), "groups"),
        ("down_block_types", list(["DownEncoderBlock2D"; 3]), "different levels"),
        ("down_block_types", list(["AttnDownBlock2D"; 3]), "AttnDownBlock2D"),
        ("layers_per_block", "two".into(), "JSON"),
    ] {
        let error = refused(key, value);
        assert!(error.contains(word), "{key}: {error}");
    }
}

#[test]
fn hostile_names_are_no_panic() {
    let one = || TensorView::from_f32(vec![1], &[1.0]).expect("one value");
    let names = [
        "decoder.up_blocks.18446744073709551615.resnets.0.conv1.weight",
        "decoder.up_blocks.255.resnets.0.conv1.weight",
        "decoder.up_blocks",
        "decoder.mid_block.resnets.255.norm1.weight",
        "encoder.down_blocks.0",
        "encoder.conv_out.weight",
        "encoder..",
    ];
    let tensors: Tensors = names.iter().map(|name| (name.to_string(), one())).collect();
    let found = from_diffusers(weights(tensors), None).expect("it is renamed");
    assert!(vae_config(&found).is_err());
    // One tensor under two names is not chosen between.
    let names = ["encoder.conv_norm_out.bias", "encoder.norm_out.bias", "encoder.mid_block.x"];
    let tensors: Tensors = names.iter().map(|name| (name.to_string(), one())).collect();
    let error = from_diffusers(weights(tensors), None).expect_err("two names").to_string();
    assert!(error.contains("encoder.norm_out.bias"), "{error}");
}

#[test]
fn the_decoder_that_somebody_brought_is_a_stable_diffusions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/diffusers-vae.safetensors");
    let weights = open(&path).expect("it opens");
    let config = vae_config(&weights).expect("an autoencoder");
    assert!(config.is_f8d4(), "{config:?}");
    let decoder = config.init_decoder(&Device::flex()).expect("valid");
    let report = compare(&decoder, &weights);
    assert!(report.fits() && report.unexpected.is_empty(), "{report}");
}
