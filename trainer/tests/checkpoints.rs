//! What people bring, through the program: training checkpoints, tensors that cannot be written, networks of
//! other authors.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;
use tintype::burn::tensor::Device;
use tintype::model::sit::SiTConfig;
use tintype::weights::{Dtype, open, snapshot, write_safetensors};
use tintype_test_models::configs;
use tintype_test_models::pickles::{archive, dict, pickle, tensor};

use common::program;

fn case(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/cases").join(name);
    path.display().to_string()
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    (text(&output.stdout), errors)
}

/// The one-line error of a command that must fail.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    let sentences: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(sentences.len(), 1, "{arguments:?}: {errors}");
    sentences[0].to_string()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A file; its path.
    fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).expect("it is written");
        self.name(name)
    }

    /// An f8d4 autoencoder's decoder; its path.
    fn autoencoder(&self) -> String {
        let config = configs::f8d4();
        let network = config.init_decoder(&Device::flex()).expect("valid");
        let json = serde_json::to_string(&config).expect("it serialises");
        let metadata = [("config".to_string(), json)].into();
        let file = write_safetensors(&snapshot(&network), &metadata).expect("it writes");
        self.write("vae.safetensors", &file)
    }

    /// A SiT by its shapes alone; its path.
    fn sit(&self, change: impl Fn(SiTConfig) -> SiTConfig) -> String {
        let config = change(SiTConfig { depth: 2, num_classes: 10, ..configs::sit() });
        let network = config.init(&Device::flex()).expect("valid");
        let file = write_safetensors(&snapshot(&network), &Default::default()).expect("it writes");
        self.write("sit.safetensors", &file)
    }
}

fn info(file: &str) -> serde_json::Value {
    serde_json::from_str(&succeeds(&["info", "--json", file]).0).expect("JSON")
}

#[test]
fn k_diffusion_converts_to_its_averaged_weights_with_its_configuration() {
    let folder = Folder::new();
    let out = folder.name("x.safetensors");
    let (_, errors) = succeeds(&["convert", &case("kdiffusion.pth"), &out]);
    assert!(!errors.contains("raw"), "{errors}");
    let weights = open(Path::new(&out)).expect("it opens");
    assert_eq!(weights.metadata["section"], "model_ema");
    let config: serde_json::Value =
        serde_json::from_str(&weights.metadata["config"]).expect("the configuration");
    assert_eq!(config["dataset"]["num_classes"], 4);
    assert_eq!(config["model"]["sigma_data"], 0.5);
    let found = info(&out);
    assert_eq!(found["network"], "HDiT");
    assert!(found["fit"].as_str().is_some_and(|fit| fit.starts_with("all ")), "{found}");
    let picture = folder.name("x.png");
    succeeds(&[
        "generate",
        "2",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--out",
        &picture,
        "--model",
        &case("kdiffusion.pth"),
    ]);
}

#[test]
fn raw_weights_are_told_in_a_line() {
    let folder = Folder::new();
    let model = dict(&[("w", tensor("FloatStorage", &[4], &[1]))]);
    let file = archive(&pickle(&dict(&[("model", model)])), &[1.0, 2.0, 3.0, 4.0]);
    let raw = folder.write("raw.pt", &file);
    let note = format!("{raw}: no EMA weights; raw training weights are used");
    let (_, errors) = succeeds(&["convert", &raw, &folder.name("x.safetensors")]);
    assert_eq!(errors.trim(), format!("note: {note}"));
    assert_eq!(info(&raw)["notes"][0], note);
}

#[test]
fn convert_names_what_it_cannot_write() {
    let folder = Folder::new();
    for name in ["control.pt", "complex-in-optimizer.pt", "parameter-with-attributes.pt"] {
        let out = folder.name(&format!("{name}.safetensors"));
        succeeds(&["convert", &case(name), &out]);
        let weights = open(Path::new(&out)).expect("it opens");
        assert_eq!(weights.tensors["w"].shape, [2, 2], "{name}");
    }
    let entries = [
        ("w", tensor("FloatStorage", &[4], &[1])),
        ("odd", tensor("ComplexFloatStorage", &[2], &[1])),
    ];
    let file = archive(&pickle(&dict(&[("ema", dict(&entries))])), &[1.0, 2.0, 3.0, 4.0]);
    let odd = folder.write("odd.pt", &file);
    let out = folder.name("odd.safetensors");
    let error = refused(&["convert", &odd, &out]);
    assert!(error.contains("\"odd\"") && error.contains("Complex"), "{error}");
    assert!(!Path::new(&out).exists());
    assert!(info(&odd)["unreadable"]["odd"].is_string());
}

