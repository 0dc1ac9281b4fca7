//! Reads all of a source of images.

use std::path::Path;

use tintype_trainer::data::source::{Options, Source};

/// Items that are read; those of an archive may all be one piece of it.
const MOST_ITEMS: usize = 4;

/// Opens a folder or an archive in every way that there is, and reads its items.
pub fn read(path: &Path) {
    let usual = Options::default;
    let unlabelled = Options { unlabelled: true, ..usual() };
    if let Ok(source) = Source::open(path, &unlabelled) {
        for item in source.items.iter().take(MOST_ITEMS) {
            let _ = source.read(item);
        }
    }
    let split = Options { split: Some("train".into()), ..usual() };
    let deep = Options { class_depth: Some(1), allow_empty: true, ..usual() };
    for options in [usual(), split, deep] {
        let Ok(source) = Source::open(path, &options) else { continue };
        for item in &source.items {
            let is_class = |label| label < source.classes.len();
            assert!(item.label.is_none_or(is_class), "{item:?}");
        }
    }
}
