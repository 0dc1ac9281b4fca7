//! What a Hub says where it refuses, in one sentence each.

use tintype_download::DownloadError;
use tintype_test_hub::{Fault, MAIN_COMMIT};

use crate::support::{REPOSITORY, Scene, address, files_below};

/// Fetches what is refused: after one question, with this sentence, and without a trace in the cache.
fn refused(scene: &Scene, address: &str, sentence: &str) {
    let before = scene.hub.requests().len();
    let error = scene.fetch(address).expect_err("it is refused");
    let said = error.to_string();
    assert!(said.contains(sentence) && said.starts_with(address), "{said}");
    assert_eq!(scene.hub.requests().len(), before + 1, "{said}");
    let traces = files_below(&scene.folder.path().join("hub"));
    assert!(traces.is_empty(), "{said}: {traces:?}");
}

#[test]
fn refusals_have_a_sentence_each() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let page = format!("{}/{REPOSITORY}", scene.hub.endpoint());
    let (code, message) = ("X-Error-Code", "X-Error-Message");
    let invalid = "Invalid credentials in Authorization header";
    let gated = format!("is gated: accept its conditions at {page}, then set HF_TOKEN");
    let cases = [
        (Fault::status(401, &[(code, "GatedRepo")]), gated),
        (Fault::status(403, &[(code, "GatedRepo")]), "has not been granted access".into()),
        (Fault::status(401, &[(message, invalid)]), "HF_TOKEN is wrong or has expired".into()),
        (Fault::status(404, &[(code, "RepoNotFound")]), "maker/model does not exist".into()),
        (Fault::status(403, &[(message, "Blocked")]), "the server answers 403: Blocked".into()),
        (Fault::status(410, &[]), "the server answers 410".into()),
    ];
    for (fault, sentence) in cases {
        scene.hub.on("HEAD", "weights.bin", [fault]);
        refused(&scene, &address("weights.bin"), &sentence);
    }
    let strange = "the repository maker/other does not exist, or is private";
    refused(&scene, "hub:maker/other/weights.bin", strange);
    let revision = "the repository maker/model has no revision v9";
    refused(&scene, "hub:maker/model/weights.bin@v9", revision);
}

#[test]
fn a_file_that_a_commit_lacks_is_noted() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let error = scene.fetch(&address("deep/absent.bin")).expect_err("there is none");
    let sentence = "the repository maker/model has no file deep/absent.bin at revision main";
    assert!(error.to_string().ends_with(sentence), "{error}");
    let files = files_below(&scene.repository());
    assert_eq!(files, [format!(".no_exist/{MAIN_COMMIT}/deep/absent.bin")]);
}

#[test]
fn a_portal_is_no_hub() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let host = scene.hub.endpoint().replace("http://", "");
    // Its page, or a redirect to it within the host.
    let login = "/login?to=https://elsewhere.invalid/";
    let pages = [Fault::Page, Fault::status(307, &[("Location", login)])];
    for page in pages {
        scene.hub.put_url("/login", b"<!DOCTYPE html>", &[("Content-Type", "text/html")]);
        scene.hub.on("HEAD", "weights.bin", [page]);
        let error = scene.fetch(&address("weights.bin")).expect_err("it is a portal");
        assert!(matches!(error, DownloadError::NotAHub { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("is not a Hub") && said.contains(&host), "{said}");
    }
    assert!(files_below(&scene.folder.path().join("hub")).is_empty());
}
