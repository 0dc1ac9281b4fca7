//! What lies in a folder or an archive.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::links::Members;
use super::{SourceError, error};
use crate::data::hdf5::Hdf5Store;

/// Where images are read from.
pub(super) enum Container {
    /// Below a folder, and in tar archives.
    Files {
        root: PathBuf,
        archives: Vec<(PathBuf, Mmap)>,
    },
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
        self.shards = self.shards.iter().filter_map(|name| below(name)).collect();
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
            (Self::Files { root, .. }, Location::File(below)) => {
                let path = root.join(below);
                std::fs::read(&path).map(Cow::Owned).map_err(|e| error(&path, e))
            }
            (Self::Hdf5(store), Location::Hdf5(name)) => {
                store.bytes(name).map(Cow::Owned).map_err(|e| error(Path::new(name), e))
            }
            (Self::Files { archives, .. }, Location::Range { archive, start, len }) => {
                Ok(Cow::Borrowed(&archives[*archive].1[*start..start + len]))
            }
            (Self::Zip(path, archive), Location::Zip(index)) => {
                let failed = |e: &dyn std::fmt::Display| error(&path.join(name), e);
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
    // Each with the folders that it lies in, links resolved.
    let top = root.canonicalize().unwrap_or_else(|_| root.into());
    let mut folders = vec![(PathBuf::new(), vec![top])];
    while let Some((below, around)) = folders.pop() {
        let folder = root.join(&below);
        for entry in std::fs::read_dir(&folder).map_err(|e| error(&folder, e))? {
            let entry = entry.map_err(|e| error(&folder, e))?;
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            let name = slashed(&below);
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if path.is_dir() {
                let real = path.canonicalize().map_err(|e| error(&path, e))?;
                if is_link && around.iter().any(|folder| folder.starts_with(&real)) {
                    listing.skip(name, "a link to a folder around it");
                    continue;
                }
                listing.folders.insert(name);
                folders.push((below, [around.as_slice(), &[real]].concat()));
            } else if is_link && !path.exists() {
                listing.skip(name, "a link to a file that is not there");
            } else if path.is_file() {
                listing.add(name, Location::File(below));
            } else {
                listing.skip(name, "not a regular file");
            }
        }
    }
    Ok((Container::Files { root: root.into(), archives: Vec::new() }, listing))
}

/// A path's parts with `/` between them.
fn slashed(path: &Path) -> String {
    path.iter().map(|part| readable(part.as_encoded_bytes())).collect::<Vec<_>>().join("/")
}

/// A name as text. Bytes that are not UTF-8 become `\xE9`, so that no two names become the same: a backslash of
/// a name that looks like that is `\x5C`.
pub(super) fn readable(bytes: &[u8]) -> String {
    if let Ok(name) = std::str::from_utf8(bytes)
        && !name.contains("\\x")
    {
        return name.into();
    }
    let mut name = String::new();
    for chunk in bytes.utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', "\\x5C"));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(name, "\\x{byte:02X}");
        }
    }
    name
}

/// A path without `.` and `..`, and without `/` at its ends.
pub(super) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A path as a person or a list may write it.
pub(super) fn normal_of_any(path: &str) -> String {
    normal(&path.replace('\\', "/"))
}

/// Lists a zip archive.
pub(super) fn list_zip(path: &Path) -> Result<(Container, Listing), SourceError> {
    let map = Shared(Arc::new(map(path)?));
    let archive = ZipArchive::new(Cursor::new(map.clone()))
        .map_err(|e| error(path, format!("damaged archive: {e}")))?;
    let start = usize::try_from(archive.central_directory_start()).unwrap_or(usize::MAX);
    let links = links_in_zip(map.as_ref().get(start..).unwrap_or_default());
    let mut listing = Listing::default();
    let mut names = Vec::new();
    for index in 0..archive.len() {
        match archive.name_for_index(index) {
            Some(Ok(name)) => names.push((index, name.into_owned())),
            Some(Err(_)) => listing.skip(format!("entry {index}"), "its name cannot be read"),
            None => {}
        }
    }
    // Archives of PowerShell 5 have backslashes between folders.
    let is_windows = names.iter().any(|(_, name)| name.contains('\\') && !name.contains('/'));
    let mut members = Members::default();
    for (index, raw) in names {
        let any = if is_windows { raw.replace('\\', "/") } else { raw.clone() };
        let name = normal(&any);
        if name.is_empty() {
            continue;
        }
        if any.ends_with('/') {
            listing.add_folders_of(&name);
            listing.folders.insert(name);
        } else if links.contains(raw.as_bytes()) {
            let mut target = String::new();
            let mut archive = archive.clone(); // shares the list of files
            let read = archive.by_index(index).ok().and_then(|file| {
                // Longer than any path is.
                file.take(1 << 16).read_to_string(&mut target).ok()
            });
            match read {
                Some(_) => members.symbolic(name, &target),
                None => listing.skip(name, "a symbolic link"),
            }
        } else {
            members.file(name, Location::Zip(index));
        }
    }
    members.list("", &mut listing);
    Ok((Container::Zip(path.into(), Box::new(archive)), listing))
}

/// Names of the symbolic links in a zip archive's list of files.
fn links_in_zip(mut list: &[u8]) -> BTreeSet<Vec<u8>> {
    const HEADER: usize = 46;
    let mut links = BTreeSet::new();
    while list.starts_with(b"PK\x01\x02") && list.len() >= HEADER {
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([list[at], list[at + 1]]));
        let end = HEADER + u16_at(28);
        let Some(name) = list.get(HEADER..end) else { break };
        // The upper half of the attributes is the mode, where the archive is of Unix or of macOS.
        let is_link = matches!(list[5], 3 | 19) && u16_at(40) & 0o170_000 == 0o120_000;
        match is_link {
            true => links.insert(name.to_vec()),
            false => links.remove(name),
        };
        let next = end + u16_at(30) + u16_at(32);
        list = list.get(next..).unwrap_or_default();
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_utf_8_stay_apart() {
        let names: [&[u8]; 5] = [b"caf\xe9", b"caf\xe8", b"caf\\xE9", b"a\\b", b"caf\xc3\xa9"];
        let readable = names.map(readable);
        assert_eq!(readable[0], "caf\\xE9");
        assert_eq!(readable[3], "a\\b");
        assert_eq!(readable.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
