//! Downloads that end without a word.

use tintype_test_hub::{Fault, Gate, wait_until};

use crate::child;
use crate::support::{
    BYTES, CUT, REPOSITORY, Scene, address, content, fetch, file, is, length, numbers,
};

/// How often a download is killed at random.
const KILLS: usize = 20;

#[test]
fn a_download_that_was_killed_goes_on_where_it_was() {
    let scene = Scene::new();
    let weights = content(BYTES, 2);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    // The gate is never opened: what is behind it is never sent.
    scene.hub.on("GET", "weights.bin", [Fault::Hold(CUT, Gate::new())]);
    let mut download = child::start(&scene, &address("weights.bin"));
    wait_until("two fifths have arrived", || length(&scene.part(&id)) == CUT as u64);
    download.kill().expect("it is killed");
    download.wait().expect("it has ended");
    assert!(!scene.blob(&id).exists() && !scene.pointer("weights.bin").exists());
    let (is_fetched, said) = child::ended(child::start(&scene, &address("weights.bin")));
    assert!(is_fetched, "{said}");
    // Its digest is that of both pieces together.
    assert!(is(&scene.blob(&id), &weights) && is(&scene.pointer("weights.bin"), &weights));
    assert_eq!(scene.ranges("weights.bin"), ["whole", "bytes=400000-"]);
    assert_eq!(scene.sent("weights.bin"), BYTES as u64);
}

#[test]
fn kills_at_any_moment_do_no_harm() {
    let scene = Scene::new();
    let weights = content(200_000, 3);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let (blob, pointer) = (scene.blob(&id), scene.pointer("weights.bin"));
    let (downloader, asked) = (scene.downloader(), file(&address("weights.bin")));
    let mut random = numbers(20);
    for kill in 0..KILLS {
        // After some of the bytes have been sent, or all of them.
        let gate = Gate::new();
        scene.hub.behave();
        let sent = random(weights.len() * 3 / 2);
        scene.hub.on("GET", "weights.bin", [Fault::Hold(sent, gate.clone())]);
        let mut download = child::start(&scene, &address("weights.bin"));
        let mut has_ended = || download.try_wait().expect("it can be asked").is_some();
        wait_until("it asks or ends", || gate.is_reached() || has_ended());
        std::thread::sleep(std::time::Duration::from_micros(random(3000) as u64));
        let _ = download.kill();
        download.wait().expect("it has ended");
        gate.open();
        for path in [&blob, &pointer] {
            assert!(!path.exists() || is(path, &weights), "kill {kill}: {}", path.display());
        }
        if pointer.exists() {
            downloader.remove(&asked).expect("it is removed");
        }
    }
    scene.hub.behave();
    let fetched = fetch(&downloader, &asked).expect("it comes in the end");
    assert!(is(&fetched.path, &weights));
}
