//! Servers that ask for patience, or need it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tintype_download::{DownloadError, Downloader, Environment, Fetched, State};
use tintype_test_hub::{Fault, Gate};

use crate::support::{BYTES, CUT, REPOSITORY, Scene, address, content, fetch, file, is};

/// Fetches the weights; returns the seconds of each wait, too.
fn fetch_patiently(environment: Environment) -> (Result<Fetched, DownloadError>, Vec<u64>) {
    let waits = Mutex::new(Vec::new());
    let watch = |state: State| {
        if let State::Waiting { seconds, .. } = state {
            waits.lock().expect("it is not poisoned").push(seconds);
        }
    };
    let downloader = Downloader::new(environment);
    let asked = file(&address("weights.bin"));
    let fetched = downloader.fetch(&asked, &watch, &AtomicBool::new(false));
    (fetched, waits.into_inner().expect("it is not poisoned"))
}

/// A Hub with weights.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    scene
}

#[test]
fn waits_are_as_long_as_the_server_asks() {
    let limited = |with: &[(&str, &str)]| Fault::status(429, with);
    let cases: [(Fault, u64); 6] = [
        (limited(&[("RateLimit", "\"resolvers\";r=0;t=1")]), 2),
        (limited(&[("RateLimit", "\"resolvers\";r=3;t=50"), ("Retry-After", "1")]), 1),
        (limited(&[("Retry-After", "1")]), 1),
        (limited(&[]), 1),
        (Fault::status(503, &[("Retry-After", "7")]), 7),
        (limited(&[("Retry-After", "86400")]), 600),
    ];
    for method in ["HEAD", "GET"] {
        for (fault, seconds) in cases.clone() {
            let scene = scene();
            scene.hub.on(method, "weights.bin", [fault]);
            let (fetched, waits) = fetch_patiently(scene.environment(&[]));
            fetched.expect("the second time it comes");
            assert_eq!(waits, [seconds]);
        }
    }
}

/// Milliseconds that [`count`] was to wait.
static SLEPT: AtomicU64 = AtomicU64::new(0);

fn count(wait: Duration) {
    SLEPT.fetch_add(wait.as_millis() as u64, Ordering::Relaxed);
}

#[test]
fn after_five_attempts_it_gives_up() {
    let scene = scene();
    scene.hub.on("HEAD", "weights.bin", (0..9).map(|_| Fault::status(429, &[])));
    let mut environment = scene.environment(&[]);
    environment.sleep = count;
    let (fetched, waits) = fetch_patiently(environment);
    let error = fetched.expect_err("too many requests");
    let host = scene.hub.endpoint().replace("http://", "");
    assert!(error.to_string().contains(&format!("from {host}: too many requests")), "{error}");
    assert_eq!(waits, [1, 2, 4, 8]);
    assert_eq!(SLEPT.load(Ordering::Relaxed), 15_000);
    assert_eq!(scene.hub.seen("HEAD", "weights.bin").len(), 5);
}

#[test]
fn a_wait_can_be_stopped() {
    let scene = scene();
    scene.hub.on("HEAD", "weights.bin", [Fault::status(503, &[])]);
    let stop = AtomicBool::new(false);
    let watch = |state: State| {
        if matches!(state, State::Waiting { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let stopped = scene.downloader().fetch(&file(&address("weights.bin")), &watch, &stop);
    assert!(matches!(stopped, Err(DownloadError::Stopped)), "{stopped:?}");
    assert_eq!(scene.hub.seen("HEAD", "weights.bin").len(), 1);
}

#[test]
fn what_passes_is_tried_again() {
    let scene = scene();
    let faults = [500, 502, 503, 504, 408].map(|status| Fault::status(status, &[]));
    let (first, second) = faults.split_at(3);
    scene.hub.on("HEAD", "weights.bin", first.iter().cloned().chain([Fault::Close]));
    scene.hub.on("GET", "weights.bin", second.iter().cloned().chain([Fault::Close]));
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes in the end");
    assert!(is(&fetched.path, b"weights"));
    assert_eq!(scene.hub.seen("HEAD", "weights.bin").len(), 5);
    assert_eq!(scene.hub.seen("GET", "weights.bin").len(), 4);
}

#[test]
fn a_server_that_never_answers_is_named() {
    let scene = scene();
    let impatient = || Downloader::new(scene.environment(&[("HF_HUB_ETAG_TIMEOUT", "0.25")]));
    scene.hub.on("HEAD", "weights.bin", (0..5).map(|_| Fault::Hang));
    let error = fetch(&impatient(), &file(&address("weights.bin"))).expect_err("no answer");
    let host = scene.hub.endpoint().replace("http://", "");
    assert!(error.to_string().contains(&format!("from {host}: timeout")), "{error}");
    scene.hub.on("HEAD", "weights.bin", [Fault::Hang]);
    let patient = Downloader::new(scene.environment(&[("HF_HUB_ETAG_TIMEOUT", "1")]));
    fetch(&patient, &file(&address("weights.bin"))).expect("the second time it comes");
}

#[test]
fn a_body_that_stalls_is_asked_for_again() {
    let scene = Scene::new();
    let weights = content(BYTES, 8);
    scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    scene.hub.on("GET", "weights.bin", [Fault::Hold(CUT, Gate::new())]);
    let environment = scene.environment(&[("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")]);
    let fetched = fetch(&Downloader::new(environment), &file(&address("weights.bin")));
    assert!(is(&fetched.expect("it comes").path, &weights));
    assert!(scene.ranges("weights.bin")[1].starts_with("bytes="));
}
