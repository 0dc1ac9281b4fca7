//! What lies in a folder or an archive.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use zip::ZipArchive;
use zip::result::ZipError;

use super::links::Made;
use super::{SourceError, error, failed, unreadable};
use crate::data::hdf5::Hdf5Store;
use crate::data::positioned::{MOST_BYTES, Part, Positioned, Stamp, too_long};

/// Where images are read from.
pub(super) enum Container {
    /// Below a folder, and in tar archives.
    Files {
        root: PathBuf,
        archives: Archives,
    },
    Zip(PathBuf, Box<ZipArchive<Part>>),
    Hdf5(Box<Hdf5Store>),
}

/// Where an item's bytes are in its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Below the folder.
    File(PathBuf),
    /// In one of the archives.
    Range { archive: usize, start: u64, len: u64 },
    /// In the archive's list.
    Zip(usize),
    /// By its name in the store.
    Hdf5(String),
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name inside the source.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Bytes of the longest name that is listed: that of the longest path on Linux.
const LONGEST_NAME: usize = 4096;
/// Folders around a file that is listed, at most; each is kept by its whole path.
const DEEPEST: usize = 128;

/// Whether a name is one that only a hostile or damaged archive has.
pub(super) fn is_too_long(name: &str) -> bool {
    name.len() > LONGEST_NAME || name.matches('/').count() > DEEPEST
}

/// The beginning of a long name, for a message.
pub(super) fn beginning(name: &str) -> String {
    let start: String = name.chars().take(100).collect();
    format!("{start}…")
}

/// Everything in a container, by names with `/` between folders.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub files: Vec<(String, Location)>,
    /// All folders, empty ones too.
    pub folders: BTreeSet<String>,
    /// What cannot be read.
    pub skipped: Vec<Skipped>,
    /// Folders that are archives of a folder.
    pub shards: BTreeSet<String>,
    /// What links in archives have made of it.
    pub made: Made,
}

impl Listing {
    /// Adds a file, and the folders that it is in.
    pub fn add(&mut self, name: String, location: Location) {
        if self.takes(&name) {
            self.add_folders_of(&name);
            self.files.push((name, location));
        }
    }

    /// Whether a name can be listed; one that is too long is left out.
    pub fn takes(&mut self, name: &str) -> bool {
        let takes = !is_too_long(name);
        if !takes {
            self.skip(beginning(name), "its name is longer than paths are");
        }
        takes
    }

    /// Adds the folders that a file is in.
    pub fn add_folders_of(&mut self, name: &str) {
        if is_too_long(name) {
            return;
        }
        let mut path = name;
        while let Some((folder, _)) = path.rsplit_once('/') {
            if self.folders.contains(folder) {
                break;
            }
            self.folders.insert(folder.to_string());
            path = folder;
        }
    }

    /// Leaves a file out.
    pub fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.skipped.push(Skipped { name: name.into(), reason: reason.into() });
    }

    /// Keeps what lies below a folder.
    pub fn within(&mut self, folder: &str) {
        let prefix = format!("{folder}/");
        let below = |name: &str| name.strip_prefix(&prefix).map(String::from);
        let files = std::mem::take(&mut self.files).into_iter();
        self.files = files.filter_map(|(name, at)| Some((below(&name)?, at))).collect();
        self.folders = self.folders.iter().filter_map(|name| below(name)).collect();
        self.shards = self.shards.iter().filter_map(|name| below(name)).collect();
        let skipped = std::mem::take(&mut self.skipped).into_iter();
        self.skipped = skipped
            .filter_map(|Skipped { name, reason }| Some(Skipped { name: below(&name)?, reason }))
            .collect();
    }
}

/// Archives that are open at a time; a web dataset may have more shards than a process may have open files.
const MOST_OPEN: usize = 64;

/// Tar archives by their numbers.
#[derive(Default)]
pub(super) struct Archives {
    listed: Vec<(PathBuf, Stamp)>,
    /// Those that were used last, with the latest at the end.
    open: Mutex<Vec<(usize, Positioned)>>,
}

impl Archives {
    /// How many there are, and so the number of the next one.
    pub fn count(&self) -> usize {
        self.listed.len()
    }

