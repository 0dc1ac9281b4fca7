//! What lies in the caches already, and is not the file or has another name.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use tintype::catalogue::File;
use tintype_download::{DownloadError, Downloader, State};
use tintype_test_hub::Fault;

use crate::support::{REPOSITORY, Scene, address, content, fetch, file, files_below, is, length};

/// As on Windows, where links need a privilege.
const NO_LINKS: &[(&str, &str)] = &[("HF_HUB_DISABLE_SYMLINKS", "1")];
/// A commit after that of `main`.
const LATER: &str = "2222222222222222222222222222222222222222";

/// Cuts a file.
fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("it is there");
    file.set_len(bytes).expect("it is cut");
}

#[test]
fn a_file_of_another_length_counts_as_missing_and_is_told() {
    let scene = Scene::new();
    let weights = content(1000, 50);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let url = scene.hub.put_url("/weights.pth", &weights, &[]);
    for address in [address("weights.bin"), url] {
        let described = File { bytes: Some(1000), ..file(&address) };
        let downloader = scene.downloader();
        assert_eq!(downloader.misfit(&described), None, "nothing is here");
        let path = fetch(&downloader, &described).expect("it comes").path;
        assert_eq!(downloader.misfit(&described), None);
        cut(&path, 5);
        assert_eq!(downloader.find(&described), None, "{address}");
        let misfit = downloader.misfit(&described).expect("it is cut");
        let sentence = format!("{} has 5 bytes instead of 1000", path.display());
        assert_eq!(misfit.to_string(), sentence);
        let offline = Downloader::new(scene.environment(&[("HF_HUB_OFFLINE", "1")]));
        let error = fetch(&offline, &described).expect_err("it is cut");
        assert!(matches!(error, DownloadError::OfflineMisfit { .. }), "{error}");
        assert!(error.to_string().contains(&sentence), "{error}");
        let again = fetch(&downloader, &described).expect("it comes again");
        assert!(again.path == path && is(&path, &weights) && again.sha256.is_some());
        assert_eq!(downloader.find(&described), Some(path));
    }
}

#[test]
fn a_hub_tells_the_length_where_the_catalogue_does_not() {
    let scene = Scene::new();
    let weights = content(1000, 51);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let asked = file(&address("weights.bin"));
    for more in [NO_LINKS, &[]] {
        let downloader = Downloader::new(scene.environment(more));
        let path = fetch(&downloader, &asked).expect("it comes").path;
        cut(&path, 5);
        let stop = AtomicBool::new(false);
        assert_eq!(downloader.newer(&asked, &|_| {}, &stop).expect("it is asked"), Some(1000));
        let again = fetch(&downloader, &asked).expect("it comes again");
        assert!(again.path == path && is(&path, &weights) && again.sha256.is_some());
        downloader.remove(&asked).expect("it is removed");
    }
}

#[test]
fn a_cut_file_stays_until_it_is_replaced_and_is_not_taken_for_the_whole() {
    for more in [NO_LINKS, &[]] {
        let scene = Scene::new();
        let (weights, newer) = (content(1000, 56), content(500, 57));
        scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
        let asked = file(&address("weights.bin"));
        let downloader = Downloader::new(scene.environment(more));
        let path = fetch(&downloader, &asked).expect("it comes").path;
        cut(&path, 5);
        let fail = || scene.hub.on("GET", "weights.bin", (0..9).map(|_| Fault::status(503, &[])));
        fail();
        let error = fetch(&downloader, &asked).expect_err("it is cut, and nothing comes");
        assert!(matches!(error, DownloadError::Unreachable { .. }), "{error}");
        assert_eq!(length(&path), 5, "it stays");
        scene.hub.behave();
        let again = fetch(&downloader, &asked).expect("it comes again");
        assert!(again.path == path && is(&path, &weights));
        // A whole one of an older commit is taken.
        scene.hub.branch(REPOSITORY, "main", LATER);
        scene.hub.put_large(REPOSITORY, "weights.bin", &newer);
        fail();
        let old = fetch(&downloader, &asked).expect("it is here");
        assert!(old.path == path && old.not_asked.is_some() && is(&path, &weights));
    }
}

