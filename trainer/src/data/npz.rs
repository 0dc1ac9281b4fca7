//! numpy archives: FID statistics, reference batches, samples (`checkpoints` §4).

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use anyhow::Context;
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::{ReadNpyExt, ReadableElement, WriteNpyExt, npy};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use tintype::files::{Identity, rename, sync, sync_folder, temporary_name};
use tintype_metrics::frechet::Statistics;

/// The member with the identity of statistics.
const IDENTITY_FILE: &str = "identity.json";
/// Bytes of the longest identity that is read.
const MAX_IDENTITY: u64 = 1 << 20;
/// Bytes of the longest header of an array that is read, as in numpy.
const MAX_HEADER: usize = 10_000;
/// The most bytes that a byte of deflated data can become.
const MAX_INFLATED: u64 = 1032;

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct NpzError {
    file: String,
    problem: String,
}

/// An opened archive.
pub struct Npz {
    file: String,
    archive: ZipArchive<BufReader<File>>,
    /// Bytes of the file.
    len: u64,
}

impl Npz {
    /// Opens an archive.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the file cannot be read or is no zip archive.
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let file = path.display().to_string();
        let wrap = |problem: String| NpzError { file: file.clone(), problem };
        let opened = File::open(path).map_err(|e| wrap(e.to_string()))?;
        let len = opened.metadata().map_err(|e| wrap(e.to_string()))?.len();
        let archive = ZipArchive::new(BufReader::new(opened)).map_err(|e| wrap(e.to_string()))?;
        Ok(Self { file: file.clone(), archive, len })
    }

    /// Names of the arrays, without `.npy`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the name of a member cannot be decoded.
    pub fn names(&self) -> Result<Vec<String>, NpzError> {
        let names: Result<Vec<_>, _> = self.archive.file_names().collect();
        let names = names.map_err(|e| self.problem(&e))?;
        Ok(names.iter().map(|n| n.trim_end_matches(".npy").to_string()).collect())
    }

    /// The identity that the archive carries, as JSON; `None` in archives of other tools.
    pub fn identity(&mut self) -> Option<String> {
        let entry = self.archive.by_name(IDENTITY_FILE).ok()?;
        let mut text = String::new();
        entry.take(MAX_IDENTITY + 1).read_to_string(&mut text).ok()?;
        (text.len() as u64 <= MAX_IDENTITY).then_some(text)
    }

    /// `mu` and `sigma` (float64, or float32 widened).
    ///
    /// # Errors
    ///
    /// As [`statistics_named`](Self::statistics_named).
    pub fn statistics(&mut self) -> Result<Statistics, NpzError> {
        self.statistics_named("mu", "sigma")
    }

    /// Statistics under other names, such as ADM's `mu_s` and `sigma_s`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if an array is missing, is not of floats, or the two are not `[d]` and `[d,
    /// d]`.
    pub fn statistics_named(&mut self, mu: &str, sigma: &str) -> Result<Statistics, NpzError> {
        let mu: ArrayD<f64> = self.floats(mu)?;
        let sigma: ArrayD<f64> = self.floats(sigma)?;
        let d = mu.len();
        if mu.ndim() != 1 || sigma.shape() != [d, d] {
            let shapes = format!("mu is {:?} and sigma {:?}", mu.shape(), sigma.shape());
            return Err(self.problem(&shapes));
        }
        let wrong = |e: ndarray::ShapeError| self.problem(&e.to_string());
        Ok(Statistics {
            mu: mu.into_dimensionality().map_err(wrong)?,
            sigma: sigma.into_dimensionality().map_err(wrong)?,
        })
    }

    /// A float array in float64.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the array is missing, damaged, or neither float64 nor float32.
    pub fn floats(&mut self, name: &str) -> Result<ArrayD<f64>, NpzError> {
        let size = self.opened(name)?.0.size;
        match size {
            4 => Ok(self.array::<f32>(name)?.mapv(f64::from)),
            _ => self.array(name),
        }
    }

    /// An 8-bit array, such as `arr_0` of a batch of images `[n, H, W, 3]`.
    ///
    /// # Errors
    ///
    /// [`NpzError`] if the array is missing, damaged, or not 8-bit.
    pub fn bytes(&mut self, name: &str) -> Result<ArrayD<u8>, NpzError> {
        self.array(name)
    }

    fn array<T: ReadableElement>(&mut self, name: &str) -> Result<ArrayD<T>, NpzError> {
        let file = self.file.clone();
        let wrong = |problem: String| NpzError { file, problem: format!("{name}.npy: {problem}") };
        let (header, values) = self.opened(name)?;
        if header.size != size_of::<T>() {
            return Err(wrong(format!("its values are of type {}", header.dtype)));
        }
        let array = ArrayD::read_npy(header.bytes.chain(BufReader::new(values)));
        array.map_err(|e| wrong(e.to_string()))
    }

    /// An array's header, and its values behind it. By what the archive says there are as many as the header says, for
    /// which memory is reserved before they are read.
    fn opened(&mut self, name: &str) -> Result<(Header, impl Read), NpzError> {
        let member = format!("{name}.npy");
        let wrong = |problem: String| NpzError {
            file: self.file.clone(),
            problem: format!("{member}: {problem}"),
        };
        let mut entry = self.archive.by_name(&member).map_err(|e| wrong(e.to_string()))?;
        let size = entry.size();
        if size > self.len.saturating_mul(MAX_INFLATED) {
            return Err(wrong(format!("it claims {size} bytes, in a file of {}", self.len)));
        }
        let header = Header::read(&mut entry, size).map_err(wrong)?;
        // A byte more, if there is one, is an error; any number of them are not read.
        let rest = size - header.bytes.get_ref().len() as u64;
        Ok((header, entry.take(rest + 1)))
    }

    fn problem(&self, problem: &dyn std::fmt::Display) -> NpzError {
        NpzError { file: self.file.clone(), problem: problem.to_string() }
    }
}

