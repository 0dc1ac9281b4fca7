//! Tar archives, and archives of archives as ImageNet is packed.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use tar::{Entry, EntryType};

use super::container::{Archives, Container, Listing, Location, beginning, is_too_long};
use super::filter::{in_hidden, is_archive, is_tar};
use super::links::{LinkError, Members};
use super::names::{normal, readable};
use super::{SourceError, error, unreadable};
use crate::data::positioned::{Part, Positioned, is_of_system};

/// Members begin at multiples of this.
const BLOCK: u64 = 512;
/// Most bytes behind the end of an archive: those of the largest record that tapes have, and more.
const MOST_PADDING: u64 = 4 << 20;

/// Lists one archive.
pub(super) fn list_tar(path: &Path) -> Result<(Container, Listing), SourceError> {
    let mut listing = Listing::default();
    let mut archives = Archives::default();
    archives.push(path.into(), add_tar(path, 0, "", &mut listing)?);
    Ok((Container::Files { root: PathBuf::new(), archives }, listing))
}

/// Adds an archive's contents below a prefix, and gives its file.
pub(super) fn add_tar(
    path: &Path,
    number: usize,
    prefix: &str,
    listing: &mut Listing,
) -> Result<Positioned, SourceError> {
    let listed = Positioned::open(path).and_then(|file| {
        Listed { file: &file, number }.list(0, file.size(), prefix, true, listing)?;
        Ok(file)
    });
    listed.map_err(|e| match is_of_system(&e) {
        true => unreadable(path, e),
        false if is_of_links(&e) => error(path, e),
        false => error(path, format!("damaged archive: {e}")),
    })
}

struct Listed<'a> {
    file: &'a Positioned,
    number: usize,
}