    /// Their paths in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.listed.iter().map(|(path, _)| path.as_path())
    }

    /// Adds one.
    pub fn push(&mut self, path: PathBuf, file: Positioned) {
        let number = self.count();
        self.listed.push((path, file.stamp()));
        self.keep(number, file);
    }

    fn open(&self) -> MutexGuard<'_, Vec<(usize, Positioned)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one open in place of the one that was not used for the longest time.
    fn keep(&self, number: usize, file: Positioned) {
        let mut open = self.open();
        // Another thread may have opened it meanwhile.
        if open.iter().any(|(kept, _)| *kept == number) {
            return;
        }
        if open.len() >= MOST_OPEN {
            open.remove(0);
        }
        open.push((number, file));
    }

    /// One that is open.
    fn kept(&self, number: usize) -> Option<Positioned> {
        let mut open = self.open();
        let at = open.iter().rposition(|(kept, _)| *kept == number)?;
        open[at..].rotate_left(1);
        open.last().map(|(_, file)| file.clone())
    }

    /// Bytes of an archive.
    fn read(&self, number: usize, start: u64, len: u64) -> Result<Vec<u8>, SourceError> {
        let (path, stamp) = &self.listed[number];
        let read = || {
            let file = match self.kept(number) {
                Some(file) => file,
                None => {
                    // The others do not wait for a server to open it.
                    let file = Positioned::reopen(path, *stamp)?;
                    self.keep(number, file.clone());
                    file
                }
            };
            file.read(start, len)
        };
        read().map_err(|e: io::Error| failed(path, &e))
    }
}

impl Container {
    /// The bytes at a location.
    pub fn read(&self, name: &str, location: &Location) -> Result<Vec<u8>, SourceError> {
        match (self, location) {
            (Self::Files { root, .. }, Location::File(below)) => {
                let path = root.join(below);
                std::fs::read(&path).map_err(|e| unreadable(&path, e))
            }
            (Self::Hdf5(store), Location::Hdf5(name)) => store.bytes(name).map_err(|e| {
                let of_system = e.is_of_system();
                SourceError { of_system, ..error(Path::new(name), e) }
            }),
            (Self::Files { archives, .. }, Location::Range { archive, start, len }) => {
                archives.read(*archive, *start, *len)
            }
            (Self::Zip(path, archive), Location::Zip(index)) => {
                let path = path.join(name);
                let mut archive = archive.clone(); // shares the list of files
                let mut file = archive.by_index(*index).map_err(|e| match e {
                    ZipError::Io(e) => failed(&path, &e),
                    e => error(&path, e),
                })?;
                // More than it says to have is an error of the archive.
                if file.size() > MOST_BYTES {
                    return Err(error(&path, too_long(file.size())));
                }
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|e| failed(&path, &e))?;
                Ok(bytes)
            }
            _ => unreachable!("items are read from the container that listed them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_longer_than_a_path_is_left_out() {
        let mut listing = Listing::default();
        // Its folders alone would be a gigabyte of names.
        listing.add("a/".repeat(1 << 15) + "0.png", Location::Zip(0));
        listing.add_folders_of(&"b/".repeat(1 << 15));
        assert!(listing.files.is_empty() && listing.folders.is_empty());
        assert_eq!(listing.skipped[0].reason, "its name is longer than paths are");
        listing.add("a/".repeat(DEEPEST) + "0.png", Location::Zip(0));
        assert_eq!((listing.files.len(), listing.folders.len()), (1, DEEPEST));
    }

    #[test]
    fn the_archives_that_were_used_last_stay_open() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |i: usize| place.path().join(format!("{i:03}.tar"));
        let count = MOST_OPEN + 3;
        let mut archives = Archives::default();
        for i in 0..count {
            std::fs::write(path(i), format!("{i:03}")).expect("it is written");
            archives.push(path(i), Positioned::open(&path(i)).expect("it opens"));
        }
        let numbers = || archives.open().iter().map(|(number, _)| *number).collect::<Vec<_>>();
        assert_eq!(numbers(), (3..count).collect::<Vec<_>>());
        let read = |i: usize| archives.read(i, 0, 3).map_err(|e| e.to_string());
        // One that is open comes to the end, and one that is not takes the place of the first.
        assert_eq!(read(3), Ok(b"003".to_vec()));
        assert_eq!(read(0), Ok(b"000".to_vec()));
        let expected: Vec<usize> = (5..count).chain([3, 0]).collect();
        assert_eq!(numbers(), expected);
        assert!(archives.paths().eq((0..count).map(path)));
        // Nothing but what was listed is read.
        std::fs::write(path(1), "another").expect("it is written");
        std::fs::remove_file(path(2)).expect("it was there");
        for i in [1, 2] {
            let error = archives.read(i, 0, 3).expect_err("it is not what was listed");
            assert!(error.is_of_system(), "{error}");
            assert!(error.to_string().contains(&format!("{i:03}.tar")), "{error}");
        }
        assert_eq!(numbers(), expected);
    }
}
