//! Files of plain addresses and of sharing links, which no Hub describes.

use tintype::catalogue::File;
use tintype_download::DownloadError;
use tintype_test_hub::{Fault, Gate, sha256};

use crate::support::{
    BYTES, CUT, REPOSITORY, Scene, address, content, fetch, fetch_a_little, file, files_below, is,
    length,
};

/// Where the file of most tests lies.
const PATH: &str = "/files/weights.pth";

/// A file and the headers of its answers.
type Version<'a> = (&'a [u8], &'a [(&'a str, &'a str)]);

/// Interrupts a download, publishes another version or the same, and fetches again, as another process would; returns
/// whether that continued what was there, and its `If-Range`.
fn second(first: Version<'_>, then: Version<'_>) -> (bool, Option<String>) {
    let scene = Scene::new();
    let address = scene.hub.put_url(PATH, first.0, first.1);
    fetch_a_little(&scene.downloader(), &file(&address));
    scene.hub.put_url(PATH, then.0, then.1);
    let fetched = scene.fetch(&address).expect("it comes");
    assert!(is(&fetched.path, then.0), "two versions in one file");
    assert_eq!(fetched.sha256, Some(sha256(then.0)));
    let kept = files_below(&scene.folder.path().join("own"));
    assert!(kept.len() == 1 && kept[0].ends_with("/weights.pth"), "{kept:?}");
    let requests = scene.hub.seen("GET", PATH);
    assert_eq!(requests.len(), 2);
    (requests[1].header("Range").is_some(), requests[1].header("If-Range").map(String::from))
}

#[test]
fn a_strong_etag_continues_the_same_version_alone() {
    let (old, new) = (content(BYTES, 10), content(BYTES - 1000, 11));
    let (first, later) = ([("ETag", "\"v1\"")], [("ETag", "\"v2\"")]);
    for then in [(&old[..], &first[..]), (&new[..], &later[..])] {
        assert_eq!(second((&old, &first), then), (true, Some("\"v1\"".into())));
    }
}

#[test]
fn a_date_continues_too() {
    let (old, new) = (content(BYTES, 10), content(BYTES, 11));
    let date = "Wed, 21 Oct 2026 07:28:00 GMT";
    let first = [("ETag", "W/\"v1\""), ("Last-Modified", date)];
    let later = [("Last-Modified", "Thu, 22 Oct 2026 07:28:00 GMT")];
    for then in [(&old[..], &first[..]), (&new[..], &later[..])] {
        assert_eq!(second((&old, &first), then), (true, Some(date.into())));
    }
}

#[test]
fn a_weak_etag_or_none_continues_nothing() {
    let (old, new) = (content(BYTES, 10), content(BYTES, 11));
    let weak = [("ETag", "W/\"v1\"")];
    assert_eq!(second((&old, &weak), (&new, &weak)), (false, None));
    assert_eq!(second((&old, &[]), (&new, &[])), (false, None));
}

#[test]
fn a_pinned_digest_needs_no_etag() {
    let scene = Scene::new();
    let weights = content(BYTES, 12);
    let address = scene.hub.put_url(PATH, &weights, &[]);
    let mut pinned = file(&address);
    pinned.sha256 = Some(sha256(&weights));
    fetch_a_little(&scene.downloader(), &pinned);
    let fetched = fetch(&scene.downloader(), &pinned).expect("it goes on");
    assert!(is(&fetched.path, &weights));
    let request = &scene.hub.seen("GET", PATH)[1];
    assert!(request.header("Range").is_some_and(|range| range.starts_with("bytes=")));
    assert_eq!(request.header("If-Range"), None);
}

#[test]
fn what_is_continued_counts_as_begun() {
    for goes_on in [true, false] {
        let scene = Scene::new();
        let with: &[_] = if goes_on { &[("ETag", "\"v1\"")] } else { &[] };
        let wanted = file(&scene.hub.put_url(PATH, &content(BYTES, 23), with));
        let downloader = scene.downloader();
        assert!(!downloader.is_begun(&wanted) && downloader.begun(&wanted) == 0);
        fetch_a_little(&downloader, &wanted);
        let part = downloader.place(&wanted).with_file_name("weights.pth.tintype.incomplete");
        assert!(downloader.is_begun(&wanted) && length(&part) > 0);
        assert_eq!(downloader.begun(&wanted), if goes_on { length(&part) } else { 0 });
    }
    // Of a Hub's file the name of the part tells the content.
    let scene = Scene::new();
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &content(BYTES, 24));
    let wanted = file(&address("weights.bin"));
    fetch_a_little(&scene.downloader(), &wanted);
    let begun = scene.downloader().begun(&wanted);
    assert!(begun > 0 && begun == length(&scene.part(&id)));
}

