//! Readers of checkpoints against hostile and damaged files, and the weight report.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use proptest::prelude::*;
use tintype::burn::tensor::{Device, FloatDType};
use tintype::model::sit::SiTConfig;
use tintype::weights::{Weights, compare, load, parameter_count, snapshot, write_safetensors};

fn tiny() -> SiTConfig {
    SiTConfig {
        input_size: 4,
        patch_size: 2,
        in_channels: 2,
        hidden_size: 8,
        depth: 1,
        num_heads: 2,
        mlp_ratio: 2.0,
        num_classes: 3,
        class_dropout_prob: 0.1,
        qk_norm: false,
        latent_norm: true,
        learn_sigma: false,
        noise_at_zero: false,
        encoder_depth: 1,
        z_dims: Vec::new(),
        projector_dim: 4,
    }
}

fn tiny_file() -> Vec<u8> {
    let network = tiny().init(&Device::default()).expect("valid");
    write_safetensors(&snapshot(&network), &BTreeMap::new()).expect("it writes")
}

/// A PyTorch archive with this pickle and these storages.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("x/data.pkl", stored).expect("zip");
    zip.write_all(pickle).expect("zip");
    for (key, bytes) in storages {
        zip.start_file(format!("x/data/{key}"), stored).expect("zip");
        zip.write_all(bytes).expect("zip");
    }
    zip.finish().expect("zip").into_inner()
}

