//! A file that is not here yet.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tintype::catalogue::File;
use tintype_download::DownloadError;
use tintype_test_hub::{Fault, Host, MAIN_COMMIT, git_sha1, sha256};

use crate::support::{BYTES, REPOSITORY, Scene, address, content, fetch, file, files_below, is};

/// A commit after that of `main`.
const LATER: &str = "2222222222222222222222222222222222222222";

#[test]
fn a_small_file_comes_from_the_hub_itself() {
    let scene = Scene::new();
    let text = b"{\"width\": 8}\n";
    let id = scene.hub.put(REPOSITORY, "deep/config.json", text);
    assert_eq!(id, git_sha1(text));
    let fetched = scene.fetch(&address("deep/config.json")).expect("it comes");
    assert_eq!(fetched.path, scene.pointer("deep/config.json"));
    assert_eq!((fetched.bytes, fetched.commit.as_deref()), (13, Some(MAIN_COMMIT)));
    assert_eq!(fetched.sha256, Some(sha256(text)));
    assert!(is(&fetched.path, text) && is(&scene.blob(&id), text));
    let link = std::fs::read_link(&fetched.path).expect("a link");
    assert_eq!(link, Path::new(&format!("../../../blobs/{id}")));
    let branch = std::fs::read_to_string(scene.repository().join("refs/main"));
    assert_eq!(branch.expect("it is noted"), MAIN_COMMIT);
    // The question leads to another address of the Hub, whose bytes are then fetched.
    let requests = scene.hub.requests();
    let methods: Vec<&str> = requests.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["HEAD", "HEAD", "GET"]);
    assert!(requests.iter().all(|request| request.header("Accept-Encoding") == Some("identity")));
    assert!(requests.iter().all(|request| request.host == Host::Hub));
}

#[test]
fn a_large_file_comes_from_the_content_network() {
    let scene = Scene::new();
    let weights = content(BYTES, 1);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    assert_eq!(id, sha256(&weights));
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes");
    // The redirect has a length, too, that of its own text.
    assert_eq!((fetched.bytes, fetched.sha256.as_ref()), (BYTES as u64, Some(&id)));
    assert!(is(&fetched.path, &weights) && is(&scene.blob(&id), &weights));
    let requests = scene.hub.requests();
    let asked: Vec<(Host, &str)> =
        requests.iter().map(|request| (request.host, request.method.as_str())).collect();
    assert_eq!(asked, [(Host::Hub, "HEAD"), (Host::Cdn, "GET")]);
    assert_eq!(files_below(&scene.repository().join("blobs")), [id]);
}

#[test]
fn an_empty_file_is_a_file() {
    let scene = Scene::new();
    let id = scene.hub.put(REPOSITORY, "empty.txt", b"");
    let fetched = scene.fetch(&address("empty.txt")).expect("it comes");
    assert!(is(&fetched.path, b"") && is(&scene.blob(&id), b""));
}

#[test]
fn names_are_encoded_once_and_branches_may_have_folders() {
    let scene = Scene::new();
    let (small, large) = ("file name with [brackets] and %.pt", "ä & b.bin");
    scene.hub.put(REPOSITORY, small, b"small");
    scene.hub.put_large(REPOSITORY, large, b"large");
    scene.hub.branch(REPOSITORY, "refs/pr/1", LATER);
    for (name, bytes) in [(small, b"small"), (large, b"large")] {
        let asked = file(&format!("hub:{REPOSITORY}/{name}@refs/pr/1"));
        let fetched = fetch(&scene.downloader(), &asked).expect("it comes");
        assert_eq!(fetched.path, scene.repository().join("snapshots").join(LATER).join(name));
        assert!(is(&fetched.path, bytes));
        assert_eq!(scene.downloader().find(&asked), Some(fetched.path));
    }
    assert_eq!(
        scene.hub.requests()[0].target,
        "/maker/model/resolve/refs%2Fpr%2F1/file%20name%20with%20%5Bbrackets%5D%20and%20%25.pt"
    );
    assert!(is(&scene.repository().join("refs/refs/pr/1"), LATER.as_bytes()));
}

#[test]
fn data_sets_have_folders_of_their_own() {
    let scene = Scene::new();
    scene.hub.put_large("datasets/maker/data", "splits/split_aa", b"latents");
    let fetched = scene.fetch("hub:datasets/maker/data/splits/split_aa").expect("it comes");
    assert!(is(&fetched.path, b"latents"));
    assert!(fetched.path.starts_with(scene.folder.path().join("hub/datasets--maker--data")));
    assert_eq!(scene.hub.requests()[0].target, "/datasets/maker/data/resolve/main/splits/split_aa");
}

#[test]
fn a_branch_that_moved_has_a_new_file_and_the_old_one_stays() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"old");
    scene.hub.put(REPOSITORY, "config.json", b"{}");
    let old = scene.fetch(&address("weights.bin")).expect("it comes");
    scene.hub.branch(REPOSITORY, "main", LATER);
    scene.hub.put_large(REPOSITORY, "weights.bin", b"new");
    let new = scene.fetch(&address("weights.bin")).expect("it comes");
    assert_eq!(new.commit.as_deref(), Some(LATER));
    assert!(is(&old.path, b"old") && is(&new.path, b"new"));
    assert_eq!(scene.downloader().find(&file(&address("weights.bin"))), Some(new.path));
    let asked = scene.hub.seen("GET", "weights.bin").len();
    let again = scene.fetch(&address("weights.bin")).expect("it is here");
    assert_eq!((again.bytes, again.sha256), (0, None));
    assert_eq!(scene.hub.seen("GET", "weights.bin").len(), asked);
}

