//! Files that pictures share, that took a freed name, and that are gone.

use tintype::diffusion::guidance::Guidance;
use tintype::generate::{Fingerprints, ImageSpec, Settings};
use tintype::precision::Precision;
use tintype::settings::Sampler;

use super::*;

/// A picture of class 8 that was saved into a folder.
fn made(folder: &Path, png: &[u8]) -> Made {
    let weights = Fingerprints {
        model: "0123456789abcdef".into(),
        autoencoder: None,
        statistics: None,
        guide: None,
    };
    let grey = egui::Color32::from_gray(9);
    Made {
        job: 1,
        origin: Origin {
            version: "0.1.0".into(),
            weights,
            class_name: "clock".into(),
            spec: ImageSpec::new(Some(8), 7, 0),
            settings: Settings::new(Sampler::Euler, 5, Guidance::NONE),
            precision: Precision::F32,
            device: "cpu".into(),
        },
        image: Arc::new(egui::ColorImage::filled([1, 1], grey)),
        latent: None,
        png: Arc::new(png.to_vec()),
        saved: Some(save(folder, "clock-8-7", png)),
        pace: None,
        evaluations: 5,
        memory: 0,
    }
}

#[test]
fn a_picture_that_is_made_again_is_one_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut gallery = Gallery::open(folder, egui::Context::default());
    let first = gallery.add(made(folder, b"one"));
    let other = gallery.add(made(folder, b"two"));
    assert_eq!(gallery.add(made(folder, b"one")), first);
    let ids: Vec<u64> = gallery.entries().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [first, other], "the latest first");
}

#[test]
fn a_picture_that_was_made_twice_is_saved_as_one_entry() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut gallery = Gallery::open(folder, egui::Context::default());
    for _ in 0..2 {
        let unsaved = Some(Err("the disk is full".into()));
        gallery.add(Made { saved: unsaved, ..made(&folder.join("other"), b"one") });
    }
    assert_eq!(gallery.entries().len(), 2);
    assert_eq!(gallery.save_unsaved(), Ok(2));
    assert_eq!(gallery.entries().len(), 1);
}

#[test]
fn a_deleted_picture_comes_back_beside_one_that_took_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut gallery = Gallery::open(folder, egui::Context::default());
    let first = gallery.add(made(folder, b"one"));
    gallery.delete(first).expect("deleted");
    let other = gallery.add(made(folder, b"two"));
    assert_eq!(gallery.undo(), Ok(Some(first)));
    for (id, content) in [(first, b"one"), (other, b"two")] {
        let path = gallery.get(id).and_then(|entry| entry.path.clone()).expect("it is saved");
        assert_eq!(std::fs::read(path).expect("there"), content);
    }
    // What was made again is there already.
    gallery.delete(first).expect("deleted");
    let again = gallery.add(made(folder, b"one"));
    assert_eq!(gallery.undo(), Ok(Some(again)));
    assert_eq!(gallery.entries().len(), 2);
}

#[test]
fn a_picture_whose_file_is_gone_can_be_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut gallery = Gallery::open(folder, egui::Context::default());
    let in_memory = gallery.add(made(folder, b"one"));
    gallery.list(vec![folder.join("gone.png")]);
    let on_disk = gallery.entries()[1].id;
    std::fs::remove_file(folder.join("clock-8-7.png")).expect("removed");
    assert_eq!(gallery.delete(on_disk), Ok(false));
    assert_eq!(gallery.delete(in_memory), Ok(true));
    assert!(gallery.entries().is_empty());
    assert_eq!(gallery.undo(), Ok(Some(in_memory)));
    assert_eq!(gallery.undo(), Ok(None));
    assert!(folder.join("clock-8-7.png").exists());
}