/// numpy's header of an array.
struct Header {
    /// As it lies in the file.
    bytes: Cursor<Vec<u8>>,
    /// numpy's name of the type.
    dtype: String,
    /// Bytes of a value.
    size: usize,
}

impl Header {
    /// Reads the header of a member of so many bytes, and checks that they are what it says.
    fn read(member: &mut impl Read, bytes: u64) -> Result<Self, String> {
        let io = |e: std::io::Error| e.to_string();
        let mut start = vec![0; 8];
        member.read_exact(&mut start).map_err(io)?;
        // Version 1 has two bytes for the length of what follows, later ones four.
        let mut len = [0; 4];
        let width = if start[6] == 1 { 2 } else { 4 };
        member.read_exact(&mut len[..width]).map_err(io)?;
        start.extend(&len[..width]);
        let len = u32::from_le_bytes(len) as usize;
        if !start.starts_with(b"\x93NUMPY") || len > MAX_HEADER {
            return Err("it is not numpy's format".into());
        }
        let mut text = vec![0; len];
        member.read_exact(&mut text).map_err(io)?;
        // A dictionary with a tuple. The parser below calls itself for what is in brackets.
        let count = |letters: &[u8]| text.iter().filter(|b| letters.contains(b)).count();
        if count(b"([{") > 2 || count(b"+-") > 0 {
            return Err("its header is not that of an array of numbers".into());
        }
        start.extend(text);
        let header = npy::header::Header::from_reader(&mut start.as_slice());
        let header = header.map_err(|e| e.to_string())?;
        let dtype = header.type_descriptor.as_string().cloned().unwrap_or_default();
        let digits = dtype.trim_start_matches(|c: char| !c.is_ascii_digit());
        let size = digits.parse().unwrap_or(1);
        // An axis of length 0 may stand beside one that is too long.
        let values = header.shape.iter().try_fold(size, |n: usize, &d| n.checked_mul(d.max(1)));
        let values = values.filter(|&n| isize::try_from(n).is_ok());
        let values = if header.shape.contains(&0) { values.map(|_| 0) } else { values };
        let all = values.and_then(|n| n.checked_add(start.len()));
        if all.and_then(|n| u64::try_from(n).ok()) != Some(bytes) {
            let shape = header.shape;
            return Err(format!(
                "it has {bytes} bytes, which is not its shape {shape:?} of {dtype}"
            ));
        }
        Ok(Self { bytes: Cursor::new(start), dtype, size })
    }
}

/// Adds an array to an archive.
///
/// # Errors
///
/// If the archive cannot be written.
pub fn add<W: Write + Seek>(
    archive: &mut ZipWriter<W>,
    name: &str,
    method: CompressionMethod,
    array: &impl WriteNpyExt,
) -> anyhow::Result<()> {
    let options = SimpleFileOptions::default().compression_method(method).large_file(true);
    archive.start_file(format!("{name}.npy"), options)?;
    Ok(array.write_npy(archive)?)
}

