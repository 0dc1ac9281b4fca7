//! Removing what was fetched.

use std::path::{Path, PathBuf};

use tintype::catalogue::{Address, File, Hub};

use crate::downloader::{Downloader, remove};
use crate::error::DownloadError;
use crate::part::part_of;
use crate::unfinished;
use crate::url_cache;

impl Downloader {
    /// Removes a file from this machine, in every version that is here, and what is left of unfinished downloads of
    /// it. A content that other files of the repository share stays.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    ///
    /// # Returns
    ///
    /// The bytes that became free.
    pub fn remove(&self, file: &File) -> Result<u64, DownloadError> {
        match &file.address {
            Address::Hub(hub) => self.remove_hub(hub),
            _ => {
                let path = url_cache::place(&self.environment, file);
                let freed = size(&path) + remove_parts(&path)?;
                remove(&path)?;
                if let Some(folder) = path.parent() {
                    let _ = std::fs::remove_dir(folder);
                }
                Ok(freed)
            }
        }
    }

    fn remove_hub(&self, hub: &Hub) -> Result<u64, DownloadError> {
        let folder = self.cache().folder(hub);
        let blobs = folder.join("blobs");
        let mut freed = 0;
        for part in unfinished::parts_of(&blobs, hub) {
            freed += remove_where(&blobs, |name| name.starts_with(&part))?;
        }
        for commit in entries(&folder.join("snapshots")) {
            let pointer = commit.join(&hub.path);
            if std::fs::symlink_metadata(&pointer).is_err() {
                continue;
            }
            let blob = pointer.canonicalize().ok();
            let is_link = pointer.is_symlink();
            freed += if is_link { 0 } else { freed_with(&pointer) };
            remove(&pointer)?;
            for above in pointer.ancestors().skip(1).take_while(|above| above.starts_with(&commit))
            {
                let _ = std::fs::remove_dir(above);
            }
            let blob = blob.filter(|blob| is_link && is_blob_of(blob, &folder));
            if let Some(blob) = blob.filter(|blob| !is_linked(blob, &folder.join("snapshots"))) {
                freed += size(&blob);
                remove(&blob)?;
            }
        }
        Ok(freed)
    }
}

/// Whether a file is a blob of the repository, and not something that a link leads to elsewhere.
fn is_blob_of(blob: &Path, folder: &Path) -> bool {
    let blobs = folder.join("blobs").canonicalize();
    blobs.is_ok_and(|blobs| blob.parent() == Some(&blobs))
}

/// Whether a link below a folder leads to a file.
fn is_linked(blob: &Path, below: &Path) -> bool {
    entries(below).into_iter().any(|entry| match entry.is_dir() && !entry.is_symlink() {
        true => is_linked(blob, &entry),
        false => entry.canonicalize().is_ok_and(|target| target == blob),
    })
}

/// Removes unfinished downloads of a file; returns their bytes.
fn remove_parts(whole: &Path) -> Result<u64, DownloadError> {
    let part = part_of(whole);
    let beginning = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_part = |name: &str| name.starts_with(&beginning);
    remove_where(whole.parent().unwrap_or(Path::new(".")), is_part)
}

/// Removes files by their names, but none that a download has open; returns their bytes.
fn remove_where(folder: &Path, is_meant: impl Fn(&str) -> bool) -> Result<u64, DownloadError> {
    let mut freed = 0;
    for path in entries(folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_meant(&name) {
            continue;
        }
        // Locked until it is gone, so that no download begins to continue it meanwhile.
        let Ok(file) = std::fs::File::open(&path) else { continue };
        if file.try_lock().is_ok() {
            freed += if name.ends_with(".path") { 0 } else { size(&path) };
            remove(&path)?;
        }
    }
    Ok(freed)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Bytes that become free with a name of a file: none while the file has another name. Windows does not tell, so
/// there what two commits share counts for each.
fn freed_with(name: &Path) -> u64 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let has_another = std::fs::metadata(name).is_ok_and(|metadata| metadata.nlink() > 1);
        if has_another { 0 } else { size(name) }
    }
    #[cfg(not(unix))]
    size(name)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
