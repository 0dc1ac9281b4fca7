//! Disks that are too small.

use tintype_download::{DownloadError, Downloader};
use tintype_test_hub::{Fault, Gate};

use crate::support::{BYTES, CUT, REPOSITORY, Scene, address, content, fetch, file, is};

#[test]
fn it_is_said_before_the_first_byte() {
    let scene = Scene::new();
    let weights = content(BYTES, 20);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let mut environment = scene.environment(&[]);
    environment.free_space = |_| Some(BYTES as u64 - 1);
    let downloader = Downloader::new(environment);
    let error = fetch(&downloader, &file(&address("weights.bin"))).expect_err("it does not fit");
    let DownloadError::Space { needed, free, place, .. } = &error else { panic!("{error}") };
    assert_eq!((*needed, *free), (BYTES as u64, BYTES as u64 - 1));
    assert_eq!(*place, scene.repository().join("blobs"));
    assert_eq!(scene.hub.seen("GET", "").len(), 0);
    // Of a plain address, the size comes with the first answer.
    let url = scene.hub.put_url("/weights.pth", &weights, &[]);
    let error = fetch(&downloader, &file(&url)).expect_err("it does not fit");
    assert!(matches!(error, DownloadError::Space { .. }), "{error}");
    let mut described = file(&url);
    described.bytes = Some(BYTES as u64);
    let error = fetch(&downloader, &described).expect_err("it does not fit");
    assert!(matches!(error, DownloadError::Space { .. }), "{error}");
    assert_eq!(scene.hub.seen("GET", "/weights.pth").len(), 1);
}

#[test]
fn downloads_at_once_share_the_disk() {
    let scene = Scene::new();
    let (one, two) = (content(BYTES, 21), content(BYTES, 22));
    scene.hub.put_large(REPOSITORY, "one.bin", &one);
    scene.hub.put_large(REPOSITORY, "two.bin", &two);
    let gate = Gate::new();
    scene.hub.on("GET", "one.bin", [Fault::None.after(&gate)]);
    let mut environment = scene.environment(&[]);
    environment.free_space = |_| Some(2 * BYTES as u64 - 1);
    let downloader = Downloader::new(environment);
    let fetched = std::thread::scope(|scope| {
        let download = scope.spawn(|| fetch(&downloader, &file(&address("one.bin"))));
        gate.wait();
        let error = fetch(&downloader, &file(&address("two.bin"))).expect_err("both do not fit");
        assert!(matches!(error, DownloadError::Space { .. }), "{error}");
        gate.open();
        download.join().expect("it ends")
    });
    assert!(is(&fetched.expect("it fits alone").path, &one));
    let fetched = fetch(&downloader, &file(&address("two.bin"))).expect("it fits afterwards");
    assert!(is(&fetched.path, &two));
}

#[test]
fn what_is_there_needs_no_room() {
    let scene = Scene::new();
    let weights = content(BYTES, 23);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let faults = [Fault::CutAfter(CUT), Fault::status(403, &[]), Fault::Page];
    scene.hub.on("GET", "weights.bin", faults);
    scene.fetch(&address("weights.bin")).expect_err("it is interrupted");
    let mut environment = scene.environment(&[]);
    environment.free_space = |_| Some((BYTES - CUT) as u64);
    let fetched = fetch(&Downloader::new(environment), &file(&address("weights.bin")));
    assert!(is(&fetched.expect("the rest fits").path, &weights));
}
