//! Downloads that are interrupted, and servers that continue them wrongly.

use tintype_download::DownloadError;
use tintype_test_hub::{Fault, Gate, MAIN_COMMIT};

use crate::support::{
    BYTES, CUT, REPOSITORY, Scene, address, content, fetch, fetch_a_little, file, files_below, is,
    length,
};

/// The request that continues a download.
const REST: &str = "bytes=400000-";

/// A large file and its bytes.
fn weights(scene: &Scene) -> (String, Vec<u8>) {
    let weights = content(BYTES, 4);
    (scene.hub.put_large(REPOSITORY, "weights.bin", &weights), weights)
}

#[test]
fn a_connection_that_breaks_is_continued() {
    let scene = Scene::new();
    let (_, weights) = weights(&scene);
    scene.hub.on("GET", "weights.bin", [Fault::CutAfter(CUT)]);
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes in two pieces");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.ranges("weights.bin"), ["whole", REST]);
    assert_eq!(scene.sent("weights.bin"), BYTES as u64);
}

#[test]
fn small_pieces_are_progress() {
    let scene = Scene::new();
    let (_, weights) = weights(&scene);
    scene.hub.on("GET", "weights.bin", (0..9).map(|_| Fault::CutAfter(BYTES / 10)));
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes in ten pieces");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.sent("weights.bin"), BYTES as u64);
}

#[test]
fn a_server_that_ignores_the_range_begins_anew() {
    let scene = Scene::new();
    let (_, weights) = weights(&scene);
    scene.hub.on("GET", "weights.bin", [Fault::CutAfter(CUT), Fault::IgnoreRange]);
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes");
    assert!(is(&fetched.path, &weights), "the beginning is there twice");
    assert_eq!(scene.ranges("weights.bin"), ["whole", REST]);
    assert_eq!(scene.sent("weights.bin"), (CUT + BYTES) as u64);
}

#[test]
fn another_range_than_the_one_asked_for_is_refused() {
    let wrong = ["bytes 0-599999/1000000", "bytes 400000-999999/1000001", "bytes 400000-999999/*"];
    for range in wrong {
        let scene = Scene::new();
        let (_, weights) = weights(&scene);
        let faults = [Fault::CutAfter(CUT), Fault::ContentRange(range.into())];
        scene.hub.on("GET", "weights.bin", faults);
        let fetched = scene.fetch(&address("weights.bin")).expect("it begins anew");
        assert!(is(&fetched.path, &weights), "{range}");
        assert_eq!(scene.ranges("weights.bin"), ["whole", REST, "whole"]);
    }
}

#[test]
fn beginning_anew_again_and_again_ends() {
    let scene = Scene::new();
    weights(&scene);
    let wrong = || Fault::ContentRange("bytes 0-599999/1000000".into());
    let faults = (0..10).flat_map(|_| [Fault::CutAfter(CUT), wrong()]);
    scene.hub.on("GET", "weights.bin", faults);
    let error = scene.fetch(&address("weights.bin")).expect_err("it never gets further");
    assert!(matches!(error, DownloadError::Unreachable { .. }), "{error}");
    assert_eq!(scene.ranges("weights.bin").len(), 5);
}

#[test]
fn a_page_or_another_size_costs_nothing_that_is_there() {
    let scene = Scene::new();
    let (id, weights) = weights(&scene);
    let faults = [Fault::CutAfter(CUT), Fault::Other(b"busy".to_vec()), Fault::Page];
    scene.hub.on("GET", "weights.bin", faults);
    let error = scene.fetch(&address("weights.bin")).expect_err("a portal answers");
    assert!(matches!(error, DownloadError::Page { .. }), "{error}");
    assert_eq!(length(&scene.part(&id)), CUT as u64);
    let fetched = scene.fetch(&address("weights.bin")).expect("the portal is gone");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.ranges("weights.bin"), ["whole", REST, REST, REST]);
    assert_eq!(fetched.bytes, BYTES as u64);
}

#[test]
fn an_address_that_expires_is_asked_for_again() {
    let scene = Scene::new();
    let (_, weights) = weights(&scene);
    let faults = [Fault::CutAfter(CUT), Fault::status(403, &[])];
    scene.hub.on("GET", "weights.bin", faults);
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.ranges("weights.bin"), ["whole", REST, REST]);
    assert_eq!(scene.hub.seen("HEAD", "weights.bin").len(), 2);
    let addresses = scene.hub.seen("GET", "weights.bin");
    assert_eq!(addresses[0].target, addresses[1].target);
    assert_ne!(addresses[1].target, addresses[2].target, "it is signed anew");
}

