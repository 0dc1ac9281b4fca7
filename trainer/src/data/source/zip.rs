//! Zip archives, and links inside them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::container::{Container, Listing, Location, is_too_long};
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
        if name.is_empty() || !listing.takes(&name) {
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
                // No member has such a name.
                Ok(_) if is_too_long(&target) => {
                    listing.skip(name, "a link to what is not in the archive");
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_files_and_links_with_endless_names_are_left_out() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("x.zip");
        let deep = "d/".repeat(20_000);
        let options = zip::write::SimpleFileOptions::default();
        let file = std::fs::File::create(&path).expect("a file");
        let mut writer = zip::ZipWriter::new(file);
        writer.add_directory(deep.as_str(), options).expect("it fits");
        writer.add_symlink("link", &deep, options).expect("it fits");
        writer.start_file(format!("{deep}0.png"), options).expect("it fits");
        writer.start_file("b/0.png", options).expect("it fits");
        writer.finish().expect("it ends");
        let (_, listing) = list_zip(&path).expect("it is listed");
        let files: Vec<&str> = listing.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(files, ["b/0.png"]);
        assert_eq!(listing.folders, BTreeSet::from(["b".to_string()]));
        let long = (103, "its name is longer than paths are");
        let link = (4, "a link to what is not in the archive");
        let skipped: Vec<_> =
            listing.skipped.iter().map(|one| (one.name.len(), one.reason.as_str())).collect();
        assert_eq!(skipped, [long, link, long]);
    }
}
