//! Files that the browser holds.

use std::cell::Cell;
use std::io;

use js_sys::Uint8Array;
use tintype::weights::Source;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Blob, FileReaderSync};

use crate::addressable::addressable;

/// Bytes that are read at once: what the browser copies lies in its memory besides.
const PIECE: usize = 16 << 20;

/// A file on disk or in the browser's memory, of which only the piece in hand is in the engine's.
pub struct BrowserFile {
    blob: Blob,
    reader: FileReaderSync,
    /// Its bytes.
    size: usize,
    /// Told how many bytes were read so far.
    progress: Box<dyn Fn(f64)>,
    read: Cell<f64>,
    /// The most that was asked for at once.
    largest: Cell<usize>,
}

#[cfg(target_feature = "atomics")]
compile_error!(
    "a browser's file belongs to its thread: `BrowserFile` must not be `Send` where there are several"
);

// SAFETY: a worker's objects never leave its thread, and without shared memory there is no other.
unsafe impl Send for BrowserFile {}
// SAFETY: as above.
unsafe impl Sync for BrowserFile {}

impl BrowserFile {
    /// For workers; a page's own thread has no way to read at once.
    ///
    /// # Errors
    ///
    /// A sentence where the file is larger than an engine of 32 bits can address, and where files cannot be
    /// read at once, as outside of a worker.
    pub fn new(blob: Blob, progress: impl Fn(f64) + 'static) -> Result<Self, String> {
        let size = addressable(blob.size())?;
        let reader = FileReaderSync::new();
        let reader = reader.map_err(|_| "files can only be read in a worker")?;
        let progress = Box::new(progress);
        Ok(Self { blob, reader, size, progress, read: Cell::new(0.0), largest: Cell::new(0) })
    }

    /// Bytes of the largest piece that was asked for so far: once it is open, all of a PyTorch file, and the header of a
    /// safetensors file.
    pub fn largest(&self) -> usize {
        self.largest.get()
    }
}

impl Source for BrowserFile {
    fn len(&self) -> usize {
        self.size
    }

    fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()> {
        let gone = |e: JsValue| {
            let reason = e.dyn_ref::<js_sys::Error>().map(|e| String::from(e.message()));
            io::Error::other(format!(
                "the browser cannot read it any more ({}); choose it again",
                reason.unwrap_or_else(|| "no reason given".into())
            ))
        };
        self.largest.set(self.largest.get().max(into.len()));
        let mut at = start as f64;
        for into in into.chunks_mut(PIECE) {
            let end = at + into.len() as f64;
            let piece = self.blob.slice_with_f64_and_f64(at, end).map_err(gone)?;
            let buffer = self.reader.read_as_array_buffer(&piece).map_err(gone)?;
            let bytes = Uint8Array::new(&buffer);
            if bytes.length() as usize != into.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.copy_to(into);
            at = end;
            self.read.set(self.read.get() + into.len() as f64);
            (self.progress)(self.read.get());
        }
        Ok(())
    }
}
