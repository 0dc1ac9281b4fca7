//! Without a network.

use std::sync::atomic::AtomicBool;

use tintype::catalogue::Address;
use tintype_download::{DownloadError, Downloader};
use tintype_test_hub::{Fault, MAIN_COMMIT};

use crate::support::{REPOSITORY, Scene, address, fetch, file, is};

#[test]
fn offline_means_without_a_connection() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let url = scene.hub.put_url("/weights.pth", b"weights", &[]);
    for variable in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        let downloader = Downloader::new(scene.environment(&[(variable, "1")]));
        for address in [address("config.json"), url.clone()] {
            let asked = file(&address);
            let error = fetch(&downloader, &asked).expect_err("it is not here");
            assert!(matches!(error, DownloadError::Offline { .. }), "{error}");
            let said = error.to_string();
            let place = downloader.place(&asked).display().to_string();
            for part in [address.as_str(), place.as_str(), "HF_HUB_OFFLINE"] {
                assert!(said.contains(part), "{said}: {part}");
            }
        }
        let Address::Hub(hub) = file(&address("config.json")).address else { panic!("a Hub's") };
        let listed = downloader.list(&hub, &AtomicBool::new(false));
        assert!(matches!(listed, Err(DownloadError::Offline { .. })), "{listed:?}");
    }
    assert_eq!(scene.hub.connections(), 0);
    for address in [address("config.json"), url] {
        let fetched = scene.fetch(&address).expect("it comes");
        let downloader = Downloader::new(scene.environment(&[("HF_HUB_OFFLINE", "true")]));
        let connections = scene.hub.connections();
        let again = fetch(&downloader, &file(&address)).expect("it is here");
        assert_eq!((again.path, again.not_asked), (fetched.path, None));
        assert_eq!(scene.hub.connections(), connections);
    }
}

#[test]
fn what_is_here_is_used_when_the_hub_is_not() {
    let mut scene = Scene::new();
    let host = scene.hub.endpoint().replace("http://", "");
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let downloader = scene.downloader();
    let asked = file(&address("weights.bin"));
    let fetched = fetch(&downloader, &asked).expect("it comes");
    // It answers badly: it is asked once.
    scene.hub.on("HEAD", "weights.bin", [Fault::status(503, &[])]);
    let again = fetch(&downloader, &asked).expect("it is here");
    assert!(again.not_asked.is_some_and(|why| why.contains("503")));
    assert_eq!(scene.hub.seen("HEAD", "weights.bin").len(), 2);
    // It has no such file any longer: that is an answer.
    scene.hub.on("HEAD", "weights.bin", [Fault::status(404, &[("X-Error-Code", "EntryNotFound")])]);
    fetch(&downloader, &asked).expect_err("there is none");
    scene.hub.stop();
    let again = fetch(&downloader, &asked).expect("it is here");
    assert!(again.path == fetched.path && is(&again.path, b"weights"));
    assert!(again.not_asked.is_some_and(|why| why.contains(&host)));
    let error = fetch(&downloader, &file(&address("absent.bin"))).expect_err("it is not here");
    assert!(error.to_string().contains(&host), "{error}");
}

#[test]
fn a_commit_that_is_here_is_not_asked_for() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let pinned = format!("hub:{REPOSITORY}/config.json@{MAIN_COMMIT}");
    let fetched = scene.fetch(&pinned).expect("it comes");
    let connections = scene.hub.connections();
    let again = scene.fetch(&pinned).expect("it is here");
    assert_eq!((again.path, again.commit.as_deref()), (fetched.path, Some(MAIN_COMMIT)));
    assert_eq!((again.not_asked, scene.hub.connections()), (None, connections));
    // A branch's name is not noted for it.
    assert!(!scene.repository().join("refs").exists());
}
