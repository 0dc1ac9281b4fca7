//! A Hub, the caches of a machine that fetches from it, and what tests ask of both.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tintype::catalogue::{File, Role};
use tintype_download::{DownloadError, Downloader, Environment, Fetched, State};
use tintype_test_hub::{MAIN_COMMIT, TestHub};

/// The repository of most tests.
pub const REPOSITORY: &str = "maker/model";
/// Bytes of a large file, which takes several reads.
pub const BYTES: usize = 1_000_000;
/// Where its download is interrupted.
pub const CUT: usize = 400_000;

/// A Hub and the caches of a machine.
pub struct Scene {
    pub hub: TestHub,
    pub folder: TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self { hub: TestHub::start(), folder: tempfile::tempdir().expect("a folder") }
    }

    /// What the environment of a download here says.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let below = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            ("HF_ENDPOINT", self.hub.endpoint()),
            ("HF_HOME", below("home")),
            ("HF_HUB_CACHE", below("hub")),
            ("TINTYPE_CACHE", below("own")),
        ]
    }

    /// The environment, with more variables; it never sleeps, and has a disk without an end.
    pub fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let variables = self.variables();
        let mut environment = Environment::of(|name| {
            let added = more.iter().find(|(other, _)| *other == name);
            let here = variables.iter().find(|(other, _)| *other == name);
            added.map(|(_, value)| value.into()).or_else(|| here.map(|(_, value)| value.into()))
        });
        environment.sleep = |_| {};
        environment.free_space = |_| None;
        environment
    }

    pub fn downloader(&self) -> Downloader {
        Downloader::new(self.environment(&[]))
    }

    /// Fetches what is at an address, as a program does that has just been started.
    pub fn fetch(&self, address: &str) -> Result<Fetched, DownloadError> {
        fetch(&self.downloader(), &file(address))
    }

    /// The folder of a repository in Python's cache.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--maker--model")
    }

    pub fn blob(&self, id: &str) -> PathBuf {
        self.repository().join("blobs").join(id)
    }

    pub fn part(&self, id: &str) -> PathBuf {
        self.blob(&format!("{id}.tintype.incomplete"))
    }

    /// Where a file of `main` lies.
    pub fn pointer(&self, path: &str) -> PathBuf {
        self.repository().join("snapshots").join(MAIN_COMMIT).join(path)
    }

    /// What was asked of a file's bytes, in order: a range, or `whole`.
    pub fn ranges(&self, path: &str) -> Vec<String> {
        let gets = self.hub.seen("GET", path);
        gets.iter().map(|get| get.header("Range").unwrap_or("whole").to_string()).collect()
    }

    /// Bytes of a file that the hosts sent.
    pub fn sent(&self, path: &str) -> u64 {
        self.hub.seen("GET", path).iter().map(|get| get.sent).sum()
    }
}

/// The address of a file of the repository, in `main`.
pub fn address(path: &str) -> String {
    format!("hub:{REPOSITORY}/{path}")
}

/// A file at an address, of which nothing else is known.
pub fn file(address: &str) -> File {
    File::at(Role::Network, address.parse().expect("an address"))
}

pub fn fetch(downloader: &Downloader, file: &File) -> Result<Fetched, DownloadError> {
    downloader.fetch(file, &|_| {}, &AtomicBool::new(false))
}

/// Fetches a file until its first bytes are there.
pub fn fetch_a_little(downloader: &Downloader, file: &File) {
    let stop = AtomicBool::new(false);
    let watch = |state: State| {
        if matches!(state, State::Receiving { .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let stopped = downloader.fetch(file, &watch, &stop);
    assert!(matches!(stopped, Err(DownloadError::Stopped)), "{stopped:?}");
}

/// Numbers without a pattern.
pub fn numbers(mut seed: u32) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    }
}

/// Bytes that begin like a zip archive, and then have no pattern.
pub fn content(bytes: usize, seed: u32) -> Vec<u8> {
    let mut random = numbers(seed);
    let mut content = b"PK\x03\x04".to_vec();
    content.resize_with(bytes, || random(256) as u8);
    content
}

/// Whether a file has this content.
pub fn is(path: &Path, content: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|found| found == content)
}

/// Bytes of a file; 0 where there is none.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Makes a link to a file.
pub fn link(target: &Path, name: &Path) {
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, name).expect("a link");
    #[cfg(windows)]
    std::os::windows::fs::symlink_file(target, name).expect("a link");
}

/// Names of all files below a folder, in order.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => {
                let below = files_below(&entry.path());
                files.extend(below.into_iter().map(|file| format!("{name}/{file}")));
            }
            false => files.push(name),
        }
    }
    files.sort();
    files
}
