//! Evaluation as a researcher runs it: real processes over folders, archives and statistics, with a
//! randomly weighted Inception.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2, Array4};
use serde_json::Value;
use tintype::burn::tensor::Device;
use tintype::generate::LatentStats;
use tintype::image::Rgb;
use tintype::model::dinov2::DinoConfig;
use tintype::model::vavae::VaeConfig;
use tintype::noise::{ImageKey, Stream, normals, uniforms};
use tintype::weights::{TensorView, layout, open, snapshot, write_safetensors};
use tintype_test_models::{configs, rae};
use tintype_trainer::data::latents::LatentShards;
use tintype_trainer::data::npz;
use tintype_trainer::network::inception::Inception;
use tintype_trainer::network::vgg::Vgg16;
use zip::{CompressionMethod, ZipWriter};

use common::Workspace;

fn view(shape: &[usize], values: &[f32]) -> TensorView {
    TensorView::from_f32(shape.to_vec(), values).expect("it fits")
}

fn write(path: &Path, tensors: &BTreeMap<String, TensorView>, metadata: &[(&str, String)]) {
    let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    std::fs::write(path, write_safetensors(tensors, &metadata).expect("it fits")).expect("written");
}

/// Weights under pytorch-fid's names that keep activations of about the same size.
fn write_inception(path: &Path) {
    let mut tensors = BTreeMap::new();
    for (i, (name, shape)) in layout(&Inception::untrained(&Device::flex())).iter().enumerate() {
        let n = shape.iter().product();
        let key = ImageKey::new(i as u64, 0);
        let random = |scale: f32| -> Vec<f32> {
            uniforms(key, Stream::Noise, 0, n)
                .iter()
                .map(|u| (2.0 * *u as f32 - 1.0) * scale)
                .collect()
        };
        let (unit, part) = name.rsplit_once('.').expect("a path");
        let unit = unit[..1].to_uppercase() + &unit[1..];
        match (unit.as_str(), part) {
            ("Fc", part) => {
                tensors.insert(format!("fc.{part}"), view(shape, &random(0.1)));
            }
            (unit, "weight") => {
                let fan_in: usize = shape[1..].iter().product();
                let values = random((6.0 / fan_in as f32).sqrt());
                tensors.insert(format!("{unit}.conv.weight"), view(shape, &values));
                for (part, value) in
                    [("weight", 1.0), ("bias", 0.05), ("running_mean", 0.0), ("running_var", 1.0)]
                {
                    let row = view(&shape[..1], &vec![value; shape[0]]);
                    tensors.insert(format!("{unit}.bn.{part}"), row);
                }
            }
            _ => {}
        }
    }
    write(path, &tensors, &[]);
}

/// Coloured noise with an edge.
fn test_image(i: usize, side: usize) -> Rgb {
    let u = uniforms(ImageKey::new(7, i as u64), Stream::Noise, 0, side * side * 3);
    let value = |(at, u): (usize, &f64)| {
        let x = at / 3 % side;
        let base = if x * 8 / side > i % 8 { 150.0 } else { 60.0 };
        (base + 80.0 * u * ((i + at % 3) % 3) as f64 / 2.0) as u8
    };
    Rgb { width: side, height: side, pixels: u.iter().enumerate().map(value).collect() }
}

fn write_folder(workspace: &Workspace, name: &str, images: &[Rgb]) {
    std::fs::create_dir_all(workspace.path(name)).expect("a folder");
    for (i, image) in images.iter().enumerate() {
        let png = image.to_png(&[]).expect("it encodes");
        std::fs::write(workspace.path(name).join(format!("{i:06}.png")), png)
            .expect("it is written");
    }
}

fn write_batch(path: &Path, images: &[Rgb], deflated: bool) {
    let side = images[0].width;
    let all: Vec<u8> = images.iter().flat_map(|p| p.pixels.clone()).collect();
    let all = Array4::from_shape_vec((images.len(), side, side, 3), all).expect("they fit");
    let file = std::fs::File::create(path).expect("a file");
    let mut npz = ZipWriter::new(file);
    let method = if deflated { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    npz::add(&mut npz, "arr_0", method, &all).expect("it is written");
    npz.finish().expect("it is written");
}

/// Samples `a` and a reference `b`, as folders.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    write_inception(&workspace.path("inception.safetensors"));
    let images: Vec<Rgb> = (0..10).map(|i| test_image(i, 24)).collect();
    write_folder(&workspace, "a", &images[..6]);
    write_folder(&workspace, "b", &images[6..]);
    write_batch(&workspace.path("a.npz"), &images[..6], false);
    write_batch(&workspace.path("a-deflated.npz"), &images[..6], true);
    workspace
}