impl Listed<'_> {
    /// Lists the archive in a range of the file. Archives inside become folders of their name.
    fn list(
        &self,
        start: u64,
        len: u64,
        prefix: &str,
        nested: bool,
        listing: &mut Listing,
    ) -> io::Result<()> {
        // What an archive without an image is called is a class without one.
        listing.add_folders_of(prefix);
        let mut members = Members::default();
        let mut last = String::new();
        let mut archive = tar::Archive::new(self.file.part(start, len));
        // Headers alone are read: the images of ImageNet are 140 GB.
        for entry in archive.entries_with_seek()? {
            let mut entry = entry?;
            let name = normal(&readable(&entry.path_bytes()));
            if !listing.takes(&format!("{prefix}{name}")) {
                last = beginning(&name);
                continue;
            }
            last.clone_from(&name);
            let kind = entry.header().entry_type();
            let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
            if is_file && let Some(name) = of_sparse(&mut entry, &name)? {
                listing.skip(format!("{prefix}{name}"), SPARSE);
                continue;
            }
            let target = || readable(&entry.link_name_bytes().unwrap_or_default());
            match kind {
                EntryType::Regular | EntryType::Continuous => {
                    let (at, size) = (start + entry.raw_file_position(), entry.size());
                    let end = size.checked_next_multiple_of(BLOCK);
                    let end = end.and_then(|size| at.checked_add(size));
                    if end.is_none_or(|end| end > start + len) {
                        return Err(cut(&name));
                    }
                    if !in_hidden(&name) && is_archive(&name) {
                        if !is_tar(&name) {
                            let reason = "an archive inside the archive that is no plain .tar";
                            listing.skip(format!("{prefix}{name}"), reason);
                        } else if !nested {
                            let reason = "an archive in an archive in an archive";
                            listing.skip(format!("{prefix}{name}"), reason);
                        } else {
                            let inner = &name[..name.len() - ".tar".len()];
                            let inner = format!("{prefix}{inner}/");
                            match self.list(at, size, &inner, false, listing) {
                                Err(e) if is_of_system(&e) || is_of_links(&e) => return Err(e),
                                Err(e) => {
                                    let reason = format!("a damaged archive: {e}");
                                    listing.skip(format!("{prefix}{name}"), reason);
                                }
                                Ok(()) => {}
                            }
                        }
                        continue;
                    }
                    let location = Location::Range { archive: self.number, start: at, len: size };
                    members.file(name, location);
                }
                // No member has such a name.
                EntryType::Link | EntryType::Symlink if is_too_long(&target()) => {
                    let reason = "a link to what is not in the archive";
                    listing.skip(format!("{prefix}{name}"), reason);
                }
                EntryType::Link => members.hard(name, &target()),
                EntryType::Symlink => members.symbolic(name, &target()),
                EntryType::Directory => {
                    let folder = format!("{prefix}{name}");
                    listing.add_folders_of(&folder);
                    let folder = folder.trim_end_matches('/');
                    if !folder.is_empty() {
                        listing.folders.insert(folder.into());
                    }
                }
                EntryType::XGlobalHeader | EntryType::XHeader => {}
                EntryType::GNUSparse => listing.skip(format!("{prefix}{name}"), SPARSE),
                _ => listing.skip(format!("{prefix}{name}"), "not a regular file"),
            }
        }
        check_end(archive.into_inner(), len, &last)?;
        members.list(prefix, listing).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// Why files with holes are left out.
const SPARSE: &str = "a sparse file";

/// The name of a member that PAX's records make a sparse file; its own may be one that GNU tar has made up.
fn of_sparse(entry: &mut Entry<'_, impl Read>, name: &str) -> io::Result<Option<String>> {
    let records = entry.pax_extensions()?.into_iter().flatten().filter_map(Result::ok);
    let records: Vec<_> =
        records.filter(|record| record.key_bytes().starts_with(b"GNU.sparse.")).collect();
    let named = records.iter().find(|record| record.key_bytes() == b"GNU.sparse.name");
    let named = named.map(|record| normal(&readable(record.value_bytes())));
    Ok((!records.is_empty()).then(|| named.unwrap_or_else(|| name.into())))
}

/// Checks how an archive of `len` bytes ends, whose reader is where its members end; `last` is the name of the last.
fn check_end(mut rest: Part, len: u64, last: &str) -> io::Result<()> {
    let at = rest.stream_position()?;
    if at > len {
        return Err(cut(last));
    }
    // What is behind the end would be lost without a word.
    let mut is_more = len - at > MOST_PADDING;
    let mut bytes = vec![0u8; 64 << 10];
    while !is_more {
        match rest.read(&mut bytes)? {
            0 => return Ok(()),
            n => is_more = bytes[..n].iter().any(|byte| *byte != 0),
        }
    }
    Err(damaged(
        "it goes on behind its end, as several archives in one file do, or a part of a download; unpack it (tar \
         --ignore-zeros), or download it again"
            .into(),
    ))
}

/// Whether too much was made of an archive by its links.
fn is_of_links(e: &io::Error) -> bool {
    e.get_ref().is_some_and(|inner| inner.is::<LinkError>())
}

fn cut(name: &str) -> io::Error {
    damaged(format!("{name} ends beyond the archive; it is truncated"))
}

fn damaged(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn folders_files_and_links_with_endless_names_are_left_out() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("x.tar");
        let deep = "d/".repeat(40_000);
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind: EntryType, name: &str, target: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            let added = match target {
                Some(target) => builder.append_link(&mut header, name, target),
                None => builder.append_data(&mut header, name, io::empty()),
            };
            added.expect("it fits");
        };
        add(EntryType::Directory, &deep, None);
        add(EntryType::Symlink, "link", Some(&deep));
        add(EntryType::Regular, &format!("{deep}0.png"), None);
        add(EntryType::Regular, "b/0.png", None);
        std::fs::write(&path, builder.into_inner().expect("it ends")).expect("it is written");
        let (_, listing) = list_tar(&path).expect("it is listed");
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
