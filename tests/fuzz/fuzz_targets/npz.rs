//! numpy's archives: statistics, and batches of images. An array alone gets an archive around it, with its
//! checksum.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz::{container, with_file};
use tintype_trainer::data::batch::Batch;
use tintype_trainer::data::npz::Npz;

fuzz_target!(|data: &[u8]| {
    let archive = match data.starts_with(b"\x93NUMPY") {
        true => container::zip(&[("arr_0.npy", data), ("mu.npy", data), ("sigma.npy", data)]),
        false => data.to_vec(),
    };
    with_file(&archive, "x.npz", |path| {
        if let Ok(mut npz) = Npz::open(path) {
            npz.identity();
            if let Ok(statistics) = npz.statistics() {
                let d = statistics.mu.len();
                assert_eq!(statistics.sigma.dim(), (d, d));
            }
            for name in npz.names().unwrap_or_default().iter().take(4) {
                let _ = npz.floats(name);
                let _ = npz.bytes(name);
            }
        }
        if let Ok(Some(batch)) = Batch::open(path) {
            for first in 0..batch.len().min(4) {
                for image in batch.read(first..first + 1).into_iter().flatten() {
                    assert_eq!(image.pixels.len(), image.width * image.height * 3);
                }
            }
        }
    });
});