const EXTRACTOR: &str = "--inception inception.safetensors --device cpu";

/// The result of `evaluate`.
fn evaluate(workspace: &Workspace, line: &str) -> Value {
    workspace.succeeds(&format!("evaluate {line} {EXTRACTOR} --output-json result.json"));
    let text = std::fs::read_to_string(workspace.path("result.json")).expect("a result");
    serde_json::from_str(&text).expect("JSON")
}

fn metric(result: &Value, key: &str) -> f64 {
    result["metrics"][key].as_f64().unwrap_or_else(|| panic!("no {key} in {result}"))
}

const FID: &str = "frechet_inception_distance";

#[test]
fn folders_batches_stores_and_statistics_give_the_same_numbers() {
    let workspace = workspace();
    let folder = evaluate(&workspace, "a --reference b --save-stats a-stats.npz");
    assert!(metric(&folder, FID) > 0.0);
    assert!(metric(&folder, "inception_score_mean") >= 1.0);
    for key in ["precision", "recall"] {
        assert!((0.0..=1.0).contains(&metric(&folder, key)));
    }
    assert!(
        folder["notes"][0].as_str().expect("a note").contains("on 6 samples is biased upwards")
    );
    // Batches, streamed in both ways.
    for batch in ["a.npz", "a-deflated.npz"] {
        let other = evaluate(&workspace, &format!("{batch} --reference b"));
        assert_eq!(other["metrics"], folder["metrics"], "{batch}");
    }
    // A store (of images that preparation leaves as they are).
    workspace.succeeds("prepare a --out a-store --size 24");
    assert_eq!(evaluate(&workspace, "a-store --reference b")["metrics"], folder["metrics"]);
    // Statistics: of the samples, and as the reference. Rank-deficient ones are less precise.
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{a} {b}");
    let of_statistics = evaluate(&workspace, "a-stats.npz --reference b --metrics fid,sfid");
    near(metric(&of_statistics, FID), metric(&folder, FID));
    near(metric(&of_statistics, "sfid"), metric(&folder, "sfid"));
    let itself = evaluate(&workspace, "a --reference a-stats.npz --protocol pytorch-fid");
    assert!(itself["metrics"].as_object().expect("metrics").len() == 1, "{itself}");
    let twice = evaluate(&workspace, "a --reference a-stats.npz --metrics fid");
    assert!(metric(&twice, FID).abs() < 1e-4, "{twice}");
    // A set is at no distance from itself.
    let same = evaluate(&workspace, "a --reference a.npz");
    assert!(metric(&same, FID).abs() < 1e-6 && metric(&same, "sfid").abs() < 1e-6, "{same}");
    assert_eq!((metric(&same, "precision"), metric(&same, "recall")), (1.0, 1.0));
}

#[test]
fn protocols_differ() {
    let workspace = workspace();
    let all = |protocol: &str, more: &str| {
        evaluate(&workspace, &format!("a --reference b --cache cache --protocol {protocol}{more}"))
    };
    let fidelity = all("torch-fidelity", "");
    for key in ["inception_score_std", "kernel_inception_distance_mean", "f_score"] {
        metric(&fidelity, key);
    }
    let notes = fidelity["notes"].to_string();
    assert!(notes.contains("KID uses subsets of 4 images"), "{notes}");
    let adm = all("adm", " --subsets 2");
    assert_eq!(metric(&adm, FID), metric(&fidelity, FID));
    // Parts have fewer samples, so they are further away.
    assert!(metric(&adm, &format!("{FID}_subsets_mean")) > metric(&adm, FID));
    let mut others: Vec<f64> =
        ["pytorch-fid", "clean-fid", "k-diffusion"].map(|p| metric(&all(p, ""), FID)).into();
    others.push(metric(&adm, FID));
    for (i, a) in others.iter().enumerate() {
        assert!(others[..i].iter().all(|b| (a - b).abs() > 1e-6), "{others:?}");
    }
}

