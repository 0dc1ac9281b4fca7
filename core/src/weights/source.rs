//! Where the bytes of a checkpoint are.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// A file that is read piece by piece, so that it never lies in memory as a whole: what a browser
/// holds for its pages.
pub trait Source: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> usize;

    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` with the bytes from `start` on.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where the file cannot be read or ends before.
    fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()>;
}

/// Bytes in memory or in a mapped file, which several tensors share.
pub(super) type Memory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What a tensor is a view of.
#[derive(Clone)]
pub(super) enum Bytes {
    Memory(Memory),
    Source(Arc<dyn Source>),
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(memory) => (**memory).as_ref().len(),
            Self::Source(source) => source.len(),
        }
    }

    /// The bytes from `start` on; an error where they end before `len`.
    pub(super) fn read(&self, start: usize, len: usize) -> io::Result<Cow<'_, [u8]>> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = start.checked_add(len).filter(|&end| end <= self.len()).ok_or_else(short)?;
        match self {
            Self::Memory(memory) => Ok(Cow::Borrowed(&(**memory).as_ref()[start..end])),
            Self::Source(source) => {
                let mut bytes = vec![0; len];
                source.read(start, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}