#[test]
fn a_file_is_converted_onto_itself() {
    let folder = Folder::new();
    let file = folder.sit(|config| config);
    let before = open(Path::new(&file)).expect("it opens").tensors.len();
    assert!(refused(&["convert", &file, &file]).contains("--force"));
    succeeds(&["convert", &file, &file, "--force", "--dtype", "bf16"]);
    let weights = open(Path::new(&file)).expect("it opens");
    assert_eq!(weights.tensors.len(), before);
    assert_eq!(weights.tensors["x_embedder.proj.weight"].dtype, Dtype::BF16);
}

#[test]
fn a_configuration_is_embedded_as_utf_8_without_a_byte_order_mark() {
    let folder = Folder::new();
    let (model, out) = (folder.sit(|config| config), folder.name("x.safetensors"));
    let config = serde_json::json!(SiTConfig { depth: 2, num_classes: 10, ..configs::sit() });
    let file = folder.write("config.json", format!("\u{feff}{config}").as_bytes());
    succeeds(&["convert", &model, &out, "--config", &file]);
    let weights = open(Path::new(&out)).expect("it opens");
    assert_eq!(weights.metadata["config"], config.to_string());
    assert_eq!(info(&out)["config"]["num_classes"], 10);

    let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = folder.write("wide.json", &wide);
    let error = refused(&["convert", &model, &out, "--force", "--config", &file]);
    assert!(error.ends_with("it is UTF-16; save it as UTF-8"), "{error}");
}

#[test]
fn repas_sit_makes_images_with_and_without_a_file_of_statistics() {
    let folder = Folder::new();
    let vae = folder.autoencoder();
    let (model, stats) = (case("repa-sit.safetensors"), case("sd-vae-latents-stats.safetensors"));
    assert_eq!(info(&model)["network"], "SiT");
    assert_eq!(info(&model)["config"]["latent_norm"], false);
    let generate = |out: &str, more: &[&str]| {
        let base = ["generate", "3", "--steps", "2", "--device", "cpu", "--out", out];
        succeeds(&[&base[..], &["--model", &model, "--vae", &vae], more].concat());
        let picture = image::open(out).expect("a picture").to_rgb8();
        assert_eq!(picture.dimensions(), (64, 64));
        picture.into_raw()
    };
    let usual = generate(&folder.name("a.png"), &[]);
    assert_eq!(usual, generate(&folder.name("b.png"), &["--stats", &stats]));
}

#[test]
fn the_authors_sit_makes_images() {
    let folder = Folder::new();
    let vae = folder.autoencoder();
    let model = folder.sit(|sit| SiTConfig { latent_norm: false, learn_sigma: true, ..sit });
    let found = info(&model);
    assert_eq!(found["network"], "SiT");
    assert_eq!(found["config"]["learn_sigma"], true);
    assert_eq!(found["config"]["in_channels"], 4);
    let out = folder.name("x.png");
    let base = ["generate", "3", "--steps", "2", "--device", "cpu", "--out", &out];
    succeeds(&[&base[..], &["--model", &model, "--vae", &vae]].concat());
}

#[test]
fn a_network_without_class_dropout_makes_every_class_and_is_not_guided() {
    let folder = Folder::new();
    let vae = folder.autoencoder();
    let model = folder.sit(|sit| SiTConfig { class_dropout_prob: 0.0, ..sit });
    let found = info(&model);
    assert_eq!(found["config"]["num_classes"], 10);
    let note = found["notes"][0].as_str().expect("a note");
    assert!(note.contains("10 classes") && note.contains("class dropout"), "{note}");
    let (classes, _) = succeeds(&["classes", "--model", &model]);
    assert_eq!(classes.lines().count(), 10);
    let out = folder.name("x.png");
    let base = ["generate", "9", "--steps", "2", "--device", "cpu", "--out", &out];
    let base = [&base[..], &["--model", &model, "--vae", &vae]].concat();
    let error = refused(&[&base[..], &["--cfg", "2"]].concat());
    assert!(error.contains("--cfg 2") && error.contains("without class dropout"), "{error}");
    assert!(!Path::new(&out).exists());
    succeeds(&base);
}

