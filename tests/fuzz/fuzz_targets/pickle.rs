//! PyTorch's files: the zip archive, the legacy stream, and a pickle alone, which gets an archive around it
//! with the checksum and two storages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype::weights::{Weights, autoencoder_in, open};
use tintype_fuzz::checkpoint::{self, Pieces};
use tintype_fuzz::{container, with_file};

/// How a zip archive and a legacy stream begin.
const BEGINNINGS: [&[u8]; 2] = [b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"];
/// What the storages hold: 16 elements of float32.
const STORAGE: [u8; 64] = [0x3f; 64];

fuzz_target!(|data: &[u8]| {
    let is_file = BEGINNINGS.iter().any(|beginning| data.starts_with(beginning));
    let file = match is_file {
        true => data.to_vec(),
        false => container::zip(&[
            ("archive/data.pkl", data),
            ("archive/byteorder", b"little"),
            ("archive/data/0", &STORAGE),
            ("archive/data/1", &STORAGE),
        ]),
    };
    if let Ok(weights) = Weights::from_bytes(file.clone(), "x.pt") {
        checkpoint::read(&weights);
    }
    if let Ok(weights) = Weights::average_from_source(Pieces::of(&file), "x.pt", 2) {
        checkpoint::read(&weights);
    }
    if let Ok(sections) = Weights::pytorch_sections(file.clone(), "x.pt") {
        sections.values().take(4).for_each(checkpoint::read);
    }
    with_file(&file, "x.pt", |path| {
        if let Ok(weights) = open(path) {
            checkpoint::read(&weights);
        }
        if let Ok(Some(weights)) = autoencoder_in(path) {
            checkpoint::read(&weights);
        }
    });
});
