//! Removing what was fetched.

use tintype_test_hub::{Fault, Gate, wait_until};

use crate::support::{
    BYTES, CUT, REPOSITORY, Scene, address, content, fetch, fetch_a_little, file, files_below, is,
    length, link,
};

#[test]
fn a_content_goes_when_nothing_leads_to_it() {
    let scene = Scene::new();
    let weights = content(1000, 40);
    let id = scene.hub.put_large(REPOSITORY, "deep/weights.bin", &weights);
    scene.hub.put_large(REPOSITORY, "copy.bin", &weights);
    let (first, copy) = (file(&address("deep/weights.bin")), file(&address("copy.bin")));
    let downloader = scene.downloader();
    fetch(&downloader, &first).expect("it comes");
    fetch(&downloader, &copy).expect("it is here");
    // The same file in a commit that came later.
    scene.hub.branch(REPOSITORY, "main", "2222222222222222222222222222222222222222");
    fetch(&downloader, &first).expect("it is here");
    assert_eq!(scene.hub.seen("GET", "").len(), 1);
    assert_eq!(downloader.remove(&first).expect("it is removed"), 0);
    assert!(downloader.find(&first).is_none() && is(&scene.blob(&id), &weights));
    assert!(is(&scene.pointer("copy.bin"), &weights));
    assert!(!scene.pointer("deep").exists(), "a folder without files");
    assert_eq!(downloader.remove(&copy).expect("it is removed"), 1000);
    assert!(!scene.blob(&id).exists());
    assert!(files_below(&scene.repository().join("snapshots")).is_empty());
    assert_eq!(downloader.remove(&copy).expect("there is nothing"), 0);
}

#[test]
fn an_unfinished_download_goes_too() {
    let scene = Scene::new();
    let weights = content(BYTES, 41);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let hub = file(&address("weights.bin"));
    let plain = file(&scene.hub.put_url("/weights.pth", &weights, &[("ETag", "\"v1\"")]));
    let downloader = scene.downloader();
    fetch_a_little(&downloader, &hub);
    let there = length(&scene.part(&id));
    assert_eq!(downloader.remove(&hub).expect("it is removed"), there);
    assert!(!scene.part(&id).exists());
    fetch_a_little(&downloader, &plain);
    assert!(downloader.remove(&plain).expect("it is removed") > 0);
    assert!(files_below(&scene.folder.path().join("own")).is_empty());
    fetch(&downloader, &plain).expect("it comes");
    assert_eq!(downloader.remove(&plain).expect("it is removed"), BYTES as u64);
    assert!(files_below(&scene.folder.path().join("own")).is_empty());
}

#[test]
fn a_download_that_goes_on_is_left_alone() {
    let scene = Scene::new();
    let weights = content(BYTES, 42);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let (gate, asked) = (Gate::new(), file(&address("weights.bin")));
    scene.hub.on("GET", "weights.bin", [Fault::Hold(CUT, gate.clone())]);
    let fetched = std::thread::scope(|scope| {
        let download = scope.spawn(|| scene.fetch(&address("weights.bin")));
        gate.wait();
        wait_until("two fifths have arrived", || length(&scene.part(&id)) == CUT as u64);
        assert_eq!(scene.downloader().remove(&asked).expect("there is nothing"), 0);
        gate.open();
        download.join().expect("it ends")
    });
    assert!(is(&fetched.expect("it comes").path, &weights));
}

#[test]
fn what_a_link_leads_to_elsewhere_stays() {
    let scene = Scene::new();
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let asked = file(&address("config.json"));
    let pointer = scene.fetch(&address("config.json")).expect("it comes").path;
    let elsewhere = scene.folder.path().join("mine.json");
    std::fs::rename(pointer.canonicalize().expect("a blob"), &elsewhere).expect("it is moved");
    std::fs::remove_file(&pointer).expect("it is removed");
    link(&elsewhere, &pointer);
    scene.downloader().remove(&asked).expect("it is removed");
    assert!(!pointer.exists() && is(&elsewhere, b"{}"));
}

#[test]
fn the_unfinished_download_of_another_file_stays() {
    let scene = Scene::new();
    let (one, two) = (content(BYTES, 43), content(BYTES, 44));
    scene.hub.put_large(REPOSITORY, "one.bin", &one);
    let id = scene.hub.put_large(REPOSITORY, "two.bin", &two);
    let (first, second) = (file(&address("one.bin")), file(&address("two.bin")));
    let downloader = scene.downloader();
    fetch_a_little(&downloader, &first);
    fetch_a_little(&downloader, &second);
    assert!(downloader.is_begun(&first) && downloader.is_begun(&second));
    downloader.remove(&first).expect("it is removed");
    assert!(!downloader.is_begun(&first) && downloader.is_begun(&second));
    assert!(length(&scene.part(&id)) > 0);
    fetch(&downloader, &second).expect("it goes on");
    assert!(!downloader.is_begun(&second));
    assert_eq!(files_below(&scene.repository().join("blobs")), [id]);
}
