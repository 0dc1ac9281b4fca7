//! Zip archives, and links inside them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::container::{Container, Listing, Location};
use super::links::Members;
use super::names::normal;
use super::{SourceError, error, failed};
use crate::data::positioned::{Positioned, is_of_system};

/// Lists a zip archive.
pub(super) fn list_zip(path: &Path) -> Result<(Container, Listing), SourceError> {
    let file = Positioned::open(path).map_err(|e| error(path, e))?;
    let archive = ZipArchive::new(file.whole()).map_err(|e| match e {
        ZipError::Io(e) if is_of_system(&e) => failed(path, &e),
        e => error(path, format!("damaged archive: {e}")),
    })?;
    let list = file.rest(archive.central_directory_start()).map_err(|e| error(path, e))?;
    let links = links_in_zip(&list);
    drop(list);
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
            let read = archive.by_index(index).and_then(|file| {
                // Longer than any path is.
                Ok(file.take(1 << 16).read_to_string(&mut target)?)
            });
            match read {
                Ok(_) => members.symbolic(name, &target),
                Err(ZipError::Io(e)) if is_of_system(&e) => return Err(failed(path, &e)),
                Err(_) => listing.skip(name, "a symbolic link"),
            }
        } else {
            members.file(name, Location::Zip(index));
        }
    }
    members.list("", &mut listing).map_err(|e| error(path, e))?;
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
