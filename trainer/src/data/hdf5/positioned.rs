//! A file that many threads read at positions of their own.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hdf5_pure::{FormatError, Source};

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
}

impl Source for Positioned {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        read_exact_at(&self.file, buf, offset).map_err(|e| FormatError::Source(e.to_string()))
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
