//! What files a repository has.

use std::sync::atomic::AtomicBool;

use tintype::catalogue::{Address, Hub};
use tintype_download::{DownloadError, Listed};
use tintype_test_hub::Fault;

use crate::support::{REPOSITORY, Scene, address, file};

/// A file of a repository.
fn of(address: &str) -> Hub {
    match file(address).address {
        Address::Hub(hub) => hub,
        other => panic!("{other}"),
    }
}

/// Addresses and sizes of a listing.
fn listed(scene: &Scene, of: &Hub) -> Result<Vec<(String, Option<u64>)>, DownloadError> {
    let listed = scene.downloader().list(of, &AtomicBool::new(false))?;
    Ok(listed.files.into_iter().map(|file| (file.address.to_string(), file.bytes)).collect())
}

#[test]
fn files_are_listed_over_all_pages() {
    let scene = Scene::new();
    for path in ["README.md", "a 'name' with ä.json"] {
        scene.hub.put(REPOSITORY, path, b"{}");
    }
    for path in ["deep/1.bin", "deep/2.bin", "deep/er/3.bin"] {
        scene.hub.put_large(REPOSITORY, path, b"weights");
    }
    let expected = [
        (address("README.md"), Some(2)),
        (address("a 'name' with ä.json"), Some(2)),
        (address("deep/1.bin"), Some(7)),
        (address("deep/2.bin"), Some(7)),
        (address("deep/er/3.bin"), Some(7)),
    ];
    for (page, requests) in [(1000, 1), (3, 3), (1, 7)] {
        scene.hub.page_by(page);
        let before = scene.hub.requests().len();
        let files = listed(&scene, &of(&address("x"))).expect("a listing");
        assert_eq!(files, expected, "by {page}");
        assert_eq!(scene.hub.requests().len(), before + requests, "folders are entries, too");
    }
    scene.hub.branch(REPOSITORY, "refs/pr/1", "2222222222222222222222222222222222222222");
    let files = listed(&scene, &of("hub:maker/model/x@refs/pr/1")).expect("a listing");
    assert_eq!(files.last().expect("five").0, "hub:maker/model/deep/er/3.bin@refs/pr/1");
}

#[test]
fn a_repository_that_was_renamed_is_followed() {
    let scene = Scene::new();
    scene.hub.put("maker/renamed", "weights.bin", b"weights");
    let there = "/api/models/maker/renamed/tree/main?recursive=true";
    let moved = Fault::status(307, &[("Location", there)]);
    scene.hub.on("GET", "/maker/model/tree/main", [moved]);
    let files = listed(&scene, &of(&address("x"))).expect("a listing");
    assert_eq!(files, [(address("weights.bin"), Some(7))]);
}

#[test]
fn paths_that_lead_elsewhere_or_are_devices_are_counted_and_not_listed() {
    let scene = Scene::new();
    let refused =
        ["../../escaped.bin", "/etc/passwd", "C:\\windows\\x.dll", "deep/../../x", "con.pt"];
    for path in refused.iter().chain(&["good.bin"]) {
        scene.hub.put(REPOSITORY, path, b"x");
    }
    let listing = scene.downloader().list(&of(&address("x")), &AtomicBool::new(false));
    let listing = listing.expect("a listing");
    let good = file(&address("good.bin")).address;
    assert_eq!(listing.files, [Listed { address: good, bytes: Some(1) }]);
    assert_eq!(listing.left_out, refused.len());
}

#[test]
fn a_listing_that_cannot_be_had_is_an_error() {
    let scene = Scene::new();
    let error = listed(&scene, &of(&address("x"))).expect_err("no such repository");
    assert!(error.to_string().contains("maker/model does not exist"), "{error}");
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let error = listed(&scene, &of("hub:maker/model/x@v9")).expect_err("no such revision");
    assert!(error.to_string().contains("no revision v9"), "{error}");
    scene.hub.on("GET", "tree/main", [Fault::Page]);
    let error = listed(&scene, &of(&address("x"))).expect_err("a page");
    assert!(error.to_string().contains("no listing"), "{error}");
    scene.hub.on("GET", "tree/main", [Fault::status(503, &[]), Fault::Close]);
    assert_eq!(listed(&scene, &of(&address("x"))).expect("the third time").len(), 1);
}
