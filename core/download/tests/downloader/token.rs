//! The token goes to the Hub, and nowhere else.

use std::sync::atomic::AtomicBool;

use tintype::catalogue::Address;
use tintype_download::{DownloadError, Downloader};
use tintype_test_hub::{Fault, Host};

use crate::child;
use crate::support::{REPOSITORY, Scene, address, fetch, file};

const TOKEN: &str = "hf_a_secret";

#[test]
fn the_hub_sees_it_and_the_content_network_does_not() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let downloader = Downloader::new(scene.environment(&[("HF_TOKEN", TOKEN)]));
    for path in ["config.json", "weights.bin"] {
        fetch(&downloader, &file(&address(path))).expect("it comes");
    }
    // Not even where a plain address is one of the Hub's.
    scene.hub.put_url("/plain.pt", b"plain", &[]);
    let plain = format!("{}/plain.pt", scene.hub.endpoint());
    fetch(&downloader, &file(&plain)).expect("it comes");
    for request in scene.hub.requests() {
        let expected = match (request.host, request.path().as_str()) {
            (Host::Cdn, _) | (_, "/plain.pt") => None,
            (Host::Hub, _) => Some("Bearer hf_a_secret"),
        };
        assert_eq!(request.header("Authorization"), expected, "{request:?}");
    }
    assert_eq!(scene.hub.requests().len(), 6);
}

#[test]
fn no_error_shows_it() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let downloader = Downloader::new(scene.environment(&[("HF_TOKEN", TOKEN)]));
    let faults = [
        Fault::status(401, &[("X-Error-Message", "Invalid credentials in Authorization header")]),
        Fault::status(403, &[("X-Error-Code", "GatedRepo")]),
        Fault::status(404, &[]),
        Fault::Page,
    ];
    for fault in faults {
        scene.hub.on("HEAD", "weights.bin", [fault]);
        let error = fetch(&downloader, &file(&address("weights.bin"))).expect_err("refused");
        let said = format!("{error} {error:?} {downloader:?}");
        assert!(!said.contains("secret"), "{said}");
    }
    scene.hub.on("HEAD", "weights.bin", (0..5).map(|_| Fault::Close));
    let error = fetch(&downloader, &file(&address("weights.bin"))).expect_err("no answer");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    // A token that is none.
    let downloader = Downloader::new(scene.environment(&[("HF_TOKEN", "hf_a\u{1}secret")]));
    let error = fetch(&downloader, &file(&address("weights.bin"))).expect_err("no header has it");
    assert!(!format!("{error} {error:?} {downloader:?}").contains("secret"), "{error}");
}

#[test]
fn no_process_prints_it() {
    let scene = Scene::new();
    let mut command = child::command(&scene, &address("absent.bin"));
    let output = command.env("HF_TOKEN", TOKEN).output().expect("it starts");
    let (is_fetched, said) = child::told(&output);
    assert!(!is_fetched && said.contains("failed: "), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let asked = scene.hub.seen("HEAD", "absent.bin");
    assert_eq!(asked[0].header("Authorization"), Some("Bearer hf_a_secret"));
}

#[test]
fn a_file_of_windows_editors_is_read_or_refused_by_name() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let home = scene.folder.path().join("home");
    let kept = home.join("token");
    std::fs::create_dir_all(&home).expect("a folder");
    std::fs::write(&kept, format!("\u{feff}{TOKEN}\r\n")).expect("a file");
    let asked = file(&address("config.json"));
    fetch(&scene.downloader(), &asked).expect("it comes");
    let expected = Some("Bearer hf_a_secret");
    assert!(scene.hub.requests().iter().all(|one| one.header("Authorization") == expected));
    // As PowerShell's `>` writes it.
    let utf_16 = format!("\u{feff}{TOKEN}\r\n");
    let bytes: Vec<u8> = utf_16.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&kept, bytes).expect("a file");
    let asked_before = scene.hub.requests().len();
    let error = scene.fetch(&address("other.json")).expect_err("it has a token to send");
    assert!(matches!(error, DownloadError::TokenFile { .. }), "{error}");
    assert!(error.to_string().contains(&kept.display().to_string()), "{error}");
    let Address::Hub(hub) = &asked.address else { panic!("a Hub's") };
    let listed = scene.downloader().list(hub, &AtomicBool::new(false));
    assert!(matches!(listed, Err(DownloadError::TokenFile { .. })), "{listed:?}");
    // What is here is taken, and why it was not asked for is told.
    let again = fetch(&scene.downloader(), &asked).expect("it is here");
    assert!(again.not_asked.is_some_and(|why| why.contains("UTF-8")));
    assert_eq!(scene.hub.requests().len(), asked_before);
    // Another token, or none, is an answer.
    for variable in [("HF_TOKEN", TOKEN), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")] {
        let downloader = Downloader::new(scene.environment(&[variable]));
        let again = fetch(&downloader, &asked).expect("it is asked");
        assert_eq!(again.not_asked, None);
    }
}
