//! What lies in a folder or an archive.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::{SourceError, error};
use crate::data::hdf5::Hdf5Store;

/// Where images are read from.
pub(super) enum Container {
    Folder(PathBuf),
    Tars(Vec<(PathBuf, Mmap)>),
    Zip(PathBuf, Box<ZipArchive<Cursor<Shared>>>),
    Hdf5(Box<Hdf5Store>),
}

/// Where an item's bytes are in its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Below the folder.
    File(PathBuf),
    /// In one of the archives.
    Range { archive: usize, start: usize, len: usize },
    /// In the archive's list.
    Zip(usize),
    /// By its name.
    Hdf5,
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
            if !self.folders.insert(folder.to_string()) {
                break;
            }
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
        let skipped = std::mem::take(&mut self.skipped).into_iter();
        self.skipped = skipped
            .filter_map(|Skipped { name, reason }| Some(Skipped { name: below(&name)?, reason }))
            .collect();
    }
}

/// A mapped file that several readers share.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps a file.
pub(super) fn map(path: &Path) -> Result<Mmap, SourceError> {
    let file = File::open(path).map_err(|e| error(path, e))?;
    // SAFETY: the archive must not shrink while it is read; it is the user's data set.
    unsafe { Mmap::map(&file) }.map_err(|e| error(path, e))
}

impl Container {
    /// The bytes at a location.
    pub fn read(&self, name: &str, location: &Location) -> Result<Cow<'_, [u8]>, SourceError> {
        match (self, location) {
            (Self::Folder(root), Location::File(below)) => {
                let path = root.join(below);
                std::fs::read(&path).map(Cow::Owned).map_err(|e| error(&path, e))
            }
            (Self::Hdf5(store), _) => {
                store.bytes(name).map(Cow::Owned).map_err(|e| error(Path::new(name), e))
            }
            (Self::Tars(maps), Location::Range { archive, start, len }) => {
                Ok(Cow::Borrowed(&maps[*archive].1[*start..start + len]))
            }
            (Self::Zip(path, archive), Location::Zip(index)) => {
                let failed = |e: &dyn std::fmt::Display| error(path, format!("{name}: {e}"));
                let mut archive = archive.clone(); // shares the list of files
                let mut file = archive.by_index(*index).map_err(|e| failed(&e))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
                Ok(Cow::Owned(bytes))
            }
            _ => unreachable!("items are read from the container that listed them"),
        }
    }
}

/// Lists a folder, links inside it included.
pub(super) fn list_folder(root: &Path) -> Result<(Container, Listing), SourceError> {
    let mut listing = Listing::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let folder = root.join(&below);
        for entry in std::fs::read_dir(&folder).map_err(|e| error(&folder, e))? {
            let entry = entry.map_err(|e| error(&folder, e))?;
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            let name = slashed(&below);
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if path.is_dir() {
                if is_link && is_around(&path) {
                    listing.skip(name, "a link to a folder around it");
                    continue;
                }
                listing.folders.insert(name);
                folders.push(below);
            } else if is_link && !path.exists() {
                listing.skip(name, "a link to a file that is not there");
            } else if path.is_file() {
                listing.add(name, Location::File(below));
            } else {
                listing.skip(name, "not a regular file");
            }
        }
    }
    Ok((Container::Folder(root.into()), listing))
}

/// A path's parts with `/` between them; what is not UTF-8 is replaced.
fn slashed(path: &Path) -> String {
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Whether a link leads to a folder that it lies in.
fn is_around(link: &Path) -> bool {
    let parent = link.parent().and_then(|parent| parent.canonicalize().ok());
    match (link.canonicalize(), parent) {
        (Ok(target), Some(parent)) => parent.starts_with(target),
        _ => false,
    }
}

/// Lists a zip archive.
pub(super) fn list_zip(path: &Path) -> Result<(Container, Listing), SourceError> {
    let map = Shared(Arc::new(map(path)?));
    let archive = ZipArchive::new(Cursor::new(map))
        .map_err(|e| error(path, format!("damaged archive: {e}")))?;
    let mut listing = Listing::default();
    for index in 0..archive.len() {
        let Some(name) = archive.name_for_index(index) else { continue };
        let name = match name {
            Ok(name) => name.into_owned(),
            Err(e) => {
                listing.skip(format!("entry {index}"), e.to_string());
                continue;
            }
        };
        // Archives of PowerShell 5 have backslashes between folders.
        let name = if name.contains('/') { name } else { name.replace('\\', "/") };
        let name = name.trim_start_matches("./").trim_start_matches('/');
        match name.strip_suffix('/') {
            Some(folder) => {
                listing.folders.insert(folder.into());
                listing.add_folders_of(folder);
            }
            None => listing.add(name.into(), Location::Zip(index)),
        }
    }
    Ok((Container::Zip(path.into(), Box::new(archive)), listing))
}
