//! Classes whose names Windows does not take for files.

use tintype::generate::Origin;
use tintype_trainer::data::store::ImageStore;

use crate::common::names;
use crate::images::{write_folders, write_zip};
use crate::place::{Place, not_tested_here, read};
use crate::run::{self, RUN};

/// In the order of their labels.
const CLASSES: [&str; 6] = ["CON", "a:b", "dot.", "nul.png", "trailing space ", "what?"];
/// What pictures of them are called: name, number of the class, seed.
const PICTURES: [&str; 6] = [
    "CON-0-0.png",
    "a-b-1-0.png",
    "dot-2-0.png",
    "nul-png-3-0.png",
    "trailing-space-4-0.png",
    "what-5-0.png",
];

#[test]
fn pictures_of_any_class_are_written() {
    let place = Place::new();
    run::begin(&place, &CLASSES, 1, "");
    run::train(&place, 1);

    let options = ["--steps", "2", "--device", "cpu", "--out", "Bilder ä"];
    let generate = [&["generate"][..], &CLASSES, &["--model", RUN, "--grid", "0"], &options];
    place.succeeds(&generate.concat());
    let folder = place.path("Bilder ä");
    assert_eq!(names(&folder), PICTURES);
    for (picture, class) in PICTURES.iter().zip(CLASSES) {
        let origin = Origin::read(&read(&folder.join(picture))).expect("its settings");
        assert_eq!(origin.class_name, class);
    }

    let classes: Vec<&str> = CLASSES.iter().flat_map(|class| ["--class", class]).collect();
    let options = ["--steps", "2", "--device", "cpu", "--out", "Vergleich ä"];
    place.succeeds(&[&["compare", RUN][..], &classes, &options].concat());
    let mut expected = PICTURES.map(|picture| format!("1-{picture}")).to_vec();
    expected.push("compare.png".into());
    assert_eq!(names(&place.path("Vergleich ä")), expected);
}

#[test]
fn whatever_a_system_takes_for_a_folder_is_a_class() {
    let place = Place::new();
    write_zip(&place.path("Bilder.zip"), &CLASSES, 2);
    assert_eq!(prepared(&place, "Bilder.zip", "aus dem Archiv"), CLASSES);

    let source = place.path("Bilder");
    std::fs::create_dir(&source).expect("a folder");
    for class in CLASSES {
        // Windows refuses some, and leaves out dots and spaces at the ends of others.
        let _ = std::fs::create_dir(source.join(class));
    }
    let there = names(&source);
    for class in CLASSES.iter().filter(|class| !there.iter().any(|name| name == *class)) {
        if cfg!(unix) {
            panic!("a folder can be called {class:?}");
        }
        not_tested_here(&format!("a folder called {class:?}"));
    }
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    write_folders(&source, &there, 2);
    assert_eq!(prepared(&place, "Bilder", "aus Ordnern"), there);
}

/// The classes of a store that is made of a source.
fn prepared(place: &Place, source: &str, out: &str) -> Vec<String> {
    place.succeeds(&["prepare", source, "--out", out, "--size", "16"]);
    let store = ImageStore::open_verified(&place.path(out)).expect("a store");
    assert_eq!(store.len(), store.description.classes.len() * 2);
    store.description.classes.clone()
}
