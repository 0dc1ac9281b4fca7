//! Batches of images as ADM's evaluator reads them: `arr_0` of an `.npz`, 8-bit `[N, H, W, 3]`,
//! streamed, since 50,000 of 256 × 256 are 9.8 GB.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::read::DeflateDecoder;
use tintype::image::Rgb;
use zip::{CompressionMethod, ZipArchive};

use super::decode::MAX_DECODED_BYTES;

/// The array with the images.
const MEMBER: &str = "arr_0.npy";
/// A header of numpy's is a short line of text; a longer one is no header.
const MAX_HEADER: usize = 1 << 16;

/// What can be wrong with a batch.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct BatchError {
    file: String,
    problem: String,
}

/// An opened batch.
pub struct Batch {
    file: PathBuf,
    /// Images, height, width.
    shape: [usize; 3],
    /// The member's bytes in the file.
    at: Range<u64>,
    deflated: bool,
    /// Where numpy's values begin in the member, once inflated.
    values: u64,
    reader: Mutex<Reader>,
}

/// A stream over the values and the image that comes next.
struct Reader {
    stream: Option<Stream>,
    next: usize,
}

enum Stream {
    Stored(BufReader<Take<File>>),
    Deflated(Box<DeflateDecoder<BufReader<Take<File>>>>),
}

impl Stream {
    fn read_exact(&mut self, out: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::Stored(stream) => stream.read_exact(out),
            Self::Deflated(stream) => stream.read_exact(out),
        }
    }

    fn skip(&mut self, n: u64) -> std::io::Result<()> {
        let copied = match self {
            Self::Stored(stream) => std::io::copy(&mut stream.take(n), &mut std::io::sink())?,
            Self::Deflated(stream) => std::io::copy(&mut stream.take(n), &mut std::io::sink())?,
        };
        if copied == n { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?}", self.file.display(), self.shape)
    }
}