#[test]
fn wrong_bytes_are_deleted() {
    let scene = Scene::new();
    let small = scene.hub.put(REPOSITORY, "config.json", b"{}");
    let large = scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let wrong = [!b'w', !b'e', !b'i', !b'g', !b'h', !b't', !b's'];
    let cases = [
        ("config.json", small, "git SHA-1", git_sha1(&[!b'{', !b'}'])),
        ("weights.bin", large, "SHA-256", sha256(&wrong)),
    ];
    for (path, id, algorithm, found) in cases {
        scene.hub.on("GET", path, [Fault::WrongBytes]);
        let error = scene.fetch(&address(path)).expect_err("it is another content");
        assert!(matches!(error, DownloadError::Digest { .. }), "{error}");
        let said = error.to_string();
        for part in [path, algorithm, &id[..12], &found[..12]] {
            assert!(said.contains(part), "{said}: {part}");
        }
        assert!(!scene.blob(&id).exists() && !scene.part(&id).exists());
        assert!(!scene.pointer(path).exists());
        scene.fetch(&address(path)).expect("the next one is right");
    }
}

#[test]
fn another_file_than_the_catalogue_describes_is_not_fetched() {
    let scene = Scene::new();
    scene.hub.put_large(REPOSITORY, "weights.bin", b"weights");
    let mut described = file(&address("weights.bin"));
    described.sha256 = Some(sha256(b"others"));
    let error = fetch(&scene.downloader(), &described).expect_err("another digest");
    assert!(matches!(error, DownloadError::Changed { what: "SHA-256", .. }), "{error}");
    described.sha256 = Some(sha256(b"weights"));
    described.bytes = Some(8);
    let error = fetch(&scene.downloader(), &described).expect_err("another size");
    assert!(error.to_string().contains("size is 7, not 8"), "{error}");
    assert_eq!(scene.hub.seen("GET", "").len(), 0);
    described.bytes = Some(7);
    fetch(&scene.downloader(), &described).expect("it is as described");
}

#[test]
fn a_pinned_digest_counts_beside_gits() {
    let scene = Scene::new();
    let id = scene.hub.put(REPOSITORY, "config.json", b"{}");
    let mut described = file(&address("config.json"));
    described.sha256 = Some(sha256(b"[]"));
    let error = fetch(&scene.downloader(), &described).expect_err("another digest");
    assert!(matches!(error, DownloadError::Digest { algorithm: "SHA-256", .. }), "{error}");
    assert!(!scene.blob(&id).exists());
}

#[test]
fn a_file_of_the_cache_is_held_to_the_catalogue() {
    let scene = Scene::new();
    let weights = content(1000, 45);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    let plain = file(&address("weights.bin"));
    let downloader = scene.downloader();
    fetch(&downloader, &plain).expect("it comes");
    let other = File { sha256: Some("0".repeat(64)), ..plain.clone() };
    let longer = File { bytes: Some(1001), ..plain.clone() };
    let same = File { bytes: Some(1000), sha256: Some(id), ..plain };
    assert!(downloader.find(&same).is_some());
    for wrong in [other, longer] {
        assert!(downloader.find(&wrong).is_none());
        let error = fetch(&downloader, &wrong).expect_err("it is another file");
        assert!(matches!(error, DownloadError::Changed { .. }), "{error}");
    }
}

#[test]
fn a_damaged_content_is_fetched_again() {
    let scene = Scene::new();
    let weights = content(1000, 46);
    let id = scene.hub.put_large(REPOSITORY, "weights.bin", &weights);
    std::fs::create_dir_all(scene.repository().join("blobs")).expect("a folder");
    std::fs::write(scene.blob(&id), &weights[..5]).expect("a part under the whole's name");
    let fetched = scene.fetch(&address("weights.bin")).expect("it comes");
    assert!(is(&fetched.path, &weights));
}

#[test]
fn files_of_a_repository_stay_together_while_its_branch_moves() {
    let scene = Scene::new();
    let (one, two) = (content(1000, 47), content(1000, 48));
    scene.hub.put_large(REPOSITORY, "one.bin", &one);
    scene.hub.put_large(REPOSITORY, "two.bin", &two);
    let (first, second) = (file(&address("one.bin")), file(&address("two.bin")));
    let downloader = scene.downloader();
    let stop = AtomicBool::new(false);
    fetch(&downloader, &first).expect("it comes");
    scene.hub.branch(REPOSITORY, "main", LATER);
    let newer = downloader.newer(&first, &|_| {}, &stop);
    assert_eq!(newer.expect("it is asked"), None, "the same content");
    let fetched = downloader.complete(&second, &|_| {}, &stop).expect("it comes");
    assert_eq!(fetched.commit.as_deref(), Some(MAIN_COMMIT));
    fetch(&downloader, &first).expect("the branch is asked");
    let asked = scene.hub.requests().len();
    let found = downloader.find(&second).expect("it is here, of the commit before");
    assert!(is(&found, &two));
    assert_eq!(scene.hub.requests().len(), asked);
}
