//! PyTorch's checkpoints as people have them: which weights are taken, and tensors that cannot be read.

use tintype::burn::tensor::Device;
use tintype::model::hdit::HDiTConfig;
use tintype::model::sit::SiTConfig;
use tintype::model::{Architecture, detect};
use tintype::weights::{Weights, WeightsError, compare, propose, snapshot, write_safetensors};
use tintype_test_models::pickles::{
    archive, arguments, called, dict, global, pickle, tensor, text, tuple,
};

const FOUR: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn bytes(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    std::fs::read(path).expect("a case")
}

fn open(entries: &[(&str, Vec<u8>)]) -> Result<Weights, WeightsError> {
    Weights::from_bytes(archive(&pickle(&dict(entries)), &FOUR), "x.pt")
}

fn plain() -> Vec<u8> {
    tensor("FloatStorage", &[2, 2], &[2, 1])
}

#[test]
fn k_diffusion_gives_its_averaged_weights_and_its_configuration() {
    let weights = Weights::from_bytes(bytes("kdiffusion.pth"), "x.pth").expect("it opens");
    assert_eq!(weights.metadata["section"], "model_ema");
    assert_eq!(weights.raw_note(), None);
    let sections = Weights::pytorch_sections(bytes("kdiffusion.pth"), "x.pth").expect("it opens");
    let name = "mapping.out_norm.scale";
    let values = |weights: &Weights| weights.tensors[name].to_f32();
    assert_eq!(values(&weights), values(&sections["model_ema"]));
    assert_ne!(values(&weights), values(&sections["model"]));
    let architecture = detect(&weights).expect("an HDiT");
    let config: &HDiTConfig = architecture.downcast().expect("an HDiT");
    assert_eq!((config.depths.as_slice(), config.num_classes), ([1, 1].as_slice(), 4));
    assert_eq!(architecture.null_class(), Some(4));
    let report = architecture.untrained(&Device::default()).expect("valid").compare(&weights);
    assert!(report.fits(), "{report}");
}

#[test]
fn a_file_keeps_the_order_of_its_network() {
    let averaged = dict(&[("module.zz", plain()), ("module.aa", plain())]);
    let weights = open(&[("ema", averaged)]).expect("it opens");
    let network = ["first", "second"].map(|name| (name.to_string(), vec![2, 2]));
    let table = propose(&network, &weights).to_string();
    assert_eq!(table, "zz -> first  # by order\naa -> second  # by order\n");
}

#[test]
fn averaged_weights_come_first_and_raw_ones_are_told() {
    for name in ["ema", "model_ema", "state_dict_ema", "ema_model", "model_ema1"] {
        let averaged = dict(&[("module.w", tensor("FloatStorage", &[4], &[1]))]);
        let raw = dict(&[("w", plain())]);
        for nested in [false, true] {
            let averaged = match nested {
                true => dict(&[("state_dict", averaged.clone())]),
                false => averaged.clone(),
            };
            let entries = [("model", raw.clone()), ("state_dict", raw.clone()), (name, averaged)];
            let weights = open(&entries).expect("it opens");
            assert_eq!(weights.tensors["w"].shape, [4], "{name}");
            assert_eq!(weights.raw_note(), None, "{name}");
        }
    }
    for name in ["model", "state_dict"] {
        let weights = open(&[(name, dict(&[("w", plain())]))]).expect("it opens");
        let note = weights.raw_note().expect("raw weights");
        assert_eq!(note, "x.pt: no EMA weights; raw training weights are used");
        // The file that is made of it says so, too.
        let file = write_safetensors(&weights.tensors, &weights.metadata).expect("it writes");
        let again = Weights::from_bytes(file, "x.safetensors").expect("it opens");
        assert!(again.raw_note().is_some());
    }
    assert_eq!(open(&[("w", plain())]).expect("a flat dictionary").raw_note(), None);
}