impl Batch {
    /// Opens an archive; returns `None` if it has no `arr_0`.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if the file cannot be read or is no zip archive, if `arr_0` is neither stored
    /// nor deflated, is not 8-bit `[N, H, W, 3]` in C order, has images over 1 GiB, or has another size
    /// than its shape says.
    pub fn open(path: &Path) -> Result<Option<Self>, BatchError> {
        let wrong = |problem: String| BatchError { file: path.display().to_string(), problem };
        let io = |e: std::io::Error| wrong(e.to_string());
        let damaged = |e: zip::result::ZipError| wrong(format!("damaged archive: {e}"));
        let file = File::open(path).map_err(io)?;
        let file_size = file.metadata().map_err(io)?.len();
        let mut archive = ZipArchive::new(file).map_err(damaged)?;
        let Some(index) = archive.index_for_name(MEMBER) else { return Ok(None) };
        let member = archive.by_index_raw(index).map_err(damaged)?;
        let deflated = match member.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => return Err(wrong(format!("{MEMBER} is compressed by {other}, not deflated"))),
        };
        let start = member
            .data_start()
            .ok_or_else(|| wrong(format!("damaged archive: {MEMBER} has no data offset")))?;
        let (size, packed) = (member.size(), member.compressed_size());
        // What an archive says of a member may be anything.
        let end = start.checked_add(packed).filter(|end| *end <= file_size);
        let at = match end {
            Some(end) if deflated || packed == size => start..end,
            _ => {
                let sizes = format!("{MEMBER} has {packed} bytes for {size} in {file_size}");
                return Err(wrong(format!("damaged archive: {sizes}")));
            }
        };
        drop(member);
        let mut batch = Self {
            file: path.into(),
            shape: [0; 3],
            at,
            deflated,
            values: 0,
            reader: Mutex::new(Reader { stream: None, next: 0 }),
        };
        let header = batch.header().map_err(io)?;
        let header = header.ok_or_else(|| wrong(format!("{MEMBER} is not numpy's format")))?;
        batch.values = header.values;
        batch.shape = header.images().map_err(wrong)?;
        let bytes = batch.shape.iter().try_fold(3u64, |n, &d| n.checked_mul(d as u64));
        if bytes.and_then(|n| n.checked_add(batch.values)) != Some(size) {
            return Err(wrong(format!(
                "{MEMBER} has {size} bytes, which is not its shape {:?}; the file is truncated",
                batch.shape
            )));
        }
        Ok(Some(batch))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether the batch is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads images in order. Continuing after the last call is cheap; otherwise a deflated archive is
    /// read from its beginning.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if the archive can no longer be read, is damaged, or ends before the range.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<Rgb>, BatchError> {
        let wrong = |e: std::io::Error| BatchError {
            file: self.file.display().to_string(),
            problem: match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    format!("{MEMBER} ends before image {}; the file is truncated", range.end)
                }
                _ => format!("image {}: {e}", range.start),
            },
        };
        let [_, height, width] = self.shape;
        let mut reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.go_to(&mut reader, range.start).map_err(wrong)?;
        let mut images = Vec::with_capacity(range.len());
        for _ in range.clone() {
            let mut pixels = vec![0; height * width * 3];
            if let Some(stream) = &mut reader.stream {
                stream.read_exact(&mut pixels).map_err(wrong)?;
            }
            images.push(Rgb { width, height, pixels });
        }
        reader.next = range.end;
        Ok(images)
    }

    fn go_to(&self, reader: &mut Reader, index: usize) -> std::io::Result<()> {
        let size = (self.shape[1] * self.shape[2] * 3) as u64;
        let skip = match &mut reader.stream {
            Some(_) if reader.next == index => return Ok(()),
            Some(Stream::Deflated(_)) if reader.next < index => (index - reader.next) as u64 * size,
            _ => {
                // Values of a stored member have fixed offsets in the file.
                let ahead = self.values + index as u64 * size;
                let skip = if self.deflated { ahead } else { 0 };
                reader.stream = Some(self.stream(ahead - skip)?);
                skip
            }
        };
        let stream = reader.stream.as_mut();
        reader.next = index;
        stream.map_or(Ok(()), |stream| stream.skip(skip))
    }

    /// The member's bytes from `from` on.
    fn stream(&self, from: u64) -> std::io::Result<Stream> {
        let mut file = File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.at.start + from))?;
        let bytes = file.take(self.at.end - self.at.start - from.min(self.at.end - self.at.start));
        let bytes = BufReader::with_capacity(1 << 20, bytes);
        Ok(match self.deflated {
            false => Stream::Stored(bytes),
            true => Stream::Deflated(Box::new(DeflateDecoder::new(bytes))),
        })
    }

    fn header(&self) -> std::io::Result<Option<Header>> {
        let mut stream = self.stream(0)?;
        let mut start = [0; 8];
        stream.read_exact(&mut start)?;
        if &start[..6] != b"\x93NUMPY" {
            return Ok(None);
        }
        let mut bytes = [0; 4];
        let width = if start[6] == 1 { 2 } else { 4 };
        stream.read_exact(&mut bytes[..width])?;
        let len = u32::from_le_bytes(bytes) as usize;
        if len > MAX_HEADER {
            return Ok(None);
        }
        let mut text = vec![0; len];
        stream.read_exact(&mut text)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Some(Header { text, values: (8 + width + len) as u64 }))
    }
}

/// numpy's header: a Python dictionary as text.
struct Header {
    text: String,
    values: u64,
}

impl Header {
    fn field(&self, key: &str) -> &str {
        self.text.split_once(key).map_or("", |(_, rest)| rest.trim_start_matches([':', ' ']))
    }

