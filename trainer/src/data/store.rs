//! The image store: 8-bit images of one size in safetensors shards, memory-mapped, with their
//! classes and checksums.
//!
//! `store.json` describes the store; `images_00000.safetensors` and so on hold `images`
//! `[n, side, side, 3]` (RGB) and `labels` `[n]` (−1 for none).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use tintype::files::Identity;
use tintype::image::Rgb;
use tintype::weights::{Dtype, TensorView, Weights, WeightsError, open};

use super::fingerprint::Fingerprint;
use super::rows::Rows;

/// The description of a store.
pub const STORE_FILE: &str = "store.json";

/// What can be wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A shard is damaged.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The store does not match its description.
    #[error("{file}: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// The problem and how to fix it.
        problem: String,
    },
}

/// `store.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Version of this layout.
    pub version: u32,
    /// Side of every image.
    pub side: usize,
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// The shards in order.
    pub shards: Vec<Shard>,
    /// Images of the source that were left out; `skipped.txt` lists them.
    pub skipped: usize,
    /// The same by reason.
    #[serde(default)]
    pub skipped_by_reason: BTreeMap<String, usize>,
    /// Hidden files and files of systems, such as those below `__MACOSX`.
    #[serde(default)]
    pub hidden: usize,
    /// Images that were smaller than `side` and enlarged.
    #[serde(default)]
    pub enlarged: usize,
    /// Where the labels come from.
    #[serde(default)]
    pub labelled_by: String,
    /// What it was made from; not in stores of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Its file in the store's folder.
    pub file: String,
    /// Images in it.
    pub count: usize,
    /// CRC-32C of the file.
    pub crc32c: u32,
}

/// An opened store.
#[derive(Debug)]
pub struct ImageStore {
    folder: PathBuf,
    /// Its description.
    pub description: Description,
    shards: Vec<Weights>,
    rows: Rows,
    labels: Vec<Option<usize>>,
}

fn damaged(file: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Damaged { file: file.display().to_string(), problem: problem.into() }
}

impl ImageStore {
    /// Opens a store; images are mapped, not read.
    ///
    /// # Errors
    ///
    /// * [`StoreError::Io`]: the description cannot be read.
    /// * [`StoreError::Weights`]: a shard cannot be read.
    /// * [`StoreError::Damaged`]: there is no description, it names a file elsewhere, or a shard is not what it says.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let file = folder.join(STORE_FILE);
        let text = std::fs::read_to_string(&file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => damaged(
                folder,
                "not an image store, or not finished; make it with `tintype prepare`",
            ),
            _ => StoreError::Io { file: file.display().to_string(), source },
        })?;
        let description: Description = serde_json::from_str(&text)
            .map_err(|e| damaged(&file, format!("not a description of a store: {e}")))?;
        let (mut shards, mut labels, mut rows) = (Vec::new(), Vec::new(), Rows::default());
        for shard in &description.shards {
            if !is_name(&shard.file) {
                let problem = format!("{:?} is not the name of a file in this folder", shard.file);
                return Err(damaged(&file, problem));
            }
            let path = folder.join(&shard.file);
            let weights = open(&path)?;
            let side = description.side;
            let (images, stored) = (tensor(&weights, "images")?, tensor(&weights, "labels")?);
            // A tensor of a PyTorch file may have its values in another order.
            if side == 0
                || images.shape != [shard.count, side, side, 3]
                || images.slice(0, images.len()).is_none()
                || images.dtype != Dtype::U8
                || stored.shape != [shard.count]
            {
                return Err(damaged(
                    &path,
                    "its images are not those of the store's description; prepare it again",
                ));
            }
            labels.extend(stored.to_i64().into_iter().map(|l| usize::try_from(l).ok()));
            rows.push(shard.count);
            shards.push(weights);
        }
        Ok(Self { folder: folder.into(), description, shards, rows, labels })
    }

    /// Tells stores apart by the checksums of their shards, and so by their pixels, labels and sources.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for Shard { count, crc32c, .. } in &self.description.shards {
            fingerprint.add(&format!("{count} {crc32c:08x}"));
        }
        fingerprint
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the store is empty.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Side of every image.
    pub fn side(&self) -> usize {
        self.description.side
    }

    /// The class of an image.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> Option<usize> {
        self.labels[index]
    }

    /// All classes in order.
    pub fn labels(&self) -> &[Option<usize>] {
        &self.labels
    }

    /// The pixels of an image, `[side, side, 3]`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn pixels(&self, index: usize) -> &[u8] {
        let size = self.side() * self.side() * 3;
        let Some((shard, row)) = self.rows.place(index) else {
            panic!("image {index} of {}", self.len());
        };
        let slice = self.shards[shard].tensors["images"].slice(row * size, size);
        slice.expect("shapes were checked when the store was opened")
    }

    /// An image.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> Rgb {
        let side = self.side();
        Rgb { width: side, height: side, pixels: self.pixels(index).to_vec() }
    }

    /// An image as planes `[3, side, side]` in −1…1: `u8/127.5 − 1`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    pub fn planes(&self, index: usize) -> Vec<f32> {
        let pixels = self.pixels(index);
        let plane = |c: usize| pixels.iter().skip(c).step_by(3).map(|&v| v as f32 / 127.5 - 1.0);
        (0..3).flat_map(plane).collect()
    }

    /// [`open`](Self::open) with [`verify`](Self::verify), unless the store is so large (over
    /// 8 GiB) that reading it all would delay the work; `tintype prepare` verifies those.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`verify`](Self::verify).
    pub fn open_verified(folder: &Path) -> Result<Self, StoreError> {
        let store = Self::open(folder)?;
        if store.len() * store.side() * store.side() * 3 <= 8 << 30 {
            store.verify()?;
        }
        Ok(store)
    }

    /// Compares every shard with its checksum.
    ///
    /// # Errors
    ///
    /// * [`StoreError::Io`]: a shard cannot be read.
    /// * [`StoreError::Damaged`]: the checksum of a shard is wrong.
    pub fn verify(&self) -> Result<(), StoreError> {
        self.verify_except(&BTreeSet::new())
    }

    /// [`verify`](Self::verify) of all shards but those in these files: the caller has read each of them as a whole,
    /// and found the checksum that the description has, or recorded the one that it found.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_except(&self, read: &BTreeSet<String>) -> Result<(), StoreError> {
        for shard in self.description.shards.iter().filter(|shard| !read.contains(&shard.file)) {
            let path = self.folder.join(&shard.file);
            let crc = file_crc32c(&path)
                .map_err(|source| StoreError::Io { file: path.display().to_string(), source })?;
            if crc != shard.crc32c {
                return Err(damaged(
                    &path,
                    "its checksum is wrong; delete this file and run the same `tintype prepare` again",
                ));
            }
        }
        Ok(())
    }
}