#[test]
fn a_version_of_another_size_may_come_in_the_middle() {
    let scene = Scene::new();
    let (old, new) = (content(BYTES, 13), content(BYTES / 2, 14));
    let address = scene.hub.put_url(PATH, &old, &[("ETag", "\"v1\"")]);
    let gate = Gate::new();
    scene.hub.on("GET", PATH, [Fault::CutAfter(CUT), Fault::None.after(&gate)]);
    let fetched = std::thread::scope(|scope| {
        let download = scope.spawn(|| scene.fetch(&address));
        gate.wait();
        scene.hub.put_url(PATH, &new, &[("ETag", "\"v2\"")]);
        gate.open();
        download.join().expect("it ends")
    });
    assert!(is(&fetched.expect("the new one comes").path, &new));
    assert_eq!(scene.hub.seen("GET", PATH).len(), 2);
}

#[test]
fn two_downloads_at_once_do_not_share_what_they_know() {
    let scene = Scene::new();
    let (old, new) = (content(BYTES, 15), content(BYTES, 16));
    let address = scene.hub.put_url(PATH, &old, &[("ETag", "\"v1\"")]);
    let gate = Gate::new();
    let faults = [
        // One download has a piece of the old version, and is interrupted again later.
        Fault::CutAfter(CUT),
        Fault::Close.after(&gate),
        // Another begins with the new version meanwhile, and fails.
        Fault::CutAfter(CUT / 2),
        Fault::status(404, &[]),
    ];
    scene.hub.on("GET", PATH, faults);
    let fetched = std::thread::scope(|scope| {
        let download = scope.spawn(|| scene.fetch(&address));
        gate.wait();
        scene.hub.put_url(PATH, &new, &[("ETag", "\"v2\"")]);
        scene.fetch(&address).expect_err("it is gone");
        gate.open();
        download.join().expect("it ends")
    });
    assert!(is(&fetched.expect("it comes").path, &new), "two versions in one file");
    let last = &scene.hub.seen("GET", PATH)[4];
    assert_eq!(last.header("If-Range"), Some("\"v1\""));
    assert_eq!(files_below(&scene.folder.path().join("own")).len(), 1);
}

#[test]
fn a_range_behind_the_end_is_the_end() {
    let weights = content(BYTES, 17);
    let damaged = vec![0; BYTES];
    for there in [&weights, &damaged] {
        let scene = Scene::new();
        let mut pinned = file(&scene.hub.put_url(PATH, &weights, &[]));
        pinned.sha256 = Some(sha256(&weights));
        let downloader = scene.downloader();
        let whole = downloader.place(&pinned);
        let part = whole.with_file_name("weights.pth.tintype.incomplete");
        std::fs::create_dir_all(whole.parent().expect("a folder")).expect("a folder");
        std::fs::write(&part, there).expect("a part");
        let fetched = fetch(&downloader, &pinned);
        let request = &scene.hub.seen("GET", PATH)[0];
        assert_eq!(request.header("Range"), Some("bytes=1000000-"));
        assert_eq!(fetched.is_ok(), *there == weights, "{fetched:?}");
        let is_refused = matches!(fetched, Err(DownloadError::Digest { .. }));
        assert_eq!(is_refused, *there == damaged);
        assert!(!part.exists());
        assert_eq!(whole.exists(), fetched.is_ok());
    }
}

#[test]
fn digits_in_a_name_are_no_digest_but_in_pytorchs() {
    let scene = Scene::new();
    let weights = content(1000, 18);
    for name in ["/model-20240115.pt", "/ckpt-00400000.pth"] {
        let fetched = scene.fetch(&scene.hub.put_url(name, &weights, &[])).expect("it comes");
        assert!(is(&fetched.path, &weights), "{name}");
    }
}

#[test]
fn what_is_compressed_on_the_way_is_refused() {
    let scene = Scene::new();
    let url = scene.hub.put_url("/weights.pth", b"\x1f\x8b", &[("Content-Encoding", "gzip")]);
    let error = scene.fetch(&url).expect_err("it was not asked for");
    assert!(error.to_string().contains("as gzip"), "{error}");
}

#[test]
fn a_page_in_place_of_a_file_is_refused_with_its_address() {
    let scene = Scene::new();
    let (html, binary) = ("text/html; charset=utf-8", "application/octet-stream");
    for (bytes, kind) in [
        ("<!DOCTYPE html><title>Too many downloads</title>", html),
        ("<!DOCTYPE html><title>Too many downloads</title>", binary),
        ("{\"msg\": {\"text\": \"Too many downloads\"}}", binary),
    ] {
        let with = [("Content-Type", kind)];
        let url = scene.hub.put_url("/s/weights.pt", bytes.as_bytes(), &with) + "?dl=1";
        let error = scene.fetch(&format!("link:{url}")).expect_err("it is a page");
        assert!(matches!(error, DownloadError::Page { .. }), "{error}");
        // An address that a browser opens.
        assert!(error.to_string().starts_with(&url), "{error}");
        let own = scene.folder.path().join("own");
        assert!(files_below(&own).iter().all(|name| length(&own.join(name)) == 0));
    }
}