    /// Images, height and width of `[N, H, W, 3]`.
    fn images(&self) -> Result<[usize; 3], String> {
        let dtype = self.field("'descr'").trim_start_matches('\'').split('\'').next();
        let dtype = dtype.unwrap_or_default();
        let shape = self.field("'shape'").trim_start_matches('(').split(')').next();
        let shape = shape.unwrap_or_default();
        let sizes: Option<Vec<usize>> = shape
            .split(',')
            .map(str::trim)
            .filter(|size| !size.is_empty())
            .map(|size| size.parse().ok())
            .collect();
        let c_order = self.field("'fortran_order'").starts_with("False");
        match (sizes.as_deref(), dtype) {
            (Some(&[n, height, width, 3]), "|u1" | "u1") if c_order && height > 0 && width > 0 => {
                match height.checked_mul(width).and_then(|area| area.checked_mul(3)) {
                    Some(bytes) if bytes as u64 <= MAX_DECODED_BYTES => Ok([n, height, width]),
                    _ => Err(format!(
                        "{MEMBER} has images of {width} x {height}; at most 1 GiB is read"
                    )),
                }
            }
            _ => Err(format!(
                "{MEMBER} is {dtype} of shape ({shape}); images are 8-bit [N, H, W, 3] in C order"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::npz::add;
    use ndarray::{Array1, Array4};
    use std::io::Write;
    use zip::ZipWriter;

    fn write(path: &Path, method: CompressionMethod, images: &Array4<u8>) {
        let mut npz = ZipWriter::new(File::create(path).unwrap());
        add(&mut npz, "arr_0", method, images).unwrap();
        add(&mut npz, "arr_1", method, &Array1::from(vec![1i64, 2])).unwrap();
        npz.finish().unwrap();
    }

    #[test]
    fn images_are_read_in_any_order_stored_or_deflated() {
        let folder = tempfile::tempdir().unwrap();
        let images =
            Array4::from_shape_fn((7, 5, 4, 3), |(n, y, x, c)| (n * 40 + y * 8 + x + c) as u8);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let path = folder.path().join(format!("{method}.npz"));
            write(&path, method, &images);
            let batch = Batch::open(&path).unwrap().unwrap();
            assert_eq!(batch.len(), 7);
            for range in [0..2, 2..3, 5..7, 1..4, 4..4, 6..7, 0..7] {
                let read = batch.read(range.clone()).unwrap();
                assert_eq!(read.len(), range.len());
                for (i, image) in range.zip(read) {
                    assert_eq!((image.width, image.height), (4, 5));
                    let expected = images.index_axis(ndarray::Axis(0), i);
                    assert!(image.pixels.iter().eq(expected.iter()), "image {i}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_batch_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let stored = CompressionMethod::Stored;
        let mut npz = ZipWriter::new(File::create(&path).unwrap());
        add(&mut npz, "arr_0", stored, &Array4::<f32>::zeros((2, 3, 8, 8))).unwrap();
        npz.finish().unwrap();
        let error = Batch::open(&path).unwrap_err().to_string();
        assert!(error.contains("<f4") && error.contains("(2, 3, 8, 8)"), "{error}");
        let mut npz = ZipWriter::new(File::create(&path).unwrap());
        add(&mut npz, "mu", stored, &Array1::<f64>::zeros(3)).unwrap();
        npz.finish().unwrap();
        assert!(Batch::open(&path).unwrap().is_none());
        write(&path, stored, &Array4::zeros((9, 16, 16, 3)));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(Batch::open(&path).unwrap_err().to_string().contains("damaged"));
    }

    /// An archive of one member with twelve values, whose list says that the values take so many bytes, packed and
    /// unpacked.
    fn claiming(path: &Path, method: CompressionMethod, shape: &str, says: Option<[u32; 2]>) {
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let len = (text.len() as u16).to_le_bytes();
        let header = [b"\x93NUMPY\x01\0".as_slice(), &len, text.as_bytes()].concat();
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        let mut npz = ZipWriter::new(File::create(path).unwrap());
        npz.start_file(MEMBER, options).unwrap();
        npz.write_all(&[header.as_slice(), &[7; 12]].concat()).unwrap();
        npz.finish().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let list = bytes.windows(4).rposition(|part| part == b"PK\x01\x02").unwrap();
        for (at, values) in [list + 20, list + 24].into_iter().zip(says.into_iter().flatten()) {
            let size = header.len() as u32 + values;
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn sizes_that_an_archive_only_claims_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let opened = |method, shape: &str, says| {
            claiming(&path, method, shape, says);
            Batch::open(&path)
                .map(|batch| batch.map(|batch| batch.shape))
                .map_err(|e| e.to_string())
        };
        let [stored, deflated] = [CompressionMethod::Stored, CompressionMethod::Deflated];
        for method in [stored, deflated] {
            assert_eq!(opened(method, "(1, 2, 2, 3)", None), Ok(Some([1, 2, 2])));
            // The second is so large that its size is no number.
            for shape in ["(1, 20000, 20000, 3)", "(1, 9223372036854775808, 2, 3)"] {
                let error = opened(method, shape, None).expect_err("it is too large");
                assert!(error.contains("at most 1 GiB is read"), "{error}");
            }
            let beyond = opened(method, "(1, 100, 100, 3)", Some([30_000; 2]));
            assert!(beyond.expect_err("it is cut").contains("damaged archive: arr_0.npy"));
        }
        let shorter = opened(stored, "(1, 100, 100, 3)", Some([12, 30_000]));
        assert!(shorter.expect_err("it is not packed").contains("damaged archive: arr_0.npy"));
    }
}
