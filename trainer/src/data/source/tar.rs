//! Tar archives, and archives of archives as ImageNet is packed.

use std::path::{Path, PathBuf};

use tar::EntryType;

use super::container::{Archive, Container, Listing, Location};
use super::filter::{in_hidden, is_archive, is_tar};
use super::links::Members;
use super::names::{normal, readable};
use super::{SourceError, error};
use crate::data::positioned::Positioned;

/// Members begin at multiples of this.
const BLOCK: u64 = 512;

/// Lists one archive.
pub(super) fn list_tar(path: &Path) -> Result<(Container, Listing), SourceError> {
    let mut listing = Listing::default();
    let archives = vec![add_tar(path, 0, "", &mut listing)?];
    Ok((Container::Files { root: PathBuf::new(), archives }, listing))
}

/// Adds an archive's contents below a prefix.
pub(super) fn add_tar(
    path: &Path,
    number: usize,
    prefix: &str,
    listing: &mut Listing,
) -> Result<Archive, SourceError> {
    let file = Positioned::open(path).map_err(|e| error(path, e))?;
    Listed { path, file: &file, number }.list(0, file.size(), prefix, true, listing)?;
    Ok(Archive::new(path.into(), file, number))
}

struct Listed<'a> {
    path: &'a Path,
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
    ) -> Result<(), SourceError> {
        let damaged = |e: std::io::Error| error(self.path, format!("damaged archive: {e}"));
        // What an archive without an image is called is a class without one.
        listing.add_folders_of(prefix);
        let mut members = Members::default();
        let mut archive = tar::Archive::new(self.file.part(start, len));
        // Headers alone are read: the images of ImageNet are 140 GB.
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = normal(&readable(&entry.path_bytes()));
            let target = || readable(&entry.link_name_bytes().unwrap_or_default());
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let (at, size) = (start + entry.raw_file_position(), entry.size());
                    let end = size.checked_next_multiple_of(BLOCK);
                    let end = end.and_then(|size| at.checked_add(size));
                    if end.is_none_or(|end| end > start + len) {
                        let problem = format!("{name} ends beyond the archive; it is truncated");
                        return Err(error(self.path, problem));
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
                            if self.list(at, size, &inner, false, listing).is_err() {
                                listing.skip(format!("{prefix}{name}"), "a damaged archive");
                            }
                        }
                        continue;
                    }
                    let location = Location::Range { archive: self.number, start: at, len: size };
                    members.file(name, location);
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
                EntryType::GNUSparse => listing.skip(format!("{prefix}{name}"), "a sparse file"),
                _ => listing.skip(format!("{prefix}{name}"), "not a regular file"),
            }
        }
        members.list(prefix, listing);
        Ok(())
    }
}
