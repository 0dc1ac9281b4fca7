//! A file that is still coming, under a name of its own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tintype::files::{rename, sync, sync_folder};

use crate::check::{Expected, Found, Hashes};
use crate::downloader::has_length;
use crate::error::DownloadError;
use crate::whole;

/// What follows the name of a part in that of the file that tells which version of the whole it is of.
pub(crate) const VALIDATOR: &str = ".validator";
/// How long a part that nothing continues is left alone.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes that are read at once.
pub(crate) const CHUNK: usize = 1 << 18;

/// The part of a file that has arrived.
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    /// A part that only this process knows, and that it deletes if it is not finished.
    is_private: bool,
    expected: Expected,
    hashes: Hashes,
    done: u64,
}

impl Part {
    /// Opens the part of a file, with what an earlier download has left. Where another process has it open, or the
    /// file system has no locks, the part is a new one and cannot be continued later.
    ///
    /// * `checked`: told how many bytes of an old part have been read, as their digest is needed
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`], [`DownloadError::Stopped`]
    pub(crate) fn open(
        whole: &Path,
        expected: Expected,
        stop: &AtomicBool,
        checked: &dyn Fn(u64),
    ) -> Result<Self, DownloadError> {
        let path = part_of(whole);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DownloadError::write(folder))?;
        let open = |path: &Path| {
            OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)
        };
        let file = open(&path).map_err(DownloadError::write(&path))?;
        sweep(&path);
        let hashes = expected.hashes();
        // The lock is on the file itself: who has it may have renamed the file meanwhile.
        let is_owned = match file.try_lock() {
            Ok(()) => is_still(&file, &path),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        };
        if is_owned {
            let mut part = Self { file, path, is_private: false, expected, hashes, done: 0 };
            part.read_old(stop, checked)?;
            return Ok(part);
        }
        let path = private_name(&path);
        let file = open(&path).map_err(DownloadError::write(&path))?;
        // Whoever cleans up leaves it alone then.
        let _ = file.try_lock();
        Ok(Self { file, path, is_private: true, expected, hashes, done: 0 })
    }

    fn read_old(&mut self, stop: &AtomicBool, checked: &dyn Fn(u64)) -> Result<(), DownloadError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(DownloadError::Stopped);
            }
            match self.file.read(&mut buffer).map_err(DownloadError::write(&self.path))? {
                0 => return Ok(()),
                n => {
                    self.hashes.update(&buffer[..n]);
                    self.done += n as u64;
                    checked(self.done);
                }
            }
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are there.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Appends what has arrived.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).map_err(DownloadError::write(&self.path))?;
        self.hashes.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    pub(crate) fn restart(&mut self) -> Result<(), DownloadError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(DownloadError::write(&self.path))?;
        self.hashes = self.expected.hashes();
        self.done = 0;
        Ok(())
    }

    /// The first bytes.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    pub(crate) fn beginning(&mut self, bytes: usize) -> Result<Vec<u8>, DownloadError> {
        let mut read = || -> io::Result<Vec<u8>> {
            let mut beginning = Vec::new();
            self.file.seek(SeekFrom::Start(0))?;
            (&self.file).take(bytes as u64).read_to_end(&mut beginning)?;
            self.file.seek(SeekFrom::End(0))?;
            Ok(beginning)
        };
        read().map_err(DownloadError::write(&self.path))
    }

    /// Why the content is cut, or may be, by its own structure.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    pub(crate) fn doubt(&mut self) -> Result<Option<&'static str>, DownloadError> {
        whole::doubt(&mut self.file).map_err(DownloadError::write(&self.path))
    }

    /// Checks the whole content and gives the file its final name; content that is not the expected is deleted.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Digest`], [`DownloadError::Write`]
    pub(crate) fn finish(mut self, whole: &Path, address: &str) -> Result<Found, DownloadError> {
        let found = std::mem::replace(&mut self.hashes, self.expected.hashes()).finish();
        if let Some((algorithm, expected, found)) = self.expected.difference(&found) {
            self.discard()?;
            let address = address.into();
            return Err(DownloadError::Digest { address, algorithm, expected, found });
        }
        if !is_still(&self.file, &self.path) {
            // Another program has removed the name; what may have it now is another's, and not yet whole. A file that
            // lay under the final name before is of another length.
            if has_length(whole, self.done) {
                return Ok(found);
            }
            let gone = io::Error::new(io::ErrorKind::NotFound, "its part was removed meanwhile");
            return Err(DownloadError::write(whole)(gone));
        }
        let durable = sync(&self.file).and_then(|()| rename(&self.path, whole));
        durable.and_then(|()| sync_folder(whole)).map_err(DownloadError::write(whole))?;
        self.is_private = false;
        Ok(found)
    }

    /// Deletes what is there.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Write`]
    pub(crate) fn discard(self) -> Result<(), DownloadError> {
        std::fs::remove_file(&self.path).map_err(DownloadError::write(&self.path))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let is_of_use = !self.is_private && self.done > 0;
        if !is_of_use && is_still(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(with_end(&self.path, VALIDATOR));
        }
        // To close it is not enough: a process that is just being started has the file open, too.
        let _ = self.file.unlock();
    }
}

