//! A catalogue of one's own, addresses, and tables of names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype::catalogue::{Address, Catalogue};
use tintype::weights::{Rename, TensorView, Weights};
use tintype_fuzz as _;

/// Names that a table is applied to.
const NAMES: [&str; 4] = ["blocks.0.attn.qkv.weight", "blocks.10.mlp.fc1.bias", "größe", "w"];

fn read_catalogue(text: &str) {
    let Ok(catalogue) = Catalogue::built_in().extended(text, "models.json") else { return };
    for entry in catalogue.entries().iter().take(16) {
        assert_eq!(catalogue.find(&entry.name).map(|found| &found.name), Ok(&entry.name));
        catalogue.size(entry);
        for (_, file) in catalogue.files(entry) {
            assert!(!file.name().is_empty() && !file.name().contains(['/', '\\']));
        }
        let _ = (entry.is_supported(), entry.parameters(), entry.fid(), entry.licence.warning());
    }
    let _ = (catalogue.search(text), catalogue.find(text));
}

fn read_address(text: &str) {
    if let Ok(address) = text.parse::<Address>() {
        assert!(!address.file_name().is_empty(), "{address}");
        assert_eq!(address.to_string().parse::<Address>().as_ref(), Ok(&address));
    }
}

fn read_table(text: &str) {
    let Ok(mut table) = Rename::parse(text, "names.txt") else { return };
    let view = TensorView::from_f32(vec![1], &[0.0]).expect("a value");
    let tensors = NAMES.map(|name| (name.to_string(), view.clone())).into();
    let weights = Weights { file: "x.pt".into(), tensors, ..Weights::default() };
    if let Ok(renamed) = table.apply(weights) {
        assert!(renamed.tensors.len() <= NAMES.len());
        assert!(
            NAMES
                .iter()
                .filter_map(|name| table.name(name))
                .all(|name| { renamed.tensors.contains_key(&name) })
        );
    }
    table.note();
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    read_catalogue(text);
    read_address(text);
    read_table(text);
});
