//! What lies in a folder or an archive.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::{SourceError, error};
use crate::data::hdf5::Hdf5Store;
use crate::data::positioned::{Part, Positioned};

/// Where images are read from.
pub(super) enum Container {
    /// Below a folder, and in tar archives.
    Files {
        root: PathBuf,
        archives: Vec<Archive>,
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
}

impl Listing {
    /// Adds a file, and the folders that it is in.
    pub fn add(&mut self, name: String, location: Location) {
        self.add_folders_of(&name);
        self.files.push((name, location));
    }

    /// Adds the folders that a file is in.
    pub fn add_folders_of(&mut self, name: &str) {
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

/// Archives that are held open; a web dataset may have more shards than a process may have open files.
const MOST_OPEN: usize = 64;

/// A tar archive.
pub(super) struct Archive {
    pub path: PathBuf,
    /// Absent of one that is opened for each item.
    file: Option<Positioned>,
}

impl Archive {
    /// The archive behind so many others.
    pub fn new(path: PathBuf, file: Positioned, others: usize) -> Self {
        Self { path, file: (others < MOST_OPEN).then_some(file) }
    }

    fn read(&self, start: u64, len: u64) -> io::Result<Vec<u8>> {
        match &self.file {
            Some(file) => file.read(start, len),
            None => Positioned::open(&self.path)?.read(start, len),
        }
    }
}

impl Container {
    /// The bytes at a location.
    pub fn read(&self, name: &str, location: &Location) -> Result<Vec<u8>, SourceError> {
        match (self, location) {
            (Self::Files { root, .. }, Location::File(below)) => {
                let path = root.join(below);
                std::fs::read(&path).map_err(|e| error(&path, e))
            }
            (Self::Hdf5(store), Location::Hdf5(name)) => {
                store.bytes(name).map_err(|e| error(Path::new(name), e))
            }
            (Self::Files { archives, .. }, Location::Range { archive, start, len }) => {
                let archive = &archives[*archive];
                archive.read(*start, *len).map_err(|e| error(&archive.path, e))
            }
            (Self::Zip(path, archive), Location::Zip(index)) => {
                let failed = |e: &dyn std::fmt::Display| error(&path.join(name), e);
                let mut archive = archive.clone(); // shares the list of files
                let mut file = archive.by_index(*index).map_err(|e| failed(&e))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
                Ok(bytes)
            }
            _ => unreachable!("items are read from the container that listed them"),
        }
    }
}