/// The name of a file that is still coming. Not Python's, which may append to its own at the same time.
pub(crate) fn part_of(whole: &Path) -> PathBuf {
    with_end(whole, ".tintype.incomplete")
}

/// A name with something after it.
pub(crate) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}

/// A name that no other download has.
fn private_name(part: &Path) -> PathBuf {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    with_end(part, &format!(".{random:016x}"))
}

/// Removes private parts that a killed download has left. One that has not grown for a day is nobody's: where there are
/// no locks, nothing else tells.
fn sweep(part: &Path) {
    let beginning = format!("{}.", part.file_name().unwrap_or_default().to_string_lossy());
    let is_old = |path: &Path| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > A_DAY))
    };
    let is_private = |name: &str| {
        let random = name.strip_prefix(&beginning);
        random.is_some_and(|random| {
            random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit())
        })
    };
    let entries = std::fs::read_dir(part.parent().unwrap_or(Path::new(".")));
    for entry in entries.into_iter().flatten().flatten() {
        if is_private(&entry.file_name().to_string_lossy()) && is_old(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
            let _ = std::fs::remove_file(with_end(&entry.path(), VALIDATOR));
        }
    }
}

/// Whether an open file still has this name.
fn is_still(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
            return false;
        };
        open.dev() == named.dev() && open.ino() == named.ino()
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(whole: &Path, expected: &Expected) -> Part {
        let stop = AtomicBool::new(false);
        Part::open(whole, expected.clone(), &stop, &|_| {}).expect("it opens")
    }

    #[test]
    fn an_old_part_is_continued_and_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("deep/file");
        let expected =
            Expected::of_id("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", 6);
        let mut part = open(&whole, &expected);
        part.append(b"hel").expect("it is written");
        drop(part);
        let mut part = open(&whole, &expected);
        assert_eq!(part.done(), 3);
        part.append(b"lo\n").expect("it is written");
        part.finish(&whole, "x").expect("its digest is right");
        assert_eq!(std::fs::read(&whole).expect("it is there"), b"hello\n");
        let mut part = open(&whole, &expected);
        assert_eq!(part.done(), 0, "the part is gone");
        part.append(b"olleh\n").expect("it is written");
        let error = part.finish(&folder.path().join("other"), "x").expect_err("another content");
        assert!(error.to_string().contains("not 5891b5b522d5"), "{error}");
        assert!(!part_of(&whole).exists() && !folder.path().join("other").exists());
    }

    #[test]
    fn two_downloads_have_two_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("file");
        let (mut first, mut second) =
            (open(&whole, &Expected::default()), open(&whole, &Expected::default()));
        assert!(second.is_private && !first.is_private);
        first.append(b"a").expect("it is written");
        second.append(b"a").expect("it is written");
        second.finish(&whole, "x").expect("it is whole");
        first.finish(&whole, "x").expect("it is whole");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    /// Elsewhere an open file may keep its name until it is closed.
    #[cfg(unix)]
    #[test]
    fn a_part_that_was_removed_is_whole_only_where_another_download_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("file");
        for (lies_there, is_whole) in [(None, false), (Some("hel"), false), (Some("hello"), true)] {
            if let Some(text) = lies_there {
                std::fs::write(&whole, text).expect("it is written");
            }
            let mut part = open(&whole, &Expected::default());
            part.append(b"hello").expect("it is written");
            std::fs::remove_file(part_of(&whole)).expect("it is removed");
            let is_ok = part.finish(&whole, "x").is_ok();
            assert_eq!(is_ok, is_whole, "{lies_there:?}");
            let found = std::fs::read_to_string(&whole).ok();
            assert_eq!(found.as_deref(), lies_there, "nothing is put in its place");
        }
    }
}