#[test]
fn a_table_of_names_is_proposed_and_makes_the_same_images() {
    let folder = Folder::new();
    let emoji = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji").join(name);
        path.display().to_string()
    };
    let (model, vae) = (emoji("hidit.safetensors"), emoji("vae-decoder.safetensors"));
    let weights = open(Path::new(&model)).expect("it opens");
    let other = |name: &str| {
        name.replace("pixel_embedder.proj.", "pixel_branch.embed.")
            .replace("pixel_predictor.0.", "pixel_branch.head.conv1.")
            .replace("pixel_predictor.1.", "pixel_branch.head.conv2.")
    };
    let tensors = weights.tensors.into_iter().map(|(name, view)| (other(&name), view)).collect();
    let file = write_safetensors(&tensors, &weights.metadata).expect("it writes");
    let foreign = folder.write("foreign.safetensors", &file);

    let found = info(&foreign);
    assert_eq!(found["network"], "SiT");
    assert_eq!(found["proposal"]["network"], "emoji");
    let table = found["proposal"]["table"].as_str().expect("a table");
    assert_eq!(table.lines().count(), 3, "{table}");
    let (said, _) = succeeds(&["info", "--as", "emoji", &foreign]);
    assert!(said.contains("proposed for emoji") && said.ends_with(table), "{said}");
    assert!(refused(&["info", "--as", "nobody", &foreign]).contains("\"nobody\""));

    let names = folder.write("names.txt", table.as_bytes());
    let (found, _) = succeeds(&["info", "--json", "--names", &names, &foreign]);
    let found: serde_json::Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found["network"], "Hi-DiT");
    assert_eq!(found["fit"], "all 120 tensors fit");
    assert!(found["proposal"].is_null(), "{found}");
    let generate = |name: &str, more: &[&str]| {
        let out = folder.name(name);
        let base = ["generate", "heart", "--steps", "4", "--device", "cpu", "--vae", &vae];
        let (_, errors) = succeeds(&[&base[..], &["--out", &out], more].concat());
        assert!(!errors.contains("note:") && !errors.contains("warning:"), "{errors}");
        std::fs::read(&out).expect("a picture")
    };
    // Settings and fingerprints in the pictures are the same, too.
    let renamed = generate("renamed.png", &["--model", &foreign, "--names", &names]);
    assert_eq!(renamed, generate("own.png", &["--model", &model]));

    let converted = folder.name("converted.safetensors");
    succeeds(&["convert", &foreign, &converted, "--names", &names]);
    assert_eq!(info(&converted)["fit"], "all 120 tensors fit");
}

#[test]
fn rules_of_no_use_and_lines_that_are_none_are_told() {
    let folder = Folder::new();
    let model = folder.sit(|sit| sit);
    let names = folder.write("names.txt", b"# nothing is called so\nlayers.** -> blocks.**\n");
    let (_, errors) = succeeds(&["classes", "--model", &model, "--names", &names]);
    let note = format!("note: {names}: no tensor takes line 2 (layers.** -> blocks.**)");
    assert_eq!(errors.trim(), note);
    let wrong = folder.write("wrong.txt", b"blocks.*\n");
    let error = refused(&["classes", "--model", &model, "--names", &wrong]);
    assert!(error.contains("wrong.txt, line 1") && error.contains("OLD -> NEW"), "{error}");
    let twice = folder.write("twice.txt", b"x_embedder.proj.bias -> pos_embed\n");
    let error = refused(&["classes", "--model", &model, "--names", &twice]);
    assert!(error.contains("\"pos_embed\" and \"x_embedder.proj.bias\""), "{error}");
}
