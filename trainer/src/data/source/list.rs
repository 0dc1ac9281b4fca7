//! What a source of any kind holds, and which part of it is asked for.

use std::path::Path;

use super::container::{Archives, Container, Listing, Location};
use super::filter::{Kind, in_hidden, is_tar, kind};
use super::folder::list_folder;
use super::names::normal_of_any;
use super::zip::list_zip;
use super::{SourceError, error, tar};
use crate::data::hdf5::Hdf5Store;

/// Lists a source of any kind.
pub(super) fn list(path: &Path) -> Result<(Container, Listing), SourceError> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        _ if path.is_dir() => {
            let (container, listing) = list_folder(path)?;
            with_archives(path, container, listing)
        }
        Some("tar") => tar::list_tar(path),
        Some("zip") => list_zip(path),
        Some("h5" | "hdf5") => list_hdf5(path),
        Some("gz" | "tgz" | "bz2" | "xz" | "zst") => Err(error(
            path,
            "compressed tar archives cannot be read in place; decompress it to a .tar first",
        )),
        _ if !path.exists() => Err(error(path, "there is no such file or folder")),
        _ => Err(error(path, "neither a folder nor a .tar, .zip or .h5 file")),
    }
}

/// Adds the contents of a folder's archives: shards of a web dataset, or an archive a class. Archives among images
/// are left out, unless they hold most of the images.
fn with_archives(
    folder: &Path,
    container: Container,
    mut listing: Listing,
) -> Result<(Container, Listing), SourceError> {
    let images = |files: &[(String, Location)]| {
        files.iter().filter(|(name, _)| kind(name) == Kind::Image).count()
    };
    let is_archive = |(name, _): &(String, Location)| is_tar(name) && kind(name) == Kind::Other;
    let (mut tars, files): (Vec<_>, Vec<_>) = listing.files.into_iter().partition(is_archive);
    listing.files = files;
    if tars.is_empty() {
        return Ok((container, listing));
    }
    tars.sort_by(|a, b| a.0.cmp(&b.0));
    let beside = images(&listing.files);
    let mut inner = Listing::default();
    let mut archives = Archives::default();
    let mut have_images = true;
    for (name, location) in &tars {
        let path = match location {
            Location::File(below) => folder.join(below),
            _ => folder.join(name),
        };
        let prefix = &name[..name.len() - ".tar".len()];
        let before = inner.files.len();
        match tar::add_tar(&path, archives.count(), &format!("{prefix}/"), &mut inner) {
            Ok(file) => archives.push(path, file),
            Err(e) if beside == 0 || e.is_of_system() => return Err(e),
            Err(_) => {
                have_images = false;
                break;
            }
        }
        inner.shards.insert(prefix.into());
        have_images &= images(&inner.files[before..]) > 0;
    }
    let inside = images(&inner.files);
    // Those of one archive beside its contents would be there twice.
    let many = if tars.len() > 1 { inside } else { inside / 10 };
    if beside > 0 && !(have_images && beside < many) {
        for (name, _) in tars {
            listing.skip(name, "an archive among images");
        }
        return Ok((container, listing));
    }
    listing.files.extend(inner.files);
    listing.folders.extend(inner.folders);
    listing.skipped.extend(inner.skipped);
    listing.shards = inner.shards;
    Ok((Container::Files { root: folder.into(), archives }, listing))
}

/// Hi-DiT's and REPA-E's `images.h5`, in the order of its list.
fn list_hdf5(path: &Path) -> Result<(Container, Listing), SourceError> {
    let store = Hdf5Store::open(path).map_err(|e| error(path, e))?;
    if store.items.iter().any(|name| name.ends_with(".npy")) {
        return Err(error(path, "it holds latents; prepare its images.h5 instead"));
    }
    let files = store.items.iter().map(|name| (name.clone(), Location::Hdf5(name.clone())));
    let files = files.collect();
    Ok((Container::Hdf5(Box::new(store)), Listing { files, ..Listing::default() }))
}

/// The folder that is meant by a split's path or name.
pub(super) fn find_split(split: &str, listing: &Listing) -> Result<String, String> {
    let wanted = normal_of_any(split);
    let wanted = wanted.as_str();
    if wanted.is_empty() {
        return Err(format!("--split {split:?} is not the name of a folder in it"));
    }
    if listing.folders.contains(wanted) && !in_hidden(wanted) {
        return Ok(wanted.into());
    }
    let visible = || listing.folders.iter().filter(|folder| !in_hidden(folder));
    let is_named = |folder: &&String| {
        let end = folder.len().checked_sub(wanted.len()).and_then(|at| folder.split_at_checked(at));
        end.is_some_and(|(before, name)| {
            name.eq_ignore_ascii_case(wanted) && (before.is_empty() || before.ends_with('/'))
        })
    };
    let named: Vec<&String> = visible().filter(is_named).collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let top = visible().filter(|folder| !folder.contains('/'));
            let top: Vec<&str> = top.take(20).map(String::as_str).collect();
            Err(format!("there is no folder {wanted:?} in it; at the top are {}", top.join(", ")))
        }
        several => {
            let list: Vec<&str> = several.iter().take(20).map(|f| f.as_str()).collect();
            Err(format!(
                "several folders are called {wanted:?}: {}; give the path",
                list.join(", ")
            ))
        }
    }
}
