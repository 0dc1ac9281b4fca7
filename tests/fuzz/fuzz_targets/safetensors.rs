//! Safetensors: in memory, piece by piece, mapped, and the index of several. A header without the length
//! before it gets one, which no mutation would get right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype::weights::{Weights, open};
use tintype_fuzz::checkpoint::{self, Pieces};
use tintype_fuzz::{folder, with_file};

/// Files that an index may name.
const SHARDS: [(&str, &[u8]); 2] = [
    ("a.safetensors", include_bytes!("../../../core/tests/cases/sd-vae-latents-stats.safetensors")),
    ("b.pt", include_bytes!("../../../core/tests/cases/control.pt")),
];

fn write_shards() {
    for (name, bytes) in SHARDS {
        std::fs::write(folder().join(name), bytes).expect("the folder takes files");
    }
}

fn read(file: &[u8]) {
    let memory = Weights::from_bytes(file.to_vec(), "x.safetensors");
    let pieces = Weights::from_source(Pieces::of(file), "x.safetensors");
    let mapped = with_file(file, "x.safetensors", open);
    for weights in [&memory, &pieces, &mapped].into_iter().flatten() {
        checkpoint::read(weights);
    }
    if let (Ok(memory), Ok(pieces), Ok(mapped)) = (memory, pieces, mapped) {
        assert_eq!(memory.fingerprint(), pieces.fingerprint());
        assert_eq!(memory.fingerprint(), mapped.fingerprint());
        assert_eq!(memory.metadata, pieces.metadata);
    }
}

fuzz_target!(init: write_shards(), |data: &[u8]| {
    if !data.starts_with(b"{") {
        return read(data);
    }
    // The tensors are behind a zero byte.
    let header = data.split(|&byte| byte == 0).next().unwrap_or_default();
    let tensors = data.get(header.len() + 1..).unwrap_or_default();
    read(&[&(header.len() as u64).to_le_bytes()[..], header, tensors].concat());
    with_file(data, "x.safetensors.index.json", |path| {
        if let Ok(weights) = open(path) {
            checkpoint::read(&weights);
        }
    });
});
