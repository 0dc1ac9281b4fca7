//! Several downloads at once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tintype::catalogue::File;
use tintype_download::{DownloadError, Refusal, State};
use tintype_test_hub::{Fault, Gate, wait_until};

use crate::child;
use crate::support::{BYTES, CUT, REPOSITORY, Scene, address, content, file, is, length};

#[test]
fn two_processes_share_one_download() {
    let scene = Scene::new();
    let weights = content(BYTES, 30);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let gate = Gate::new();
    scene.hub.on("GET", "weights.bin", [Fault::Hold(CUT, gate.clone())]);
    let first = child::start(&scene, &address("weights.bin"));
    gate.wait();
    let second = child::start(&scene, &address("weights.bin"));
    wait_until("the second asks", || scene.hub.seen("HEAD", "weights.bin").len() == 2);
    gate.open();
    for download in [first, second] {
        let (is_fetched, said) = child::ended(download);
        assert!(is_fetched, "{said}");
    }
    assert!(is(&scene.blob(&id), &weights) && is(&scene.pointer("weights.bin"), &weights));
    assert_eq!(scene.hub.seen("GET", "weights.bin").len(), 1);
}

/// Two processes that do not see each other's locks, nor each other's part: so it is on disks of several machines
/// whose locks are no locks, and where somebody cleans up.
#[test]
fn without_locks_a_blob_is_whole_all_the_same() {
    for first_ends_first in [true, false] {
        let scene = Scene::new();
        let weights = content(BYTES, 31);
        let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
        let (blob, part) = (scene.blob(&id), scene.part(&id));
        let gates = [Gate::new(), Gate::new()];
        let faults = gates.iter().map(|gate| Fault::Hold(CUT, gate.clone()));
        scene.hub.on("GET", "weights.bin", faults);
        let mut downloads = gates.iter().map(|gate| {
            let download = child::start(&scene, &address("weights.bin"));
            gate.wait();
            wait_until("two fifths have arrived", || length(&part) == CUT as u64);
            download
        });
        let first = downloads.next().expect("the first");
        std::fs::remove_dir_all(scene.folder.path().join("hub/.locks")).expect("it is removed");
        std::fs::remove_file(&part).expect("it is removed");
        let second = downloads.next().expect("the second");
        let mut order = [(&gates[0], first), (&gates[1], second)];
        if !first_ends_first {
            order.reverse();
        }
        let ends = order.map(|(gate, download)| {
            gate.open();
            let end = child::ended(download);
            assert!(!blob.exists() || is(&blob, &weights), "{end:?}");
            end
        });
        // Who has lost its part may say so, and what the other one makes is whole.
        let [(_, earlier), (is_fetched, later)] = ends;
        assert!(is_fetched, "{earlier} {later}");
        assert!(first_ends_first || earlier.contains("fetched "), "{earlier}");
        assert!(is(&blob, &weights) && is(&scene.pointer("weights.bin"), &weights));
    }
}

#[test]
fn a_file_that_fails_does_not_stop_the_others() {
    let scene = Scene::new();
    let weights = content(BYTES, 32);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let url = scene.hub.put_url("/statistics.npz", b"PK\x03\x04", &[]);
    let addresses = [
        address("weights.bin"),
        address("absent.bin"),
        address("config.json"),
        url,
        "hub:maker/other/x.bin".to_string(),
        address("weights.bin"),
    ];
    let files = addresses.map(|address| file(&address));
    let files: Vec<&File> = files.iter().collect();
    let told = Mutex::new(BTreeSet::new());
    let watch = |index: usize, _: State| {
        told.lock().expect("it is not poisoned").insert(index);
    };
    let results = scene.downloader().fetch_all(&files, &watch, &AtomicBool::new(false));
    let is_fetched: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(is_fetched, [true, false, true, true, false, true]);
    let refusal = |index: usize| match &results[index] {
        Err(DownloadError::Refused { refusal, .. }) => refusal.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(refusal(1), Refusal::Entry { .. }));
    assert!(matches!(refusal(4), Refusal::Repository { .. }));
    assert_eq!(scene.hub.seen("GET", "weights.bin").len(), 1, "it is the same file");
    assert_eq!(told.into_inner().expect("it is not poisoned").len(), 6);
}