/// Writes means and covariances under their names, deflated as pytorch-fid does, and beside them the identity, which
/// numpy's readers pass over; under a temporary name first.
///
/// # Errors
///
/// If the archive cannot be written; an older one of the same name is then still there.
pub fn write_statistics(
    path: &Path,
    named: &[(&str, &Array1<f64>, &str, &Array2<f64>)],
    identity: &Identity,
) -> anyhow::Result<()> {
    let temporary = temporary_name(path);
    let written = (|| -> anyhow::Result<()> {
        let mut npz = ZipWriter::new(File::create(&temporary)?);
        for (mu, mean, sigma, covariance) in named {
            add(&mut npz, mu, CompressionMethod::Deflated, *mean)?;
            add(&mut npz, sigma, CompressionMethod::Deflated, *covariance)?;
        }
        npz.start_file(IDENTITY_FILE, SimpleFileOptions::default())?;
        npz.write_all(identity.text().as_bytes())?;
        sync(&npz.finish()?)?;
        rename(&temporary, path)?;
        Ok(sync_folder(path)?)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// An archive with a member of these bytes, deflated.
    fn archive(place: &TempDir, member: &str, bytes: &[u8]) -> PathBuf {
        let path = place.path().join("x.npz");
        let mut npz = ZipWriter::new(File::create(&path).expect("a file"));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        npz.start_file(member, options).expect("it starts");
        npz.write_all(bytes).expect("it is written");
        npz.finish().expect("it ends");
        path
    }

    fn npy(header: &str, values: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), values].concat()
    }

    fn header(dtype: &str, shape: &str) -> String {
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n")
    }

    #[test]
    fn memory_is_not_reserved_by_the_header_alone() {
        let place = TempDir::new().expect("a folder");
        let floats = |header: &str, values: &[u8]| {
            let path = archive(&place, "mu.npy", &npy(header, values));
            Npz::open(&path).expect("it opens").floats("mu")
        };
        let values = [1.0f64, 2.0].map(f64::to_le_bytes).concat();
        let read = floats(&header("<f8", "(2,)"), &values).expect("two numbers");
        assert_eq!(read.as_slice(), Some([1.0, 2.0].as_slice()));
        let short = [1.0f32, 2.0].map(f32::to_le_bytes).concat();
        let read = floats(&header("<f4", "(2,)"), &short).expect("two numbers");
        assert_eq!(read.as_slice(), Some([1.0, 2.0].as_slice()));
        let long = 1u64 << 62;
        for (header, words) in [
            (header("<f8", "(1152921504606846975,)"), "which is not its shape"),
            (header("<f8", "(3,)"), "which is not its shape"),
            (header("<f8", "(1,)"), "which is not its shape"),
            (header("<f8", &format!("(0, {long}, {long})")), "which is not its shape"),
            (header("<i8", "(2,)"), "<i8"),
            (header("<i4", "(4,)"), "<i4"),
            (header("|u1", "(16,)"), "of type |u1"),
            ("(".repeat(MAX_HEADER), "not that of an array"),
            (" ".repeat(MAX_HEADER + 1), "not numpy's format"),
        ] {
            let error = floats(&header, &values).expect_err(words).to_string();
            assert!(error.contains("x.npz: mu.npy: ") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_member_is_no_larger_than_its_file_can_hold() {
        let place = TempDir::new().expect("a folder");
        let path = archive(&place, "mu.npy", &npy(&header("<f8", "(536870900,)"), &[0; 8]));
        // The archive says that the header is right: four gigabytes.
        let mut bytes = std::fs::read(&path).expect("it was written");
        let list = bytes.windows(4).position(|part| part == b"PK\x01\x02").expect("a list");
        bytes[list + 24..list + 28].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
        std::fs::write(&path, bytes).expect("it is written");
        let error = Npz::open(&path).expect("it opens").floats("mu").expect_err("it claims");
        assert!(error.to_string().contains("claims 4294967294 bytes"), "{error}");
    }

    #[test]
    fn an_identity_is_short() {
        let place = TempDir::new().expect("a folder");
        for (bytes, read) in [(MAX_IDENTITY, true), (MAX_IDENTITY + 1, false)] {
            let path = archive(&place, IDENTITY_FILE, &vec![b' '; bytes as usize]);
            let identity = Npz::open(&path).expect("it opens").identity();
            assert_eq!(identity.is_some(), read, "{bytes}");
        }
    }
}
