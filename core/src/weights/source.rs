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
    #[cfg(feature = "files")]
    Mapped(Arc<memmap2::Mmap>),
    Source(Arc<dyn Source>),
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(memory) => (**memory).as_ref().len(),
            #[cfg(feature = "files")]
            Self::Mapped(file) => file.len(),
            Self::Source(source) => source.len(),
        }
    }

    /// The bytes from `start` on; an error where they end before `len`, or memory does.
    pub(super) fn read(&self, start: usize, len: usize) -> io::Result<Cow<'_, [u8]>> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = start.checked_add(len).filter(|&end| end <= self.len()).ok_or_else(short)?;
        match self {
            Self::Memory(memory) => Ok(Cow::Borrowed(&(**memory).as_ref()[start..end])),
            #[cfg(feature = "files")]
            Self::Mapped(file) => Ok(Cow::Borrowed(&file[start..end])),
            Self::Source(source) => {
                let mut bytes: Vec<u8> = Vec::new();
                let no_room = |_| {
                    let problem = format!("there is no memory for {len} bytes of it at once");
                    io::Error::new(io::ErrorKind::OutOfMemory, problem)
                };
                bytes.try_reserve_exact(len).map_err(no_room)?;
                bytes.resize(len, 0);
                source.read(start, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Gives the memory back to the system that holds these bytes of a mapped file, which are read again where they
    /// are asked for again: so a file that is copied tensor by tensor is not counted whole beside its copy.
    pub(super) fn release(&self, start: usize, len: usize) {
        #[cfg(all(feature = "files", unix))]
        if let (Self::Mapped(file), true) = (self, start.saturating_add(len) <= self.len()) {
            // SAFETY: the pages of a file that is mapped to be read alone come back with the same bytes.
            let advised = unsafe {
                file.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len)
            };
            drop(advised); // a system that keeps them does no harm
        }
        #[cfg(not(all(feature = "files", unix)))]
        let _ = (start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without an end.
    struct Endless;

    impl Source for Endless {
        fn len(&self) -> usize {
            usize::MAX
        }
        fn read(&self, _: usize, _: &mut [u8]) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_memory_cannot_hold_is_an_error() {
        let bytes = Bytes::Source(Arc::new(Endless));
        assert_eq!(bytes.read(0, 3).expect("there is room").len(), 3);
        let error = bytes.read(0, usize::MAX).expect_err("there is no room");
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().ends_with("bytes of it at once"), "{error}");
    }
}
