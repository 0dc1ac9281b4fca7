//! HDF5 stores of latents and of images.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz::{folder, with_file};
use tintype_trainer::data::hdf5::Hdf5Store;

/// The list beside the store: items of both kinds, and some that are elsewhere.
const LIST: &str = r#"[
    "00000/img-mean-std-00000000.npy", "00000/img-mean-std-00000001.npy", "00000/img00000000.png",
    "00000/img00000001.png", "a.png", "/", "00000//a.npy", "../00000/.npy"
]"#;

fn write_list() {
    std::fs::write(folder().join("x_h5.json"), LIST).expect("the folder takes files");
}

fuzz_target!(init: write_list(), |data: &[u8]| {
    with_file(data, "x.h5", |path| {
        let Ok(store) = Hdf5Store::open(path) else { return };
        let _ = store.labels();
        for item in &store.items {
            store.label(item);
            let _ = store.bytes(item);
            if let Ok((values, shape)) = store.moments(item) {
                let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
                assert_eq!(count, Some(values.len()), "{item}");
            }
        }
    });
});
