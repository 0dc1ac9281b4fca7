//! What lies in the caches already, and is not the file or has another name.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tintype::catalogue::File;
use tintype_download::{DownloadError, Downloader};

use crate::support::{REPOSITORY, Scene, address, content, fetch, file, is};

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
    let linked: &[(&str, &str)] = &[];
    for more in [linked, &[("HF_HUB_DISABLE_SYMLINKS", "1")]] {
        let downloader = Downloader::new(scene.environment(more));
        let path = fetch(&downloader, &asked).expect("it comes").path;
        cut(&path, 5);
        let stop = AtomicBool::new(false);
        assert_eq!(downloader.newer(&asked, &stop).expect("it is asked"), Some(1000));
        let again = fetch(&downloader, &asked).expect("it comes again");
        assert!(again.path == path && is(&path, &weights) && again.sha256.is_some());
        downloader.remove(&asked).expect("it is removed");
    }
}
