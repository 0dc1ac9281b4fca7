//! A file that many threads read at positions of their own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use hdf5_pure::{FormatError, Source};

/// Bytes that a [`Part`] reads at once: the header of an archive's member and some more, and not the member.
const WINDOW: usize = 8 << 10;

/// A file read by position, and never as a whole.
///
/// Not a memory map: pages of a map count as memory of the process (a job with a limit would be ended for reading
/// its data), and a file that shrinks under a map ends the process, where here it is an error. Nor hdf5-pure's own
/// `open_streaming`, whose readers wait for one another at a lock around the file's one position.
#[derive(Clone, Debug)]
pub(super) struct Positioned {
    file: Arc<File>,
    len: u64,
}

impl Positioned {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len })
    }

    /// The `len` bytes from `at` on.
    pub fn read(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = at.checked_add(len).filter(|end| *end <= self.len);
        let (Some(_), Ok(len)) = (end, usize::try_from(len)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut bytes = vec![0; len];
        read_exact_at(&self.file, &mut bytes, at)?;
        Ok(bytes)
    }

    /// Its bytes in all.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The bytes from `at` to the end; none if it ends before.
    pub fn rest(&self, at: u64) -> io::Result<Vec<u8>> {
        let at = at.min(self.len);
        self.read(at, self.len - at)
    }

    /// Up to `len` bytes from `start` on, as a stream.
    pub fn part(&self, start: u64, len: u64) -> Part {
        let len = len.min(self.len.saturating_sub(start));
        Part { file: self.clone(), start, len, at: 0, window: Vec::new(), window_at: 0 }
    }

    /// All of it as a stream.
    pub fn whole(&self) -> Part {
        self.part(0, self.len)
    }
}

impl Source for Positioned {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
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

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
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
fn read_exact_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
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
}
