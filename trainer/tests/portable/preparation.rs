//! Data sets in folders and archives.

use std::path::Path;

use tintype_trainer::data::crop::center_crop;
use tintype_trainer::data::store::ImageStore;

use crate::images::{CLASSES, image, write_folders, write_zip};
use crate::place::{Place, event, read};

/// Images of each class.
const EACH: usize = 4;
const SIDE: usize = 16;

#[test]
fn a_folder_and_an_archive_become_the_same_store() {
    let place = Place::new();
    write_folders(&place.path("Bilder von Ömer"), &CLASSES, EACH);
    write_zip(&place.path("Bilder von Ömer.zip"), &CLASSES, EACH);
    let folder = place.argument("Bilder von Ömer");
    for (source, out) in [(folder.as_str(), "Datensatz ö"), ("Bilder von Ömer.zip", "Aus dem Zip")]
    {
        let mut shards = Vec::new();
        // The second time there is nothing to do.
        for resumed in [0, 1] {
            let size = SIDE.to_string();
            let said =
                place.succeeds(&["prepare", source, "--out", out, "--size", &size, "--json"]);
            let done = event(&said, "done");
            assert_eq!(done["images"], CLASSES.len() * EACH, "{done}");
            assert_eq!(done["skipped"], 0, "{done}");
            assert_eq!(done["resumed_shards"], resumed, "{done}");
            shards.push(read(&place.path(out).join("images_00000.safetensors")));
        }
        assert!(shards[0] == shards[1], "{source}: the second run gave other bytes");
        check(&place.path(out));
    }
}

/// The store holds the crops of all images, with their classes.
fn check(store: &Path) {
    let store = ImageStore::open_verified(store).expect("a store");
    assert_eq!(store.description.classes, CLASSES);
    assert_eq!(store.len(), CLASSES.len() * EACH);
    for at in 0..store.len() {
        let (class, number) = (at / EACH, at % EACH);
        assert_eq!(store.label(at), Some(class));
        assert_eq!(store.image(at), center_crop(&image(class, number), SIDE), "image {at}");
    }
}
