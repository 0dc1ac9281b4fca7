//! One cache for this library and Python's `huggingface_hub`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tintype_download::Downloader;
use tintype_test_hub::{MAIN_COMMIT, git_sha1, sha256};

use crate::support::{REPOSITORY, Scene, address, fetch, file, files_below, is, link};

/// What `try_to_load_from_cache` returns.
#[derive(Debug, PartialEq, Eq)]
enum Cached {
    File(PathBuf),
    NoExist,
    Unknown,
}

/// `huggingface_hub.try_to_load_from_cache`, by its rules.
fn try_to_load_from_cache(cache: &Path, repository: &str, path: &str, revision: &str) -> Cached {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    // The text of a ref is taken as it is, with whatever stands behind the commit.
    let branch = std::fs::read_to_string(folder.join("refs").join(revision));
    let commit = branch.unwrap_or_else(|_| revision.into());
    if folder.join(".no_exist").join(&commit).join(path).is_file() {
        return Cached::NoExist;
    }
    let mut commits = std::fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    if !commits.any(|entry| entry.file_name() == commit.as_str()) {
        return Cached::Unknown;
    }
    let file = folder.join("snapshots").join(&commit).join(path);
    if file.is_file() { Cached::File(file) } else { Cached::Unknown }
}

/// The same by the library itself; `None` where this machine has none.
fn python_loads(cache: &Path, repository: &str, path: &str) -> Option<String> {
    let script = "import sys\n\
        from huggingface_hub import try_to_load_from_cache as load\n\
        print(load(sys.argv[1], sys.argv[2], cache_dir=sys.argv[3]))";
    let mut command = Command::new("python3");
    command.args(["-c", script, repository, path]).arg(cache);
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[test]
fn a_cache_that_python_made_is_found_without_a_request() {
    let scene = Scene::new();
    let (text, weights) = (&b"{}"[..], &b"weights"[..]);
    let folder = scene.repository();
    let snapshot = folder.join("snapshots").join(MAIN_COMMIT);
    for below in ["blobs", "refs"] {
        std::fs::create_dir_all(folder.join(below)).expect("a folder");
    }
    std::fs::create_dir_all(snapshot.join("deep")).expect("a folder");
    std::fs::write(folder.join("refs/main"), MAIN_COMMIT).expect("a ref");
    let files = [
        ("config.json", git_sha1(text), text, "../../blobs"),
        ("deep/weights.bin", sha256(weights), weights, "../../../blobs"),
    ];
    for (path, id, bytes, blobs) in &files {
        std::fs::write(folder.join("blobs").join(id), bytes).expect("a blob");
        // Component by component: a link of Windows has no '/'.
        let target: PathBuf = blobs.split('/').chain([id.as_str()]).collect();
        link(&target, &snapshot.join(path));
    }
    let offline = Downloader::new(scene.environment(&[("HF_HUB_OFFLINE", "1")]));
    for (path, _, bytes, _) in &files {
        let asked = file(&address(path));
        let found = offline.find(&asked).expect("it is found");
        assert!(found == snapshot.join(path) && is(&found, bytes));
        assert_eq!(fetch(&offline, &asked).expect("it is here").path, found);
    }
    assert_eq!(scene.hub.connections(), 0);
    // A commit that is new has the same contents: they get another name, and are not fetched.
    let later = "2222222222222222222222222222222222222222";
    scene.hub.put(REPOSITORY, "config.json", text);
    scene.hub.put_large(REPOSITORY, "deep/weights.bin", weights);
    scene.hub.branch(REPOSITORY, "main", later);
    for (path, _, bytes, _) in &files {
        let fetched = scene.fetch(&address(path)).expect("it is here");
        assert!(fetched.path == folder.join("snapshots").join(later).join(path));
        assert!(is(&fetched.path, bytes) && fetched.sha256.is_none());
    }
    assert_eq!(scene.hub.seen("GET", "").len(), 0);
}

#[test]
fn python_finds_what_this_library_wrote() {
    let scene = Scene::new();
    let cache = scene.folder.path().join("hub");
    let (text, weights) = (&b"{}"[..], &b"weights"[..]);
    let small = scene.hub.put(REPOSITORY, "config.json", text);
    let large = scene.hub.put_large(REPOSITORY, "deep/er/weights.bin", weights);
    for path in ["config.json", "deep/er/weights.bin"] {
        scene.fetch(&address(path)).expect("it comes");
    }
    scene.fetch(&address("absent.bin")).expect_err("there is none");
    let loads =
        |path: &str, revision: &str| try_to_load_from_cache(&cache, REPOSITORY, path, revision);
    let cases = [
        ("config.json", small, text, "../../blobs"),
        ("deep/er/weights.bin", large, weights, "../../../../blobs"),
    ];
    for (path, id, bytes, blobs) in cases {
        let there = scene.pointer(path);
        assert_eq!(loads(path, "main"), Cached::File(there.clone()));
        assert_eq!(loads(path, MAIN_COMMIT), Cached::File(there.clone()));
        let target = std::fs::read_link(&there).expect("a link");
        assert_eq!(target, Path::new(&format!("{blobs}/{id}")));
        assert!(is(&scene.blob(&id), bytes));
        let lock = cache.join(".locks/models--maker--model").join(format!("{id}.lock"));
        assert!(lock.is_file(), "Python waits for it");
        match python_loads(&cache, REPOSITORY, path) {
            Some(loaded) => assert_eq!(Path::new(&loaded), there),
            // Not through `eprintln`, which a test that passes swallows.
            None => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: python3 has no huggingface_hub");
            }
        }
    }
    assert_eq!(loads("absent.bin", "main"), Cached::NoExist);
    assert_eq!(loads("other.bin", "main"), Cached::Unknown);
    assert_eq!(loads("config.json", "v1"), Cached::Unknown);
    let tag = std::fs::read_to_string(cache.join("CACHEDIR.TAG")).expect("a tag");
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
}

#[test]
fn without_links_a_file_lies_in_its_snapshot() {
    let scene = Scene::new();
    let (text, weights) = (&b"{}"[..], &b"weights"[..]);
    scene.hub.put(REPOSITORY, "config.json", text);
    for path in ["weights.bin", "deep/copy.bin"] {
        scene.hub.put_large(REPOSITORY, path, weights);
    }
    let downloader = Downloader::new(scene.environment(&[("HF_HUB_DISABLE_SYMLINKS", "1")]));
    for (path, bytes) in
        [("config.json", text), ("weights.bin", weights), ("deep/copy.bin", weights)]
    {
        let asked = file(&address(path));
        let fetched = fetch(&downloader, &asked).expect("it comes");
        assert!(!fetched.path.is_symlink() && is(&fetched.path, bytes));
        assert_eq!(downloader.find(&asked), Some(fetched.path));
        let gets = scene.hub.seen("GET", path).len();
        fetch(&downloader, &asked).expect("it is here");
        assert_eq!(scene.hub.seen("GET", path).len(), gets);
    }
    assert!(files_below(&scene.repository().join("blobs")).is_empty(), "it would be there twice");
    // A blob that another program made stays, and is copied.
    let linked = scene.downloader();
    scene.hub.put_large(REPOSITORY, "old.bin", b"old");
    fetch(&linked, &file(&address("old.bin"))).expect("it comes");
    let copy = scene.hub.put_large(REPOSITORY, "new.bin", b"old");
    let fetched = fetch(&downloader, &file(&address("new.bin"))).expect("it is here");
    assert!(!fetched.path.is_symlink() && is(&fetched.path, b"old"));
    assert!(is(&scene.blob(&copy), b"old") && is(&scene.pointer("old.bin"), b"old"));
}