/// `{"w": tensor}` with this size and stride, over a float storage of 4 numbers.
fn tensor_pickle(size: &[u32], stride: &[u32], offset: u32) -> Vec<u8> {
    let mut p = b"\x80\x02}X\x01\x00\x00\x00w".to_vec();
    p.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage");
    p.extend(b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ");
    p.extend([b"J".as_slice(), &offset.to_le_bytes()].concat());
    for list in [size, stride] {
        p.extend(b"(");
        for n in list {
            p.extend([b"J".as_slice(), &n.to_le_bytes()].concat());
        }
        p.extend(b"t");
    }
    p.extend(b"\x89}tRs.");
    p
}

const FOUR: &[u8] = &[0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64]; // 1, 2, 3, 4

#[test]
fn strided_tensors_are_read_and_bounds_are_kept() {
    let open = |size: &[u32], stride: &[u32], offset| {
        Weights::from_bytes(archive(&tensor_pickle(size, stride, offset), &[("0", FOUR)]), "x.pt")
    };
    let transposed = open(&[2, 2], &[1, 2], 0).expect("it opens");
    assert_eq!(transposed.tensors["w"].to_f32(), [1.0, 3.0, 2.0, 4.0]);
    for (size, stride, offset) in [
        (vec![5], vec![1], 0),                             // too long
        (vec![2], vec![1], 3),                             // beyond the end
        (vec![1 << 30, 1 << 30], vec![0, 0], 0),           // a bomb of repeats
        (vec![u32::MAX / 2, u32::MAX / 2], vec![1, 1], 0), // overflow
        (vec![2, 2], vec![1], 0),                          // too few strides
    ] {
        let error = open(&size, &stride, offset).expect_err("refused");
        assert!(error.to_string().contains("x.pt"), "{error}");
    }
    // A storage that is not there.
    let lost = Weights::from_bytes(archive(&tensor_pickle(&[4], &[1], 0), &[]), "x.pt");
    assert!(lost.expect_err("refused").to_string().contains("storage 0"));
}

#[test]
fn hostile_pickles_execute_nothing() {
    // os.system("touch …"): the call is remembered, never made.
    let marker = std::env::temp_dir().join(format!("tintype-hostile-{}", std::process::id()));
    let command = format!("touch {}", marker.display());
    let mut pickle = b"\x80\x02cos\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    assert!(Weights::from_bytes(archive(&pickle, &[]), "x.pt").is_err());
    assert!(!marker.exists());
    // A million nested lists must not overflow the stack.
    let deep = [b"\x80\x02".as_slice(), &b"]".repeat(1 << 20), &b"a".repeat((1 << 20) - 1), b"."];
    assert!(Weights::from_bytes(archive(&deep.concat(), &[]), "x.pt").is_err());
    // A dictionary that contains itself.
    let cycle = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.";
    assert!(Weights::from_bytes(archive(cycle, &[]), "x.pt").is_err());
}

#[test]
fn what_a_pickle_stores_once_and_names_often_is_counted() {
    // A key of a mebibyte, stored once, of three hundred values.
    let mut pickle = b"\x80\x02}X\x05\x00\x00\x00model}(X\x00\x00\x10\x00".to_vec();
    pickle.extend(vec![b'a'; 1 << 20]);
    pickle.extend(b"q\x00N");
    pickle.extend(b"h\x00N".repeat(300));
    pickle.extend(b"us.");
    let error = Weights::from_bytes(archive(&pickle, &[]), "x.pt").expect_err("refused");
    assert_eq!(error.to_string(), "x.pt: the pickle has more than 256 MiB of text");
}

#[test]
fn compressed_storages_are_refused() {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let deflated = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("x/data/0", deflated).expect("zip");
    zip.write_all(&vec![0; 1 << 20]).expect("zip");
    let bytes = zip.finish().expect("zip").into_inner();
    let error = Weights::from_bytes(bytes, "bomb.pt").expect_err("refused").to_string();
    assert!(error.contains("compressed"), "{error}");
}

#[test]
fn a_report_names_every_tensor_that_does_not_fit() {
    let network = tiny().init(&Device::default()).expect("valid");
    let mut weights = Weights::from_bytes(tiny_file(), "tiny.safetensors").expect("it opens");
    assert_eq!(compare(&network, &weights).to_string(), "all 24 tensors fit");
    weights.tensors.remove("pos_embed");
    let stray = weights.tensors["bn.running_mean"].clone();
    weights.tensors.insert("blocks.0.attn.proj.bias".into(), stray.clone());
    weights.tensors.insert("head.weight".into(), stray.clone());
    weights.tensors.insert("loss.logvar".into(), stray);
    let error = load(network, &weights, FloatDType::F32, &Device::default()).expect_err("refused");
    insta::assert_snapshot!(error, @"tiny.safetensors: 22 tensors fit; 1 missing: pos_embed; 1 of another shape: blocks.0.attn.proj.bias is [2] instead of [8]; 1 unexpected: head.weight");
}

#[test]
fn a_network_survives_writing_and_reading() {
    let device = Device::default();
    let network = tiny().init(&device).expect("valid");
    let count = parameter_count(&network);
    let weights = Weights::from_bytes(tiny_file(), "tiny.safetensors").expect("it opens");
    let loaded = load(network, &weights, FloatDType::F32, &device).expect("it fits");
    let again = snapshot(&loaded.network);
    assert_eq!(parameter_count(&loaded.network), count);
    for (name, view) in &weights.tensors {
        assert_eq!(view.to_bytes(), again[name].to_bytes(), "{name}");
    }
    assert_eq!(
        tintype::model::sit_config(&weights).expect_err("8 is no published width").to_string(),
        "tiny.safetensors: the number of heads of hidden size 8 cannot be told from the weights"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Weights::from_bytes(bytes.clone(), "x");
        let _ = Weights::from_bytes(archive(&bytes, &[("0", FOUR)]), "x");
        let legacy = [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".as_slice(), &bytes].concat();
        let _ = Weights::from_bytes(legacy, "x");
        let _ = Weights::from_bytes([8u64.to_le_bytes().as_slice(), &bytes].concat(), "x");
    }

    #[test]
    fn a_flipped_byte_is_an_error_or_another_value(at in 0usize..2000, bit in 0u8..8) {
        let mut bytes = tiny_file();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(weights) = Weights::from_bytes(bytes, "x") {
            let network = tiny().init(&Device::default()).expect("valid");
            let _ = load(network, &weights, FloatDType::F32, &Device::default());
        }
    }

    #[test]
    fn a_cut_file_is_an_error(keep in 0usize..4000) {
        let bytes = tiny_file();
        let keep = keep % bytes.len();
        prop_assert!(Weights::from_bytes(bytes[..keep].to_vec(), "x").is_err());
    }
}
