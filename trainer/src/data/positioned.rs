//! A file that many threads read at positions of their own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use hdf5_pure::{FormatError, Source};

/// Bytes that a [`Part`] reads at once: the header of an archive's member and some more, and not the member.
const WINDOW: usize = 8 << 10;
/// Most bytes of a file or a member that are read into memory. No image has more: what says so is damaged, or none.
pub(super) const MOST_BYTES: u64 = 2 << 30;

/// Why a file cannot be read, whatever is in it.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    System(io::Error),
    #[error("it has become shorter since it was opened")]
    Shorter,
    #[error("its size or its time of modification has changed since it was listed")]
    Changed,
}

/// Whether an error is one of the system, the disk or a file that changes, and not of what is in the file.
pub(super) fn is_of_system(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Unreadable>())
}

/// Marks an error of the system. Its kind is none of those that readers of archives look at.
fn unreadable(error: io::Error) -> io::Error {
    io::Error::other(match error.kind() {
        io::ErrorKind::UnexpectedEof => Unreadable::Shorter,
        _ => Unreadable::System(error),
    })
}

/// The refusal of more than [`MOST_BYTES`].
pub(super) fn too_long(len: u64) -> io::Error {
    let problem = format!("it has {len} bytes, and at most 2 GiB are read into memory");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// What tells a file from another that has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

/// A file read by position, and never as a whole.
///
/// Not a memory map: pages of a map count as memory of the process (a job with a limit would be ended for reading
/// its data), and a file that shrinks under a map ends the process, where here it is an error. Nor hdf5-pure's own
/// `open_streaming`, whose readers wait for one another at a lock around the file's one position.
#[derive(Clone, Debug)]
pub(super) struct Positioned {
    file: Arc<File>,
    stamp: Stamp,
}

impl Positioned {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let stamp = Stamp { len: metadata.len(), modified: metadata.modified().ok() };
        Ok(Self { file: Arc::new(file), stamp })
    }

    /// Opens a file again, which is an error if it has become another.
    pub fn reopen(path: &Path, stamp: Stamp) -> io::Result<Self> {
        let file = Self::open(path)?;
        match file.stamp == stamp {
            true => Ok(file),
            false => Err(io::Error::other(Unreadable::Changed)),
        }
    }

    /// What [`reopen`](Self::reopen) compares.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The `len` bytes from `at` on; at most [`MOST_BYTES`].
    pub fn read(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        if at.checked_add(len).is_none_or(|end| end > self.stamp.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = usize::try_from(len).ok().filter(|_| len <= MOST_BYTES);
        let mut bytes = vec![0; count.ok_or_else(|| too_long(len))?];
        read_exact_at(&self.file, &mut bytes, at)?;
        Ok(bytes)
    }

    /// Its bytes in all.
    pub fn size(&self) -> u64 {
        self.stamp.len
    }

    /// The bytes from `at` to the end; none if it ends before.
    pub fn rest(&self, at: u64) -> io::Result<Vec<u8>> {
        let at = at.min(self.stamp.len);
        self.read(at, self.stamp.len - at)
    }

    /// Up to `len` bytes from `start` on, as a stream.
    pub fn part(&self, start: u64, len: u64) -> Part {
        let len = len.min(self.stamp.len.saturating_sub(start));
        Part { file: self.clone(), start, len, at: 0, window: Vec::new(), window_at: 0 }
    }

    /// All of it as a stream.
    pub fn whole(&self) -> Part {
        self.part(0, self.stamp.len)
    }
}

impl Source for Positioned {
    fn len(&self) -> u64 {
        self.stamp.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        // A place that is not in the file is an error of its format.
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.stamp.len {
            let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let (expected, available) = (count(end), count(self.stamp.len));
            return Err(FormatError::UnexpectedEof { expected, available });
        }
        read_exact_at(&self.file, buf, offset).map_err(|e| FormatError::Source(e.to_string()))
    }
}

/// A part of a file as a stream. What is skipped by seeking is not read.
#[derive(Clone, Debug)]
pub(super) struct Part {
    file: Positioned,
    /// Where it begins in the file.
    start: u64,
    len: u64,
    /// The position in this part.
    at: u64,
    /// The bytes that were read last, and their position in this part.
    window: Vec<u8>,
    window_at: u64,
}

impl Part {
    /// The bytes at the position that were read already.
    fn buffered(&self) -> &[u8] {
        let offset = self.at.checked_sub(self.window_at).and_then(|by| usize::try_from(by).ok());
        offset.and_then(|offset| self.window.get(offset..)).unwrap_or_default()
    }
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let from = self.start + self.at;
        let n = if self.buffered().is_empty() && wanted >= WINDOW {
            read_exact_at(&self.file.file, &mut into[..wanted], from)?;
            wanted
        } else {
            if self.buffered().is_empty() {
                self.window = self.file.read(from, left.min(WINDOW) as u64)?;
                self.window_at = self.at;
            }
            let bytes = self.buffered();
            let n = wanted.min(bytes.len());
            into[..n].copy_from_slice(&bytes[..n]);
            n
        };
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    fill_at(file, bytes, at).map_err(unreadable)
}

#[cfg(unix)]
fn fill_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn fill_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn fill_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_and_sought_as_its_bytes_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let bytes: Vec<u8> = (0..5 * WINDOW).map(|i| (i * 37 % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("it is written");
        let file = Positioned::open(&path).expect("it opens");
        let (start, end) = (1000, 4 * WINDOW + 77);
        let mut part = file.part(start as u64, (end - start) as u64);
        let mut expected = io::Cursor::new(&bytes[start..end]);
        let window = WINDOW as i64;
        for by in [0, 512, 511, -3 * window, -700, -2 * window, window] {
            let to = SeekFrom::Current(by);
            let at = part.seek(to).expect("it is inside");
            assert_eq!(at, expected.seek(to).expect("it is inside"));
            for len in [WINDOW + 1, 1, 512] {
                let (mut found, mut wanted) = (vec![0; len], vec![0; len]);
                part.read_exact(&mut found).expect("it is inside");
                expected.read_exact(&mut wanted).expect("it is inside");
                assert!(found == wanted, "{len} after {by}");
            }
        }
        assert_eq!(part.seek(SeekFrom::End(-3)).expect("it is inside"), (end - start - 3) as u64);
        let mut last = Vec::new();
        part.read_to_end(&mut last).expect("it is read");
        assert_eq!(last, bytes[end - 3..end]);
        assert!(part.seek(SeekFrom::Current(-i64::MAX)).is_err());
        // Behind the end there is nothing, as in a file.
        part.seek(SeekFrom::Start(u64::MAX)).expect("it may be");
        assert_eq!(part.read(&mut [0; 8]).expect("nothing"), 0);
        assert_eq!(file.rest(bytes.len() as u64 - 2).expect("two"), bytes[bytes.len() - 2..]);
        assert!(file.rest(u64::MAX).expect("none").is_empty());
        let mut whole = Vec::new();
        file.whole().read_to_end(&mut whole).expect("it is read");
        assert!(whole == bytes);
    }

    #[test]
    fn errors_of_the_system_are_told_from_those_of_what_is_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let missing = Positioned::open(&path).expect_err("it is not there");
        assert!(is_of_system(&missing), "{missing}");
        std::fs::write(&path, vec![7; 3 * WINDOW]).expect("it is written");
        let file = Positioned::open(&path).expect("it opens");
        let behind = file.read(1, 3 * WINDOW as u64).expect_err("a byte more than there is");
        assert!(!is_of_system(&behind), "{behind}");
        let mut buffer = [0u8; 2];
        let behind = Source::read_at(&file, 3 * WINDOW as u64 - 1, &mut buffer);
        assert!(matches!(behind, Err(FormatError::UnexpectedEof { .. })), "{behind:?}");

        let other = File::options().write(true).open(&path).expect("it opens");
        other.set_len(WINDOW as u64).expect("it is cut");
        for error in [
            file.read(WINDOW as u64 - 1, 2).expect_err("it is cut"),
            file.whole().read_to_end(&mut Vec::new()).expect_err("it is cut"),
        ] {
            assert!(is_of_system(&error), "{error}");
            assert!(error.to_string().contains("shorter"), "{error}");
        }
        let behind = Source::read_at(&file, WINDOW as u64, &mut buffer);
        assert!(matches!(behind, Err(FormatError::Source(_))), "{behind:?}");
    }

    #[test]
    fn only_the_same_file_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "one").expect("it is written");
        let stamp = Positioned::open(&path).expect("it opens").stamp();
        let again = Positioned::reopen(&path, stamp).expect("it is the same");
        assert_eq!(again.read(0, 3).expect("three bytes"), b"one");
        std::fs::write(&path, "three").expect("it is written");
        let error = Positioned::reopen(&path, stamp).expect_err("it is longer");
        assert!(is_of_system(&error) && error.to_string().contains("has changed"), "{error}");
        std::fs::write(&path, "two").expect("it is written");
        let file = File::options().write(true).open(&path).expect("it is there");
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
        file.set_modified(later).expect("a time");
        let error = Positioned::reopen(&path, stamp).expect_err("it is of another time");
        assert!(is_of_system(&error), "{error}");
    }

    // Where a hole in a file takes no room.
    #[cfg(unix)]
    #[test]
    fn no_more_is_read_than_an_image_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        File::create(&path).and_then(|file| file.set_len(3 << 30)).expect("a hole");
        let file = Positioned::open(&path).expect("it opens");
        let error = file.read(0, MOST_BYTES + 1).expect_err("it is too much");
        assert!(!is_of_system(&error) && error.to_string().contains("2 GiB"), "{error}");
        assert_eq!(file.read(MOST_BYTES, 2).expect("two bytes"), [0, 0]);
    }
}