#[test]
fn the_feature_cache_is_reused_and_shared_by_processes() {
    let workspace = workspace();
    let alone = evaluate(&workspace, "a --reference b --metrics fid,is,pr,kid");
    let line =
        format!("evaluate a --reference b --metrics fid,is,pr,kid {EXTRACTOR} --cache shared");
    let mut second = workspace.command(&format!("{line} --json"));
    let second = second.envs([("RANK", "1"), ("WORLD_SIZE", "2")]).spawn().expect("it starts");
    let mut first = workspace.command(&format!("{line} --output-json shared.json"));
    let first = first.envs([("RANK", "0"), ("WORLD_SIZE", "2")]).output().expect("it runs");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(second.wait_with_output().expect("it ends").status.success());
    let shared = std::fs::read_to_string(workspace.path("shared.json")).expect("a result");
    let shared: Value = serde_json::from_str(&shared).expect("JSON");
    assert_eq!(shared["metrics"], alone["metrics"]);
    // No features are extracted again, and nothing else changes.
    let again = workspace.succeeds(&format!("{line} --json"));
    assert!(!again.contains("\"extracted\"") && again.contains("\"evaluated\""), "{again}");
    // Another image is another set.
    write_folder(&workspace, "a", &[test_image(40, 24)]);
    assert!(workspace.succeeds(&format!("{line} --json")).contains("\"extracted\""));
    let refused = workspace
        .command(&format!("evaluate a --reference b {EXTRACTOR}"))
        .envs([("RANK", "1"), ("WORLD_SIZE", "2")])
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--cache"));
}

#[test]
fn impossible_metrics_are_errors() {
    let workspace = workspace();
    let refused = |line: &str| workspace.refused(&format!("evaluate {line} --device cpu"));
    let extractor = "--inception inception.safetensors";
    let error = refused("a --reference b");
    assert!(error.contains("pt_inception-2015-12-05-6726825d.pth"), "{error}");
    for file in ["a.npz", "nowhere.pth"] {
        let error = refused(&format!("a --reference b --inception {file}"));
        assert!(error.contains(file) && error.contains("mseitzer/pytorch-fid"), "{error}");
    }
    let error = refused(&format!("a --reference b {extractor} --metrics fd-dinov2"));
    assert!(error.contains("--dinov2") && error.contains("vitl14"), "{error}");
    std::fs::create_dir(workspace.path("empty")).expect("a folder");
    assert!(refused(&format!("empty --reference b {extractor}")).contains("no images"));
    assert!(refused(&format!("nowhere --reference b {extractor}")).contains("no such"));
    assert!(refused(&format!("a --count 9 --reference b {extractor}")).contains("6 images, not 9"));
    write_folder(&workspace, "one", &[test_image(1, 24)]);
    assert!(
        refused(&format!("one --reference b {extractor} --metrics fid")).contains("at least 2")
    );
    assert!(refused(&format!("a {extractor} --metrics fid")).contains("--reference"));
    workspace.succeeds(&format!("evaluate b {extractor} --save-stats b-stats.npz --device cpu"));
    assert!(refused("b-stats.npz --reference a").contains("--inception"));
    assert!(refused("b-stats.npz --metrics is").contains("b-stats.npz has no images"));
    // Statistics of another network.
    let file = std::fs::File::create(workspace.path("small.npz")).expect("a file");
    let mut npz = ZipWriter::new(file);
    let stored = CompressionMethod::Stored;
    npz::add(&mut npz, "mu", stored, &Array1::<f64>::zeros(4)).expect("written");
    npz::add(&mut npz, "sigma", stored, &Array2::<f64>::eye(4)).expect("written");
    npz.finish().expect("written");
    let error = refused(&format!("a --reference small.npz {extractor} --metrics fid"));
    assert!(error.contains("2048 and 4") || error.contains("4 and 2048"), "{error}");
    let error = refused(&format!("a --reference small.npz {extractor} --metrics pr"));
    assert!(error.contains("small.npz") && error.contains("no images"), "{error}");
    // A file that only calls itself an image would change the number if it were left out.
    std::fs::write(workspace.path("a/zzz.png"), b"not an image").expect("written");
    let error = refused(&format!("a --reference b {extractor}"));
    assert!(error.contains("zzz.png"), "{error}");
}