/// Whether a text is the name of a file, and no path that leads elsewhere.
fn is_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file)
}

fn tensor<'a>(weights: &'a Weights, name: &str) -> Result<&'a TensorView, StoreError> {
    weights.tensors.get(name).ok_or_else(|| StoreError::Damaged {
        file: weights.file.clone(),
        problem: format!("it has no tensor {name:?}"),
    })
}

/// CRC-32C of a file, read in pieces.
///
/// # Errors
///
/// If the file cannot be opened or read.
pub fn file_crc32c(path: &Path) -> std::io::Result<u32> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut crc = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc),
            n => crc = crc32c::crc32c_append(crc, &buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use tempfile::TempDir;
    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    /// A tensor as PyTorch pickles it: `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn pickled(name: &str, class: &str, key: &str, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let text = |text: &str| {
            let len = (text.len() as u32).to_le_bytes();
            [b"X".as_slice(), &len, text.as_bytes()].concat()
        };
        let numbers = |all: &[u8]| {
            let numbers: Vec<u8> = all.iter().flat_map(|number| [b'K', *number]).collect();
            [b"(".as_slice(), &numbers, b"t"].concat()
        };
        [
            text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            format!("ctorch\n{class}\n").into_bytes(),
            text(key),
            text("cpu"),
            b"K\x18tQK\0".to_vec(),
            numbers(shape),
            numbers(strides),
            b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ]
        .concat()
    }

    /// A PyTorch file with two images of 2 × 2 and their labels.
    fn shard(strides: [u8; 4]) -> Vec<u8> {
        let pickle = [
            b"\x80\x02}(".to_vec(),
            pickled("images", "ByteStorage", "0", &[2, 2, 2, 3], &strides),
            pickled("labels", "LongStorage", "1", &[2], &[1]),
            b"u.".to_vec(),
        ]
        .concat();
        let (pixels, labels) = ((0..24).collect::<Vec<u8>>(), vec![0u8; 16]);
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [("data.pkl", pickle), ("data/0", pixels), ("data/1", labels)] {
            zip.start_file(format!("archive/{name}"), options).expect("it starts");
            zip.write_all(&bytes).expect("it is written");
        }
        zip.finish().expect("it ends").into_inner()
    }

    /// Describes a store of such a shard.
    fn describe(folder: &Path, file: &str) {
        let description = serde_json::json!({
            "version": 1,
            "side": 2,
            "classes": [],
            "shards": [{"file": file, "count": 2, "crc32c": 0}],
            "skipped": 0,
        });
        std::fs::write(folder.join(STORE_FILE), description.to_string()).expect("it is written");
    }

    #[test]
    fn images_that_are_turned_in_their_file_are_refused() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("x.safetensors");
        describe(folder.path(), "x.safetensors");
        std::fs::write(&path, shard([12, 6, 3, 1])).expect("it is written");
        let store = ImageStore::open(folder.path()).expect("a store");
        assert_eq!(store.pixels(1), (12..24).collect::<Vec<u8>>());
        drop(store);
        // The channels first.
        std::fs::write(&path, shard([12, 2, 1, 4])).expect("it is written");
        let error = ImageStore::open(folder.path()).expect_err("they are turned").to_string();
        assert!(error.contains("x.safetensors: its images are not those"), "{error}");
    }

    #[test]
    fn shards_lie_in_the_folder_of_their_store() {
        let place = TempDir::new().expect("a folder");
        let (folder, outside) = (place.path().join("store"), place.path().join("x.safetensors"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(&outside, shard([12, 6, 3, 1])).expect("it is written");
        for name in ["../x.safetensors", outside.to_str().expect("UTF-8"), "..", ""] {
            describe(&folder, name);
            let error = ImageStore::open(&folder).expect_err(name).to_string();
            assert!(error.contains("store.json: ") && error.contains("not the name"), "{error}");
        }
    }
}
