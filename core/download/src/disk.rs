//! The disk that holds a path: what tells it from others, and its free space.

use std::path::Path;

/// The path, or the nearest folder above it that exists.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.exists())
}

/// Free bytes of the disk that holds a path, or the nearest folder above it that exists.
#[cfg(unix)]
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(existing(path)?).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Free bytes of the disk that holds a path, or the nearest folder above it that exists.
#[cfg(not(unix))]
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    holding(path).map(|(_, free)| free)
}

/// What tells the disk of a path from others.
#[cfg(unix)]
pub(crate) fn id(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    Some(existing(path)?.metadata().ok()?.dev().to_string())
}

/// What tells the disk of a path from others.
#[cfg(not(unix))]
pub(crate) fn id(path: &Path) -> Option<String> {
    holding(path).map(|(at, _)| at.display().to_string())
}

/// Where the disk of a path is mounted, and its free bytes. Disks of other machines are not listed.
#[cfg(not(unix))]
fn holding(path: &Path) -> Option<(std::path::PathBuf, u64)> {
    let existing = existing(path)?;
    // Some disks in memory cannot tell where links lead.
    let full = existing.canonicalize().or_else(|_| std::path::absolute(existing)).ok()?;
    let there = as_mounted(&full);
    let disks = sysinfo::Disks::new_with_refreshed_list();
    // One without any bytes is one whose bytes could not be read.
    let holding =
        disks.iter().filter(|disk| disk.total_space() > 0 && there.starts_with(disk.mount_point()));
    let disk = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    Some((disk.mount_point().to_path_buf(), disk.available_space()))
}

/// A path of Windows as its mount points are written: without the `\\?\` that `canonicalize` puts before it.
#[cfg(any(not(unix), test))]
fn as_mounted(path: &Path) -> std::path::PathBuf {
    // What is not Unicode may be lost: it is only compared with mount points.
    let text = path.to_string_lossy();
    match (text.strip_prefix(r"\\?\UNC\"), text.strip_prefix(r"\\?\")) {
        (Some(share), _) => format!(r"\\{share}").into(),
        (None, Some(rest)) => rest.into(),
        (None, None) => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_free_space_and_a_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("not/there");
        let free = free_space(&below);
        assert!(free.is_some_and(|free| free > 0), "{free:?}");
        let id_of_below = id(&below);
        assert!(id_of_below.is_some() && id_of_below == id(folder.path()), "{id_of_below:?}");
    }

    #[test]
    fn paths_of_windows_are_compared_as_mount_points_are_written() {
        for (path, expected) in [
            (r"\\?\C:\Users\me", r"C:\Users\me"),
            (r"\\?\UNC\server\share\x", r"\\server\share\x"),
            (r"D:\x", r"D:\x"),
        ] {
            assert_eq!(as_mounted(Path::new(path)), Path::new(expected));
        }
    }
}