#[test]
fn images_of_several_sizes_are_resized_each_from_its_own_size() {
    let workspace = workspace();
    let images: Vec<Rgb> = (0..4).map(|i| test_image(i, 16 + 8 * i)).collect();
    write_folder(&workspace, "mixed", &images);
    let result = evaluate(&workspace, "mixed --reference b --metrics fid");
    assert!(result["notes"].to_string().contains("4 sizes"), "{result}");
    assert_eq!(result["sets"]["samples"]["sizes"].as_array().expect("sizes").len(), 4);
    // The Inception Score of a single image is 1.
    write_folder(&workspace, "one", &[test_image(1, 24)]);
    assert_eq!(metric(&evaluate(&workspace, "one"), "inception_score_mean"), 1.0);
}

/// The embedded model's samples, evaluated directly and after they were written.
#[cfg(feature = "embedded-model")]
#[test]
fn samples_are_evaluated_without_being_written() {
    let workspace = workspace();
    let line = format!(
        "sample --count 4 --labels random --steps 2 --evaluate b --metrics fid,is {EXTRACTOR}"
    );
    workspace.succeeds(&format!("{line} --output-json direct.json"));
    assert!(!workspace.path("out").exists());
    workspace.succeeds(&format!("{line} --out out --output-json written.json"));
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(workspace.path(name)).expect("a result");
        serde_json::from_str(&text).expect("JSON")
    };
    let (direct, written) = (read("direct.json"), read("written.json"));
    assert_eq!(direct["metrics"], written["metrics"]);
    assert_eq!(direct["sampling"]["labels"], "random");
    // Another autoencoder makes other samples.
    assert!(direct["sampling"]["autoencoder"].is_string());
    // Extracted features are cached: a second run generates no sample.
    let cached = format!("{line} --cache cache --json");
    workspace.succeeds(&cached);
    let started = std::time::Instant::now();
    assert!(workspace.succeeds(&cached).contains("\"evaluated\""));
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn reconstructions_of_an_autoencoder_are_evaluated() {
    let workspace = workspace();
    workspace.succeeds("prepare a --out store --size 24");
    let config: VaeConfig = serde_json::from_str(
        r#"{"ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 4, "attn_resolutions": [], "num_groups": 4}"#,
    )
    .expect("a configuration");
    let device = Device::flex();
    let mut tensors = snapshot(&config.init_encoder(&device).expect("it fits"));
    tensors.extend(snapshot(&config.init_decoder(&device).expect("it fits")));
    // Checkpoints of a VA-VAE may hold its teacher, a DINOv2.
    let teacher = "foundation_model.model.blocks.0.ls1.gamma";
    tensors.insert(teacher.into(), view(&[4], &[1.0; 4]));
    let text = serde_json::to_string(&config).expect("JSON");
    write(&workspace.path("vae.safetensors"), &tensors, &[("config", text)]);
    let random = |(i, (name, old)): (usize, (String, TensorView))| {
        let key = ImageKey::new(i as u64, 0);
        let values: Vec<f32> =
            normals(key, Stream::Noise, 0, old.len()).iter().map(|v| v * 0.03).collect();
        (name, view(&old.shape, &values))
    };
    let mut vgg: BTreeMap<String, TensorView> =
        snapshot(&Vgg16::new(&device)).into_iter().enumerate().map(random).collect();
    for (k, c) in [64, 128, 256, 512, 512].into_iter().enumerate() {
        vgg.insert(format!("lin{k}.model.1.weight"), view(&[1, c, 1, 1], &vec![0.1; c]));
    }
    write(&workspace.path("lpips.safetensors"), &vgg, &[]);
    let line = "store --reconstruct vae.safetensors --vgg lpips.safetensors --pairs pairs.png";
    let result = evaluate(&workspace, line);
    for key in ["psnr", "ssim", "lpips", "rfid"] {
        assert!(metric(&result, key).is_finite(), "{result}");
    }
    assert!(metric(&result, "psnr") < 30.0 && metric(&result, "ssim") < 1.0);
    assert!(metric(&result, "lpips") > 0.0 && metric(&result, "rfid") > 0.0);
    assert_eq!(result["protocol"], "pytorch-fid");
    // The seed of the posterior samples decides.
    assert_eq!(evaluate(&workspace, line)["metrics"], result["metrics"]);
    let other = evaluate(&workspace, &format!("{line} --seed 1"));
    assert_ne!(other["metrics"]["psnr"], result["metrics"]["psnr"]);
    assert!(workspace.path("pairs.png").exists());
    assert!(open(&workspace.path("vae.safetensors")).is_ok());
    workspace.succeeds("encode store --vae vae.safetensors --out latents --device cpu");
    let error = workspace.refused("evaluate a --reconstruct vae.safetensors --device cpu");
    assert!(error.contains("tintype prepare"), "{error}");
    workspace.succeeds("prepare a --out odd --size 23");
    let error = workspace.refused("evaluate odd --reconstruct vae.safetensors --device cpu");
    assert!(error.contains("23 is not a multiple of the autoencoder's downsampling factor 2"));
}