#[test]
fn other_configurations_do_not_replace_what_the_tensors_tell() {
    let entries = [("config", dict(&[("lr", text("1e-4"))])), ("ema", dict(&[("w", plain())]))];
    assert!(!open(&entries).expect("it opens").metadata.contains_key("config"));
    let lightningdit = dict(&[("model", dict(&[("model_type", text("LightningDiT-XL/1"))]))]);
    let entries = [("config", lightningdit), ("ema", dict(&[("w", plain())]))];
    let weights = open(&entries).expect("it opens");
    assert_eq!(weights.metadata["config"], r#"{"model":{"model_type":"LightningDiT-XL/1"}}"#);
}

#[test]
fn one_odd_tensor_leaves_the_rest_readable() {
    let control = Weights::from_bytes(bytes("control.pt"), "x.pt").expect("it opens");
    for name in ["complex-in-optimizer.pt", "parameter-with-attributes.pt"] {
        let weights = Weights::from_bytes(bytes(name), name).expect(name);
        assert_eq!(weights.tensors["w"].to_f32(), control.tensors["w"].to_f32(), "{name}");
        assert!(weights.unreadable.is_empty(), "{name}");
    }
    let parameter = |function: &str, more: Vec<u8>| {
        called(function, &tuple(&[plain(), b"\x88".to_vec(), b"}".to_vec(), more]))
    };
    let subclass = tuple(&[
        global("torch._utils _rebuild_tensor_v2"),
        global("torch Tensor"),
        arguments("FloatStorage", &[2, 2], &[2, 1]),
        dict(&[("note", text("x"))]),
    ]);
    let readable = [
        parameter("torch._utils _rebuild_parameter", Vec::new()),
        parameter("torch._utils _rebuild_parameter_with_state", dict(&[("tag", text("x"))])),
        called("torch._tensor _rebuild_from_type_v2", &subclass),
    ];
    for value in readable {
        let weights = open(&[("w", value)]).expect("it opens");
        assert_eq!(weights.tensors["w"].to_f32(), FOUR);
    }
    let odd = [
        (tensor("ComplexFloatStorage", &[2], &[1]), "ComplexFloat"),
        (tensor("UnheardOfStorage", &[2], &[1]), "UnheardOf"),
        (called("torch._utils _rebuild_qtensor", &tuple(&[plain()])), "quantized"),
        (called("torch._utils _rebuild_sparse_tensor", &tuple(&[plain()])), "sparse"),
        (tensor("FloatStorage", &[1 << 30, 1 << 30], &[0, 0]), "repeats"),
        (tensor("FloatStorage", &[1 << 20, 1 << 15], &[0, 0]), "repeats"),
        (tensor("FloatStorage", &[400], &[1]), "truncated"),
    ];
    for (value, reason) in odd {
        let entries = [("ema", dict(&[("odd", value), ("w", plain())]))];
        let weights = open(&entries).expect("the rest is readable");
        assert_eq!(weights.tensors["w"].to_f32(), FOUR);
        let found = &weights.unreadable["odd"];
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn expanded_tensors_repeat_their_values() {
    let expanded = open(&[("w", tensor("FloatStorage", &[2, 3], &[1, 0]))]).expect("it opens");
    assert_eq!(expanded.tensors["w"].to_f32(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    let scalar = open(&[("w", tensor("FloatStorage", &[3, 2], &[0, 0]))]).expect("it opens");
    assert_eq!(scalar.tensors["w"].to_f32(), [1.0; 6]);
}

#[test]
fn what_the_network_needs_and_cannot_be_read_is_named() {
    let network = SiTConfig::variant("S", 1).expect("a variant");
    let config = SiTConfig { depth: 1, hidden_size: 48, num_heads: 4, num_classes: 3, ..network };
    let network = config.init(&Device::default()).expect("valid");
    let mut weights =
        Weights { file: "x.pt".into(), tensors: snapshot(&network), ..Weights::default() };
    let name = "blocks.0.attn.qkv.weight";
    weights.tensors.remove(name);
    weights.unreadable.insert(name.into(), "complex".into());
    weights.unreadable.insert("loss.logvar".into(), "complex".into());
    let report = compare(&network, &weights);
    assert!(!report.fits() && report.missing.is_empty() && report.unexpected.is_empty());
    let text = report.to_string();
    assert!(text.ends_with("1 that cannot be read: blocks.0.attn.qkv.weight (complex)"), "{text}");
}

#[test]
fn types_of_safetensors_that_no_network_has_leave_the_rest_readable() {
    let header = r#"{"odd":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0, 0, 0, 0, 0, 0, 128, 63]);
    let weights = Weights::from_bytes(file, "x.safetensors").expect("it opens");
    assert_eq!(weights.tensors["w"].to_f32(), [1.0]);
    assert!(weights.unreadable.contains_key("odd"));
}

#[test]
fn an_absurd_block_number_is_an_error() {
    let file = bytes("repa-sit.safetensors");
    let mut weights = Weights::from_bytes(file, "x.safetensors").expect("it opens");
    let stray = weights.tensors["pos_embed"].clone();
    for number in ["1000000000000", &usize::MAX.to_string()] {
        let mut weights = weights.clone();
        weights.tensors.insert(format!("blocks.{number}.x"), stray.clone());
        let error = detect(&weights).expect_err("too deep").to_string();
        assert!(error.contains("depth") && error.contains("4096"), "{error}");
    }
    weights.tensors.insert("projectors.1000000000000.4.weight".into(), stray);
    assert!(detect(&weights).is_err());
    let flowers = tintype::preset::find("hdit-flowers-256").expect("a preset").architecture;
    let flowers: &HDiTConfig = flowers.downcast().expect("an HDiT");
    assert!(HDiTConfig { mapping_depth: 1 << 40, ..flowers.clone() }.validate().is_err());
    let deep = HDiTConfig { depths: vec![2, 2, 1 << 40], ..flowers.clone() };
    assert!(Architecture::from(deep).untrained(&Device::default()).is_err());
    let vae = tintype::model::vavae::VaeConfig::f16d32();
    let vae = tintype::model::vavae::VaeConfig { num_res_blocks: 1 << 40, ..vae };
    assert!(vae.validate().is_err());
}

#[test]
fn averages_of_other_names_and_nestings_are_taken() {
    let averaged = dict(&[("module.w", tensor("FloatStorage", &[4], &[1]))]);
    let raw = ("model", dict(&[("w", plain())]));
    for name in [
        "model_ema2",
        "ema_state_dict",
        "model_state_dict_ema",
        "params_ema",
        "ema_0.9999",
        "G_ema",
        "EMA",
        "modelEMA",
        "averaged_model",
        "swa_model",
        "shadow",
    ] {
        for inner in [None, Some("shadow"), Some("params"), Some("module")] {
            let averaged = match inner {
                Some(inner) => dict(&[(inner, averaged.clone())]),
                None => averaged.clone(),
            };
            let weights = open(&[raw.clone(), (name, averaged)]).expect("it opens");
            assert_eq!(weights.tensors["w"].shape, [4], "{name} {inner:?}");
            assert_eq!(weights.raw_note(), None, "{name}");
        }
    }
    // Of other tensors' names.
    let other = dict(&[("v", plain())]);
    let weights = open(&[raw, ("ema_of_it", other)]).expect("it opens");
    assert_eq!(weights.tensors["w"].shape, [2, 2]);
    let note = weights.raw_note().expect("raw weights");
    assert!(note.contains("it also holds \"ema_of_it\", which is not read"), "{note}");
}

#[test]
fn a_number_beside_a_dictionary_of_tensors_does_not_hide_it() {
    let scalar = || tensor("FloatStorage", &[], &[]);
    let inside = || dict(&[("v", plain()), ("w", plain())]);
    for name in ["ema", "model"] {
        for inner in ["state_dict", "module"] {
            let entry = dict(&[("decay", scalar()), (inner, inside())]);
            let weights = open(&[(name, entry)]).expect("it opens");
            assert!(weights.contains("v") && weights.contains("w"), "{name} {inner}");
        }
    }
}

#[test]
fn other_raw_sections_and_prefixes_of_wrappers_are_known() {
    for name in ["model_state_dict", "net", "params", "generator"] {
        let weights = open(&[(name, dict(&[("w", plain())]))]).expect("it opens");
        assert!(weights.contains("w") && weights.raw_note().is_some(), "{name}");
    }
    let lightning = dict(&[("model.w", plain())]);
    assert!(open(&[("state_dict", lightning)]).expect("it opens").contains("w"));
    let both = [("model.w", plain()), ("model_ema.w", tensor("FloatStorage", &[4], &[1]))];
    let weights = open(&[("state_dict", dict(&both))]).expect("it opens");
    assert_eq!((weights.tensors["w"].shape.as_slice(), weights.raw_note()), ([4].as_slice(), None));
    let error = open(&[("epoch", text("3")), ("history", text("x"))]).expect_err("no weights");
    assert!(error.to_string().ends_with("its keys are \"epoch\", \"history\""), "{error}");
    let twice = dict(&[("w", plain()), ("module.w", plain())]);
    assert!(open(&[("ema", twice)]).expect_err("two").to_string().contains("under two names"));

    let w = open(&[("w", plain())]).expect("it opens").tensors["w"].clone();
    for prefix in ["module.", "_orig_mod.", "first_stage_model.", "vae.", "module.vae."] {
        let name = "decoder.conv_in.weight";
        let tensors = [(format!("{prefix}{name}"), w.clone())].into();
        let file = write_safetensors(&tensors, &Default::default()).expect("it writes");
        let weights = Weights::from_bytes(file, "x.safetensors").expect("it opens");
        assert!(weights.contains(name), "{prefix}");
    }
}

#[test]
fn what_is_beside_the_tensors_is_named() {
    let entries = [("w", plain()), ("note", text("x")), ("more", dict(&[("v", plain())]))];
    let mut weights = open(&entries).expect("it opens");
    assert_eq!(weights.take_left_out().as_deref(), Some("\"note\", \"more\""));
    assert_eq!(weights.take_left_out(), None);
}

#[test]
fn numbers_of_numpy_are_read_and_what_cannot_be_is_named() {
    let dtype = |name: &str| called("numpy dtype", &tuple(&[text(name)]));
    let encoded = |bytes: &str| called("_codecs encode", &tuple(&[text(bytes), text("latin1")]));
    let scalar = |name: &str, bytes: &str| {
        called("numpy.core.multiarray scalar", &tuple(&[dtype(name), encoded(bytes)]))
    };
    let model = |key: &str, value: Vec<u8>| {
        let model = dict(&[("type", text("image_transformer_v2")), (key, value)]);
        let config = dict(&[("model", model)]);
        open(&[("config", config), ("model_ema", dict(&[("w", plain())]))]).expect("it opens")
    };
    let half = "\0\0\0\0\0\0\u{e0}\u{3f}"; // 0.5
    let cases = [
        ("sigma_data", scalar("f8", half), "0.5"),
        ("mapping_depth", scalar("i8", "\u{3}\0\0\0\0\0\0\0"), "3"),
        ("mapping_depth", scalar("u1", "\u{ff}"), "255"),
        ("patch_size", called("torch Size", &tuple(&[tuple(&[text("4")])])), "[\"4\"]"),
        ("sigma_min", tensor("FloatStorage", &[], &[]), "1.0"),
    ];
    for (key, value, read) in cases {
        let config = model(key, value).metadata["config"].clone();
        assert!(config.contains(&format!("\"{key}\":{read}")), "{config}");
    }
    let infinite = [b"G".as_slice(), &f64::INFINITY.to_be_bytes()].concat();
    for value in [infinite, called("builtins object", &tuple(&[]))] {
        let weights = model("sigma_max", value);
        assert!(!weights.metadata.contains_key("config"));
        let error = detect(&weights).expect_err("not understood").to_string();
        assert!(error.contains("model.sigma_max"), "{error}");
    }
}

#[test]
fn files_that_are_no_checkpoints_are_told_by_their_kind() {
    let cases: [(&[u8], &str); 6] = [
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"{\"a\": 1}", "JSON"),
        (b"\x1f\x8b\x08\x00 and more of it", "gzip"),
        (b"GGUF and more of it", "GGUF"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ];
    for (content, kind) in cases {
        let error = Weights::from_bytes(content.to_vec(), "x").expect_err(kind).to_string();
        assert!(error.contains(kind), "{error}");
    }
}

#[test]
fn bits_of_lazy_arithmetic_are_not_ignored() {
    let mut lazy = arguments("FloatStorage", &[2, 2], &[2, 1]);
    assert_eq!(lazy.pop(), Some(b't'));
    lazy.extend(dict(&[("neg", b"\x88".to_vec())]));
    lazy.push(b't');
    let lazy = called("torch._utils _rebuild_tensor_v2", &lazy);
    let weights = open(&[("ema", dict(&[("odd", lazy), ("w", plain())]))]).expect("it opens");
    assert!(weights.unreadable["odd"].contains("neg"));
}

/// Checkpoints of joint training: a network and its autoencoder in one file.
#[cfg(all(feature = "cpu", feature = "files"))]
mod joint {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use tempfile::TempDir;
    use tintype::burn::tensor::{Device, FloatDType};
    use tintype::generate::{LoadError, ModelFiles, ModelPaths, Pipeline};
    use tintype::weights::{autoencoder_in, open, open_autoencoder};
    use tintype_test_models::configs;
    use tintype_test_models::pickles::{checkpoint, section};

    use super::{dict, plain, tensor};

    /// REPA-E's network, which holds the statistics of its latents.
    fn network() -> Vec<u8> {
        section(&configs::sit().init(&Device::flex()).expect("valid"))
    }

    fn autoencoder() -> Vec<u8> {
        section(&configs::autoencoder().init_decoder(&Device::flex()).expect("valid"))
    }

    fn write(folder: &TempDir, name: &str, entries: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, checkpoint(entries)).expect("it is written");
        path
    }

    fn files(model: &Path, vae: Option<&Path>) -> ModelFiles {
        let (model, vae) = (Some(model.to_path_buf()), vae.map(Path::to_path_buf));
        ModelFiles::open(&ModelPaths { model, vae, ..ModelPaths::default() }).expect("it opens")
    }

    #[test]
    fn the_autoencoder_in_the_networks_file_is_taken_unless_another_is_named() {
        let (folder, device) = (TempDir::new().expect("a folder"), Device::flex());
        let entries = [
            ("model", network()),
            ("ema", network()),
            ("vae", autoencoder()),
            ("discriminator", dict(&[("main.0.weight", plain())])),
        ];
        let joint = write(&folder, "joint.pt", &entries);
        let alone = write(&folder, "alone.pt", &[("ema", network())]);
        let vae = write(&folder, "vae.pt", &[("state_dict", autoencoder())]);
        let note = format!("{}: its own autoencoder is used, \"vae\"", joint.display());
        for (model, named, is_own) in [
            (&joint, None, true),
            (&joint, Some(vae.as_path()), false),
            (&alone, Some(joint.as_path()), false),
        ] {
            let files = files(model, named);
            assert_eq!(files.model.metadata["section"], "ema");
            let from = named.unwrap_or(model).display().to_string();
            assert_eq!(files.vae.as_ref().map(|vae| vae.file.clone()), Some(from));
            let inspection = files.inspect(&device).expect("it would load");
            assert_eq!(inspection.reports.len(), 2);
            assert_eq!(inspection.image_size, [32, 32]);
            assert_eq!(inspection.notes.contains(&note), is_own, "{:?}", inspection.notes);
            Pipeline::load(files.parts(), FloatDType::F32, &device).expect("it loads");
        }
        let lacking = files(&alone, None).inspect(&device);
        assert!(matches!(lacking, Err(LoadError::NoVae("SiT"))), "{lacking:?}");
    }

    #[test]
    fn an_average_of_the_autoencoder_comes_first() {
        let folder = TempDir::new().expect("a folder");
        let half = |value: Vec<u8>| dict(&[("module.decoder.conv_in.weight", value)]);
        let averaged = || half(tensor("FloatStorage", &[4], &[1]));
        let network = dict(&[("w", plain())]);
        for name in ["ema_vae", "vae_ema"] {
            let entries = [("ema", network.clone()), ("vae", half(plain())), (name, averaged())];
            let vae = open_autoencoder(&write(&folder, name, &entries)).expect("it opens");
            assert_eq!(vae.tensors["decoder.conv_in.weight"].shape, [4]);
            assert_eq!(vae.metadata["section"], name);
        }
        // An autoencoder's own training.
        let entries = [("vae", half(plain())), ("model", half(plain())), ("ema", averaged())];
        let vae = open_autoencoder(&write(&folder, "own", &entries)).expect("it opens");
        assert_eq!(vae.metadata["section"], "ema");
        // Without a network.
        let path = write(&folder, "alone", &[("vae", half(plain()))]);
        assert!(open(&path).is_err());
        assert!(open_autoencoder(&path).expect("it opens").contains("decoder.conv_in.weight"));
    }

    #[test]
    fn only_checkpoints_of_joint_training_open_in_another_way() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pt");
        let vae = open_autoencoder(&goldens.join("repae_joint.pt")).expect("it opens");
        let names: Vec<&str> = vae.tensors.keys().map(String::as_str).collect();
        let expected = [
            "decoder.conv_out.weight",
            "encoder.conv_in.bias",
            "encoder.conv_in.weight",
            "quant_conv.weight",
        ];
        assert_eq!(names, expected);
        // The arguments are those of the network's training.
        assert_eq!(vae.metadata, BTreeMap::from([("section".into(), "vae".into())]));
        for name in ["sit_train.pt", "e2e-tiny.pt", "vavae_lightning.ckpt", "expected.safetensors"]
        {
            let path = goldens.join(name);
            let opened = open(&path).expect("it opens");
            let again = open_autoencoder(&path).expect("it opens");
            assert_eq!(again.fingerprint(), opened.fingerprint(), "{name}");
            assert_eq!(again.metadata, opened.metadata, "{name}");
        }
        for name in ["sit_train.pt", "raw_state_dict_legacy.pt", "expected.safetensors"] {
            assert!(autoencoder_in(&goldens.join(name)).expect("it opens").is_none(), "{name}");
        }
    }
}