/// A safetensors file of one tensor.
fn safetensors(bytes: usize) -> Vec<u8> {
    let header =
        format!(r#"{{"w":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &content(bytes, 20)[..]].concat()
}

#[test]
fn what_is_cut_is_refused_where_no_length_tells_it() {
    let archive = [&content(BYTES, 21)[..], b"PK\x05\x06", &[0u8; 18]].concat();
    let json = br#"{"config": {"depth": 12, "heads": [1, 2]}}"#.to_vec();
    for whole in [safetensors(BYTES), archive, json] {
        let scene = Scene::new();
        let address = scene.hub.put_url(PATH, &whole, &[]);
        for cut in [whole.len() - 1, whole.len() / 2, 12] {
            scene.hub.on("GET", PATH, [Fault::NoLength(cut)]);
            let error = scene.fetch(&address).expect_err("it is cut");
            assert!(matches!(error, DownloadError::Truncated { .. }), "{error}");
            let kept = files_below(&scene.folder.path().join("own"));
            assert!(kept.iter().all(|name| name.ends_with(".incomplete")), "{kept:?}");
        }
        scene.hub.on("GET", PATH, [Fault::NoLength(usize::MAX)]);
        let fetched = scene.fetch(&address).expect("it is whole");
        assert!(is(&fetched.path, &whole));
    }
}

#[test]
fn a_file_whose_end_nothing_tells_needs_a_digest_or_a_size() {
    const PICKLE: &[u8] = b"\x80\x02 a pickle, and behind it storages";
    let is_fetched = |tell: fn(&mut File)| {
        let scene = Scene::new();
        let mut wanted = file(&scene.hub.put_url(PATH, PICKLE, &[]));
        tell(&mut wanted);
        scene.hub.on("GET", PATH, [Fault::NoLength(usize::MAX)]);
        fetch(&scene.downloader(), &wanted).map(|fetched| is(&fetched.path, PICKLE))
    };
    let error = is_fetched(|_| {}).expect_err("it may be cut");
    assert!(matches!(error, DownloadError::Truncated { .. }), "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    let told: [fn(&mut File); 2] =
        [|file| file.sha256 = Some(sha256(PICKLE)), |file| file.bytes = Some(PICKLE.len() as u64)];
    for tell in told {
        assert!(is_fetched(tell).expect("it is whole"));
    }
}

#[test]
fn the_last_chunk_is_an_end() {
    let scene = Scene::new();
    let weights = content(BYTES, 22);
    let address = scene.hub.put_url(PATH, &weights, &[]);
    scene.hub.on("GET", PATH, [Fault::Chunk(CUT), Fault::Chunk(usize::MAX)]);
    let fetched = scene.fetch(&address).expect("it comes again");
    assert!(is(&fetched.path, &weights));
    assert_eq!(scene.ranges(PATH), ["whole", "whole"]);
}

#[test]
fn a_link_leads_to_weights() {
    let scene = Scene::new();
    let mut safetensors = vec![2, 0, 0, 0, 0, 0, 0, 0];
    safetensors.extend_from_slice(b"{}");
    let kinds: [&[u8]; 4] =
        [b"PK\x03\x04 a zip", b"\x80\x02 a pickle", b"\x1f\x8b gzip", &safetensors];
    for (number, bytes) in kinds.into_iter().enumerate() {
        let there = scene.hub.put_url(&format!("/content/{number}.pt"), bytes, &[]);
        let path = format!("/s/{number}.pt");
        scene.hub.on("GET", &path, [Fault::status(302, &[("Location", &there)])]);
        let link = format!("link:{}{path}?dl=1", scene.hub.endpoint());
        let fetched = scene.fetch(&link).expect("it leads somewhere");
        assert!(is(&fetched.path, bytes));
        let again = scene.fetch(&link).expect("it is here");
        assert_eq!((again.path, again.bytes), (fetched.path, 0));
    }
}

#[test]
fn a_signed_redirect_that_expires_is_followed_anew() {
    let scene = Scene::new();
    let weights = content(BYTES, 19);
    let there = scene.hub.put_url("/signed/weights.pth", &weights, &[("ETag", "\"v1\"")]);
    let redirect = || Fault::status(302, &[("Location", &there)]);
    scene.hub.on("GET", "/s/weights.pth", (0..3).map(|_| redirect()));
    let faults = [Fault::CutAfter(CUT), Fault::status(403, &[])];
    scene.hub.on("GET", "/signed/weights.pth", faults);
    let address = format!("{}/s/weights.pth", scene.hub.endpoint());
    let fetched = scene.fetch(&address).expect("it comes");
    assert!(is(&fetched.path, &weights));
    let rest = "bytes=400000-";
    assert_eq!(scene.ranges("/signed/weights.pth"), ["whole", rest, rest]);
}
