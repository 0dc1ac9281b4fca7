//! One owner at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A file that one process holds locked; the operating system frees it however the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{} is locked by another process", .0.display())]
    Held(PathBuf),
    /// The file cannot be created, or its file system has no locks.
    #[error("{} cannot be locked", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or fails at once; dropping it lets go. The file stays.
    ///
    /// # Errors
    ///
    /// * [`LockError::Held`] where another process (or another `Lock` of this one) has it
    /// * [`LockError::Io`] where the file cannot be created or its file system has no locks
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(false).open(path).map_err(io)?;
        file.try_lock().map_err(|error| refused(path, error))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Unlocks the file, which closing it alone does not where another process has inherited it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Why the system did not lock a file.
fn refused(path: &Path, error: TryLockError) -> LockError {
    match error {
        TryLockError::WouldBlock => LockError::Held(path.into()),
        TryLockError::Error(source) => LockError::Io { path: path.into(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = Lock::take(&path).expect("it is free");
        assert!(matches!(Lock::take(&path), Err(LockError::Held(_))));
        drop(held);
        assert!(Lock::take(&path).is_ok());
    }

    #[test]
    fn a_file_that_stays_open_elsewhere_is_free_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = Lock::take(&path).expect("it is free");
        // As a process has it that was started meanwhile.
        let inherited = held.file.try_clone().expect("another handle");
        drop(held);
        assert!(Lock::take(&path).is_ok());
        drop(inherited);
    }

    #[test]
    fn a_file_system_without_locks_is_not_another_owner() {
        let path = Path::new("lock");
        let none = io::Error::from(io::ErrorKind::Unsupported);
        let error = refused(path, TryLockError::Error(none));
        assert_eq!(error.to_string(), "lock cannot be locked");
        let LockError::Io { source, .. } = error else { panic!("nobody holds it") };
        assert_eq!(source.kind(), io::ErrorKind::Unsupported);
        assert!(matches!(refused(path, TryLockError::WouldBlock), LockError::Held(_)));
    }
}
