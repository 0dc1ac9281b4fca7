//! Digests of files that were read already, so that a process reads no file twice for them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::check::{Expected, Found};

/// A file as it was read: its path, its length and the time of its last change.
type Version = (PathBuf, u64, SystemTime);

/// Digests of the files that this process has read.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<Version, Found>>);

impl Digests {
    /// The digests of a file; `None` where reading was stopped.
    ///
    /// * `checked`: told how many bytes have been read, where it is read now
    pub(crate) fn of_file(
        &self,
        path: &Path,
        expected: &Expected,
        stop: &AtomicBool,
        checked: &dyn Fn(u64),
    ) -> io::Result<Option<Found>> {
        let metadata = path.metadata()?;
        // Where times are not known, it is read each time.
        let modified = metadata.modified().ok();
        let version = modified.map(|then| (path.to_path_buf(), metadata.len(), then));
        let known = version.as_ref().and_then(|version| self.all().get(version).cloned());
        if let Some(found) = known.filter(|found| expected.is_judged_by(found)) {
            return Ok(Some(found));
        }
        let found = expected.of_file(path, stop, checked)?;
        if let (Some(version), Some(found)) = (version, &found) {
            self.all().insert(version, found.clone());
        }
        Ok(found)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Version, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let write = |text: &str, seconds: u64| {
            std::fs::write(&path, text).expect("it is written");
            let file = File::options().write(true).open(&path).expect("it is there");
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(then).expect("the file system has times");
        };
        let digests = Digests::default();
        // Whether it has a digest, and the bytes that were read for it.
        let has = |id: &str| {
            let (expected, read) = (Expected::of_id(id, 6), Cell::new(0));
            let found =
                digests.of_file(&path, &expected, &AtomicBool::new(false), &|done| read.set(done));
            let found = found.expect("it can be read").expect("it is not stopped");
            (expected.difference(&found).is_none(), read.get())
        };
        write("hello\n", 1_000_000_000);
        assert_eq!(has(SHA256), (true, 6));
        assert_eq!(has(SHA256), (true, 0));
        assert_eq!(has(GIT), (true, 6), "git's digest was not asked for before");
        assert_eq!((has(GIT), has(SHA256)), ((true, 0), (true, 0)));
        assert_eq!(has(&"0".repeat(64)), (false, 0));
        write("olleh\n", 1_000_000_001);
        assert_eq!(has(SHA256), (false, 6), "it has another content");
        write("hello", 1_000_000_001);
        assert_eq!(has(SHA256), (false, 5), "it has another length");
    }
}
