//! What lies in a folder.

use std::path::{Path, PathBuf};

use super::container::{Archives, Container, Listing, Location};
use super::names::readable;
use super::{SourceError, error};

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
            if !listing.takes(&name) {
                continue;
            }
            // What is no link is known from the listing; a million questions to a network's server take minutes.
            let kind = entry.file_type().ok();
            let is_link = kind.is_some_and(|kind| kind.is_symlink());
            let kind = kind.filter(|_| !is_link);
            if kind.map_or_else(|| path.is_dir(), |kind| kind.is_dir()) {
                // Some disks resolve no paths, such as Windows' RAM disks.
                let real = match around.last().filter(|_| kind.is_some()) {
                    Some(folder) => folder.join(entry.file_name()),
                    None => path.canonicalize().map_err(|e| error(&path, e))?,
                };
                if is_link && around.iter().any(|folder| folder.starts_with(&real)) {
                    listing.skip(name, "a link to a folder around it");
                    continue;
                }
                listing.folders.insert(name);
                folders.push((below, [around.as_slice(), &[real]].concat()));
            } else if is_link && !path.exists() {
                listing.skip(name, "a link to a file that is not there");
            } else if kind.map_or_else(|| path.is_file(), |kind| kind.is_file()) {
                listing.add(name, Location::File(below));
            } else {
                listing.skip(name, "not a regular file");
            }
        }
    }
    Ok((Container::Files { root: root.into(), archives: Archives::default() }, listing))
}

/// A path's parts with `/` between them.
fn slashed(path: &Path) -> String {
    path.iter().map(|part| readable(part.as_encoded_bytes())).collect::<Vec<_>>().join("/")
}

// Where a path may be so long.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn folders_in_folders_end() {
        let place = tempfile::tempdir().expect("a folder");
        let deep = place.path().join("d/".repeat(140));
        std::fs::create_dir_all(&deep).expect("folders");
        std::fs::write(deep.join("0.png"), "deep").expect("it is written");
        std::fs::write(place.path().join("d/1.png"), "near").expect("it is written");
        let (_, listing) = list_folder(place.path()).expect("it is listed");
        let files: Vec<&str> = listing.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(files, ["d/1.png"]);
        assert_eq!((listing.folders.len(), listing.skipped.len()), (129, 1));
    }
}
