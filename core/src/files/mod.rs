//! Writing files so that nobody ever sees half of one, none is lost or replaced unasked, and outputs of
//! different makings are not mixed.

mod free;
mod identity;
mod lock;
mod renaming;
mod syncing;
mod text;

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use free::{write_beside, write_new};
pub use identity::{Difference, Identity, IdentityError};
pub use lock::{Lock, LockError};
pub use renaming::rename;
pub use syncing::{sync, sync_folder};
pub use text::{NotText, read_text, text_of};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", .path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

/// Writes a file under a temporary name and renames it: readers see the old file or the new one.
///
/// # Errors
///
/// [`WriteError`] where the folder is missing or read-only, the disk is full, …; the old file is then still
/// there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, |file| file.write_all(bytes), false, rename)
}

/// [`write_whole`] that does not wait: on Windows it fails where a program has the old file open at the moment.
///
/// # Errors
///
/// [`WriteError`] as [`write_whole`].
pub fn try_write_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, |file| file.write_all(bytes), false, |from, to| std::fs::rename(from, to))
}

/// [`write_whole`] that returns once file and name have reached the disk: both survive a loss of power.
///
/// # Errors
///
/// [`WriteError`] as [`write_whole`], or where the disk does not confirm; a new file may then be there
/// already.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, |file| file.write_all(bytes), true, rename)
}

/// [`write_durably`] of what `stream` writes, so that a large file need not lie in memory as a whole.
///
/// # Errors
///
/// [`WriteError`] as [`write_durably`], or with the error of `stream`.
pub fn stream_durably(
    path: &Path,
    stream: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    write(path, stream, true, rename)
}

fn write(
    path: &Path,
    stream: impl FnOnce(&mut File) -> io::Result<()>,
    durably: bool,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<(), WriteError> {
    let temporary = temporary_name(path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| {
            stream(&mut file)?;
            if durably { sync(&file) } else { Ok(()) }
        })
        .and_then(|()| rename(&temporary, path))
        .and_then(|()| if durably { sync_folder(path) } else { Ok(()) });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(|source| WriteError { path: path.into(), source })
}

/// Creates a folder and makes sure that files can be written into it.
///
/// # Errors
///
/// [`WriteError`] where the folder cannot be created or written.
pub fn writable_folder(folder: &Path) -> Result<(), WriteError> {
    let failed = |source| WriteError { path: folder.into(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let probe = temporary_name(&folder.join(".tintype"));
    std::fs::write(&probe, []).map_err(failed)?;
    std::fs::remove_file(&probe).map_err(failed)
}

/// A name beside `path` that no reader looks for, and no other writer takes: threads, processes, and machines
/// on a shared disk.
pub fn temporary_name(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // The keys of a hasher come from the system's random numbers.
    let random = RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{random:016x}.tmp", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::thread::scope(|scope| {
            for writer in 0..8u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let write = if writer % 2 == 0 { write_whole } else { write_durably };
                        write(path, &[writer; 5000]).expect("it writes");
                        let bytes = match std::fs::read(path) {
                            // Windows opens no file while it is replaced.
                            Err(error) if cfg!(windows) && renaming::is_in_use(&error) => continue,
                            read => read.expect("it is there"),
                        };
                        assert!(bytes.len() == 5000 && bytes.iter().all(|b| *b == bytes[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn one_try_leaves_one_whole_file_or_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        for bytes in [b"one", b"two"] {
            try_write_whole(&path, bytes).expect("it writes");
            assert_eq!(std::fs::read(&path).expect("it is there"), bytes);
        }
        let taken = folder.path().join("taken");
        std::fs::create_dir_all(taken.join("inside")).expect("a folder");
        try_write_whole(&taken, b"new").expect_err("a folder is there");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[cfg(windows)]
    #[test]
    fn one_try_does_not_wait_for_a_program_that_has_the_file_open() {
        use std::os::windows::fs::OpenOptionsExt;
        use std::time::{Duration, Instant};

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, b"old").expect("it writes");
        let mut alone = std::fs::OpenOptions::new();
        let held = alone.read(true).share_mode(0).open(&path).expect("it is there");
        let started = Instant::now();
        try_write_whole(&path, b"new").expect_err("it is open");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        drop(held);
        try_write_whole(&path, b"new").expect("it is free");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"new");
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        std::fs::create_dir_all(path.join("inside")).expect("a folder");
        let error = write_durably(&path, b"new").expect_err("a folder is there");
        assert!(error.to_string().ends_with("taken cannot be written"), "{error}");
        assert!(write_whole(&folder.path().join("no/such/x"), b"new").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_stream_that_breaks_off_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let bytes = || std::fs::read(&path).expect("it is there");
        stream_durably(&path, |file| (0..3u8).try_for_each(|i| file.write_all(&[i; 2])))
            .expect("it writes");
        assert_eq!(bytes(), [0, 0, 1, 1, 2, 2]);
        let broken = stream_durably(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("the source is gone"))
        });
        assert_eq!(broken.expect_err("it broke off").source.to_string(), "the source is gone");
        assert_eq!(bytes(), [0, 0, 1, 1, 2, 2]);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
