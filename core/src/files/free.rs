//! Names for files that replace no other.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{WriteError, rename, sync, sync_folder, temporary_name};

/// Writes a file under its name or, where another file has that, under the first free one of `name (2).ext`,
/// `name (3).ext`, …; returns where. A file that has the same bytes already is left as it is.
///
/// # Errors
///
/// [`WriteError`] where the folder is missing or read-only, the disk is full, …
pub fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, WriteError> {
    let temporary = temporary_name(path);
    let written = std::fs::write(&temporary, bytes).and_then(|()| place(&temporary, path, bytes));
    // A link leaves the temporary name, a rename does not.
    let _ = std::fs::remove_file(&temporary);
    written.map_err(|source| WriteError { path: path.into(), source })
}

/// Writes a file and waits until it has reached the disk, unless there is one of that name; tells whether it did.
///
/// # Errors
///
/// As [`write_whole`](super::write_whole).
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, WriteError> {
    let temporary = temporary_name(path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| sync(&file)))
        .and_then(|()| take(&temporary, path));
    let _ = std::fs::remove_file(&temporary);
    let written = written.and_then(|taken| sync_folder(path).map(|()| taken));
    written.map_err(|source| WriteError { path: path.into(), source })
}

/// Gives a whole file the first free name.
fn place(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut candidates = (1..).map(|number| numbered(path, number));
    loop {
        let Some(candidate) = candidates.next() else {
            return Err(ErrorKind::AlreadyExists.into());
        };
        if take(temporary, &candidate)?
            || std::fs::read(&candidate).is_ok_and(|there| there == bytes)
        {
            return Ok(candidate);
        }
    }
}

/// Gives a whole file a name, unless another file has it.
fn take(temporary: &Path, name: &Path) -> io::Result<bool> {
    // A link never replaces a file, so two writers never take the same name.
    match std::fs::hard_link(temporary, name) {
        Ok(()) => Ok(true),
        Err(_) if name.exists() => Ok(false),
        // A file system without links.
        Err(_) => rename(temporary, name).map(|()| true),
    }
}

/// `heart-21-7.png`, `heart-7 (2).png`, …
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return path.into();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(" ({number})"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heart-21-7.compare.png");
        let name = |bytes: &[u8]| {
            let written = write_beside(&path, bytes).expect("it writes");
            assert_eq!(std::fs::read(&written).expect("it is there"), bytes);
            written.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        assert_eq!(name(b"one").as_deref(), Some("heart-21-7.compare.png"));
        assert_eq!(name(b"two").as_deref(), Some("heart-21-7.compare (2).png"));
        assert_eq!(name(b"one").as_deref(), Some("heart-21-7.compare.png"));
        assert_eq!(name(b"three").as_deref(), Some("heart-21-7.compare (3).png"));
        assert!(write_beside(&folder.path().join("no/such"), b"x").is_err());
    }

    #[test]
    fn writers_at_once_take_different_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.png");
        std::thread::scope(|scope| {
            for writer in 0..8u8 {
                let path = &path;
                scope.spawn(move || write_beside(path, &[writer]).expect("it writes"));
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 8);
    }
}