/// Encoder and decoder in the files of their authors: latents of each image and its flip, and images again.
#[test]
fn rae_encodes_and_reconstructs() {
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 32");
    std::fs::create_dir(workspace.path("decoder")).expect("a folder");
    for (name, content) in [
        ("encoder.pth", rae::encoder_file()),
        ("decoder/model.pt", rae::decoder_file()),
        ("decoder/config.json", rae::decoder_json().into_bytes()),
        ("stat.pt", rae::statistics_file([64, 2, 2])),
    ] {
        std::fs::write(workspace.path(name), content).expect("it is written");
    }
    let encode = "encode store --vae encoder.pth --device cpu";
    workspace.succeeds(&format!("{encode} --out latents"));
    let shards = LatentShards::open(&workspace.path("latents")).expect("shards");
    assert_eq!((shards.len(), shards.shape), (24, [64, 2, 2]));
    assert_ne!(shards.latent(0, false), shards.latent(0, true));
    // Mean and variance of each position, which normalise the latents and those of the flips.
    let stored = open(&workspace.path("latents/latents_stats.pt")).expect("statistics");
    assert_eq!(stored.tensors["var"].shape, [64, 2, 2]);
    let stats = LatentStats::from_weights(&stored).expect("statistics");
    let normal = [false, true].map(|flipped| shards.normalised(&stats, 1.0, flipped)).concat();
    for position in 0..64 * 4 {
        let values = normal.iter().skip(position).step_by(64 * 4);
        let mean = values.map(|&v| f64::from(v)).sum::<f64>() / 48.0;
        assert!(mean.abs() < 1e-3, "{position}: {mean}");
    }
    // No seed decides: there is no posterior.
    let again = workspace.succeeds(&format!("{encode} --out latents --seed 1"));
    assert!(again.contains("(0 of them new)"), "{again}");
    for half in ["encoder.pth", "decoder"] {
        let line = format!("encode store --vae {half} --out latents.h5 --device cpu");
        let error = workspace.refused(&line);
        assert!(error.contains("moments of posteriors") && error.contains("shards"), "{error}");
    }
    assert!(!workspace.path("latents.h5").exists());
    let error = workspace.refused("encode store --vae decoder --out other --device cpu");
    assert!(error.contains("decoder alone") && error.contains("dinov2-b-reg"), "{error}");

    let line = "evaluate store --reconstruct encoder.pth --reconstruct decoder --device cpu";
    workspace.succeeds(&format!("{line} --output-json result.json --pairs pairs.png"));
    let text = std::fs::read_to_string(workspace.path("result.json")).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert!(metric(&result, "psnr").is_finite() && metric(&result, "ssim") < 1.0, "{result}");
    let error = workspace.refused("evaluate store --reconstruct encoder.pth --device cpu");
    assert!(error.contains("name its decoder"), "{error}");
    let wide = DinoConfig { embed_dim: 128, num_heads: 2, ..configs::dinov2() };
    let wide = snapshot(&wide.init(&Device::flex()).expect("valid"));
    write(&workspace.path("wide.safetensors"), &wide, &[]);
    let error = workspace.refused(&line.replace("encoder.pth", "wide.safetensors"));
    assert!(error.contains("128 channels and the decoder takes 64"), "{error}");
    workspace.succeeds("prepare images --out small --size 16");
    let error = workspace.refused(&line.replace("store", "small"));
    assert!(error.contains("16 pixels a side and the autoencoder 32"), "{error}");

    for (file, network, fit) in [
        ("decoder", "RAE", "decoder: all "),
        ("encoder.pth", "DINOv2", "all "),
        ("stat.pt", "statistics of latents", "mean and deviation of each position"),
    ] {
        let told = workspace.succeeds(&format!("info --json {file}"));
        let told: Value = serde_json::from_str(told.lines().next().expect("a line")).expect("JSON");
        assert_eq!(told["network"], network, "{told}");
        assert!(told["fit"].as_str().is_some_and(|found| found.starts_with(fit)), "{told}");
        assert!(told["proposal"].is_null() && told["notes"] == serde_json::json!([]), "{told}");
    }
}
