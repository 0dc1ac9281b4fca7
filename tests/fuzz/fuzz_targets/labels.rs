//! What lies beside a data set: `dataset.json`, `KEY.cls`, the description of an image store, the list of an
//! HDF5 store; and lists of class names.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use tintype::labels::{Labels, printable};
use tintype::weights::{Dtype, TensorView, write_safetensors};
use tintype_fuzz::{folder, source, with_file};
use tintype_trainer::data::hdf5::Hdf5Store;
use tintype_trainer::data::store::ImageStore;

/// An HDF5 store, whose list is the input.
const H5: &[u8] = include_bytes!("../../goldens/h5/e2e-tiny.h5");

/// Everything but the input: images that have labels (which are not decoded), and a shard of two images.
fn prepare() {
    let tensor = |dtype, shape: &[usize], bytes| {
        TensorView::from_bytes(dtype, shape.to_vec(), bytes).expect("as many bytes")
    };
    let tensors = BTreeMap::from([
        ("images".to_string(), tensor(Dtype::U8, &[2, 2, 2, 3], vec![7; 24])),
        ("labels".to_string(), tensor(Dtype::I64, &[2], vec![0; 16])),
    ]);
    let shard = write_safetensors(&tensors, &BTreeMap::new()).expect("two tensors fit");
    let files: [(&str, &[u8]); 6] = [
        ("list/a.png", b""),
        ("list/cat/b.png", b""),
        ("cls/a.png", b""),
        ("cls/b.png", b""),
        ("store/images_00000.safetensors", &shard),
        ("h5/x.h5", H5),
    ];
    for (name, bytes) in files {
        let path = folder().join(name);
        let above = path.parent().expect("the folder");
        std::fs::create_dir_all(above).expect("the folder takes folders");
        std::fs::write(path, bytes).expect("the folder takes files");
    }
}

fn read_store() {
    let Ok(store) = ImageStore::open(&folder().join("store")) else { return };
    assert_eq!(store.labels().len(), store.len());
    for index in 0..store.len().min(4) {
        store.label(index);
        assert_eq!(store.image(index).pixels.len(), store.side() * store.side() * 3);
    }
    let _ = store.verify();
    store.fingerprint();
}

fn read_h5() {
    let Ok(store) = Hdf5Store::open(&folder().join("h5/x.h5")) else { return };
    for item in store.items.iter().take(8) {
        let _ = (store.bytes(item), store.moments(item));
    }
}

/// Class names, one a line, the first of which is what is looked for.
fn search(text: &str) {
    let labels = Labels::new(text.lines().map(String::from).collect());
    let query: String = text.lines().next().unwrap_or_default().chars().take(24).collect();
    for query in [query.as_str(), "#1", "-1", "01", "crane"] {
        match labels.find(query) {
            Ok(class) => assert!(class < labels.len()),
            Err(error) => assert!(!printable(&error.to_string()).is_empty()),
        }
        assert!(labels.called(query).iter().all(|class| *class < labels.len()));
        assert!(labels.search(query).iter().all(|(class, _)| *class < labels.len()));
    }
}

fuzz_target!(init: prepare(), |data: &[u8]| {
    with_file(data, "list/dataset.json", |_| source::read(&folder().join("list")));
    with_file(data, "cls/a.cls", |_| {
        with_file(data, "cls/b.cls", |_| source::read(&folder().join("cls")));
    });
    with_file(data, "store/store.json", |_| read_store());
    with_file(data, "h5/x_h5.json", |_| read_h5());
    if let Ok(text) = std::str::from_utf8(data) {
        search(text);
    }
});