#[test]
fn without_links_a_new_commit_shares_what_is_unchanged() {
    let scene = Scene::new();
    let content = content(1000, 52);
    let (text, weights) = (&b"{}"[..], &content[..]);
    scene.hub.put(REPOSITORY, "config.json", text);
    scene.hub.put_large(REPOSITORY, "deep/weights.bin", weights);
    let files = [("config.json", text), ("deep/weights.bin", weights)];
    let downloader = Downloader::new(scene.environment(NO_LINKS));
    for (path, _) in files {
        fetch(&downloader, &file(&address(path))).expect("it comes");
    }
    scene.hub.branch(REPOSITORY, "main", LATER);
    let (gets, stop) = (scene.hub.seen("GET", "").len(), AtomicBool::new(false));
    for (path, bytes) in files {
        let asked = file(&address(path));
        assert_eq!(downloader.newer(&asked, &|_| {}, &stop).expect("it is asked"), None, "{path}");
        let fetched = fetch(&downloader, &asked).expect("it is here");
        assert_eq!(fetched.path, scene.repository().join("snapshots").join(LATER).join(path));
        assert_eq!((fetched.bytes, fetched.commit.as_deref()), (0, Some(LATER)));
        assert!(is(&fetched.path, bytes) && is(&scene.pointer(path), bytes));
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let inode = |path: &Path| path.metadata().expect("it is there").ino();
            assert_eq!(inode(&fetched.path), inode(&scene.pointer(path)), "two copies");
            assert_eq!(downloader.remove(&asked).expect("it is removed"), bytes.len() as u64);
        }
    }
    assert_eq!(scene.hub.seen("GET", "").len(), gets, "nothing comes again");
    assert!(files_below(&scene.repository().join("blobs")).is_empty());
}

#[test]
fn a_file_of_another_content_is_not_shared() {
    for is_damaged in [true, false] {
        let scene = Scene::new();
        let (old, new) = (content(1000, 53), content(1000, 54));
        scene.hub.put_large(REPOSITORY, "weights.bin", &old);
        let (asked, stop) = (file(&address("weights.bin")), AtomicBool::new(false));
        let downloader = Downloader::new(scene.environment(NO_LINKS));
        fetch(&downloader, &asked).expect("it comes");
        scene.hub.branch(REPOSITORY, "main", LATER);
        let current = match is_damaged {
            true => {
                std::fs::write(scene.pointer("weights.bin"), &new).expect("it is written");
                &old
            }
            false => {
                scene.hub.put_large(REPOSITORY, "weights.bin", &new);
                &new
            }
        };
        assert_eq!(downloader.newer(&asked, &|_| {}, &stop).expect("it is asked"), Some(1000));
        let fetched = fetch(&downloader, &asked).expect("it comes");
        assert!(is(&fetched.path, current) && fetched.sha256.is_some());
    }
}

#[test]
fn without_links_what_is_here_is_read_once_and_that_is_told() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", &content(1000, 58));
    let (asked, stop) = (file(&address("weights.bin")), AtomicBool::new(false));
    let downloader = Downloader::new(scene.environment(NO_LINKS));
    fetch(&downloader, &asked).expect("it comes");
    scene.hub.branch(REPOSITORY, "main", LATER);
    let is_read = AtomicBool::new(false);
    let watch = |state: State| {
        if matches!(state, State::Checking { done: 1000 }) {
            is_read.store(true, Ordering::Relaxed);
        }
    };
    assert_eq!(downloader.newer(&asked, &watch, &stop).expect("it is asked"), None);
    assert!(is_read.swap(false, Ordering::Relaxed), "it is told");
    let fetched = downloader.fetch(&asked, &watch, &stop).expect("it is here");
    assert_eq!((fetched.bytes, fetched.commit.as_deref()), (0, Some(LATER)));
    assert!(!is_read.into_inner(), "it is read again");
}

#[test]
fn a_check_of_what_is_here_can_be_stopped() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", &content(1000, 55));
    let asked = file(&address("weights.bin"));
    let downloader = Downloader::new(scene.environment(NO_LINKS));
    fetch(&downloader, &asked).expect("it comes");
    scene.hub.branch(REPOSITORY, "main", LATER);
    let stop = AtomicBool::new(false);
    let watch = |state: State| {
        if matches!(state, State::Checking { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let stopped = downloader.fetch(&asked, &watch, &stop);
    assert!(matches!(stopped, Err(DownloadError::Stopped)), "{stopped:?}");
    fetch(&downloader, &asked).expect("it is here");
    assert_eq!(scene.hub.seen("GET", "weights.bin").len(), 1);
}