#[test]
fn the_new_address_is_one_of_the_same_commit() {
    let scene = Scene::new();
    let (_, weights) = weights(&scene);
    let gate = Gate::new();
    let expired = Fault::status(403, &[]).after(&gate);
    scene.hub.on("GET", "weights.bin", [Fault::CutAfter(CUT), expired]);
    let fetched = std::thread::scope(|scope| {
        let download = scope.spawn(|| scene.fetch(&address("weights.bin")));
        gate.wait();
        scene.hub.branch(REPOSITORY, "main", "2222222222222222222222222222222222222222");
        scene.hub.put_large(REPOSITORY, "weights.bin", &content(BYTES, 5));
        gate.open();
        download.join().expect("it ends")
    });
    let fetched = fetched.expect("the old file comes to its end");
    assert_eq!(fetched.commit.as_deref(), Some(MAIN_COMMIT));
    assert!(is(&fetched.path, &weights));
}

#[test]
fn a_host_that_refuses_every_address_is_named() {
    let scene = Scene::new();
    weights(&scene);
    scene.hub.on("GET", "weights.bin", (0..9).map(|_| Fault::status(403, &[])));
    let error = scene.fetch(&address("weights.bin")).expect_err("refused");
    let host = scene.hub.cdn().replace("http://", "");
    assert!(error.to_string().contains(&host) && error.to_string().contains("403"), "{error}");
    assert_eq!(scene.ranges("weights.bin").len(), 5);
    let traces = files_below(&scene.repository().join("blobs"));
    assert!(traces.is_empty(), "{traces:?}");
}

#[test]
fn what_has_arrived_when_it_is_stopped_is_kept() {
    let scene = Scene::new();
    let (id, weights) = weights(&scene);
    fetch_a_little(&scene.downloader(), &file(&address("weights.bin")));
    let there = length(&scene.part(&id));
    assert!(there > 0 && there < BYTES as u64, "{there}");
    let fetched = scene.fetch(&address("weights.bin")).expect("it goes on");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.ranges("weights.bin"), ["whole".into(), format!("bytes={there}-")]);
}

#[test]
fn a_part_that_is_whole_is_not_asked_for() {
    let scene = Scene::new();
    let (id, weights) = weights(&scene);
    std::fs::create_dir_all(scene.repository().join("blobs")).expect("a folder");
    std::fs::write(scene.part(&id), &weights).expect("a part");
    let fetched = scene.fetch(&address("weights.bin")).expect("it is whole");
    assert!(is(&fetched.path, &weights) && !scene.part(&id).exists());
    assert_eq!(scene.ranges("weights.bin").len(), 0);
}

#[test]
fn a_part_that_is_damaged_or_too_long_is_found_out() {
    let scene = Scene::new();
    let (id, weights) = weights(&scene);
    std::fs::create_dir_all(scene.repository().join("blobs")).expect("a folder");
    std::fs::write(scene.part(&id), vec![0; CUT]).expect("a part");
    let error = scene.fetch(&address("weights.bin")).expect_err("zeros are not its beginning");
    assert!(matches!(error, DownloadError::Digest { .. }), "{error}");
    assert!(!scene.part(&id).exists() && !scene.blob(&id).exists());
    std::fs::write(scene.part(&id), vec![0; BYTES + 1]).expect("a part");
    let fetched = scene.fetch(&address("weights.bin")).expect("it begins anew");
    assert!(is(&fetched.path, &weights));
}

#[test]
fn an_id_that_is_no_digest_does_not_continue_a_part() {
    let scene = Scene::new();
    let (old, new) = (content(BYTES, 6), content(BYTES, 7));
    let size = BYTES.to_string();
    let answer = |location: &str| {
        let with: [(&str, &str); 4] = [
            ("X-Repo-Commit", MAIN_COMMIT),
            ("X-Linked-Etag", "\"5f-mirror\""),
            ("X-Linked-Size", &size),
            ("Location", location),
        ];
        Fault::status(302, &with)
    };
    let location = scene.hub.put_url("/mirror/weights.bin", &old, &[]);
    scene.hub.on("HEAD", "weights.bin", [answer(&location), answer(&location)]);
    let asked = file(&address("weights.bin"));
    fetch_a_little(&scene.downloader(), &asked);
    scene.hub.put_url("/mirror/weights.bin", &new, &[]);
    let fetched = fetch(&scene.downloader(), &asked).expect("it comes");
    assert!(is(&fetched.path, &new), "two versions in one file");
}
