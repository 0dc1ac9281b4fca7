//! REPA-E's and Hi-DiT's HDF5 stores (`checkpoints` §3): tens to hundreds of gigabytes, read by position.

mod index;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::fingerprint::Fingerprint;
use super::made::IDENTITY;
use super::positioned::{MOST_BYTES, Positioned, is_of_system};
use super::source::filter::{Kind, kind};
use super::source::labels::{Labels, from_json};
use hdf5_pure::{Dataset, Error, File, FormatError};
use index::Index;
use tintype::files::read_text;

pub use writer::{GROUP, Hdf5Writer, Payload, item_name};

/// What can be wrong with a store.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct StoreError {
    file: String,
    problem: String,
    /// Whether it is an error of the system or the disk.
    of_system: bool,
}

impl StoreError {
    /// Whether it is an error of the system or the disk, and not of what is in the store.
    pub(in crate::data) fn is_of_system(&self) -> bool {
        self.of_system
    }
}

/// Why an item cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    reason: String,
    of_system: bool,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let of_system = matches!(e, Error::Io(_) | Error::Format(FormatError::Source(_)));
        Self { reason: e.to_string(), of_system }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self { of_system: is_of_system(&e), reason: e.to_string() }
    }
}

/// A store of images or latent moments: an `.h5` file with its `_h5.json` list of names.
pub struct Hdf5Store {
    name: String,
    /// What reads all that is not in one piece.
    file: File,
    bytes: Positioned,
    index: Index,
    /// Names of the items in the order of the data set.
    pub items: Vec<String>,
    /// What its `dataset.json` says, or why that cannot be used.
    labels: Result<Labels, String>,
}

impl Hdf5Store {
    /// Opens `x.h5`, whose list is `x_h5.json` beside it. Items stay in the file until they are read.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file or its list cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let wrap = |problem: String| StoreError { file: name.clone(), problem, of_system: false };
        let bytes = Positioned::open(path).map_err(|e| wrap(e.to_string()))?;
        let file = File::from_source(bytes.clone()).map_err(|e| wrap(e.to_string()))?;
        let index = Index::new(&file).map_err(|e| wrap(e.to_string()))?;
        let list = list_of(path);
        let text = read_text(&list)
            .map_err(|e| wrap(format!("its list {} cannot be read: {e}", list.display())))?;
        let names: Vec<String> = serde_json::from_str(&text)
            .map_err(|e| wrap(format!("its list {} is damaged: {e}", list.display())))?;
        let is_item =
            |n: &String| n.ends_with(".npy") || matches!(kind(n), Kind::Image | Kind::UnreadImage);
        let mut items: Vec<String> = names.into_iter().filter(is_item).collect();
        items.sort();
        let mut store = Self { name: name.clone(), file, bytes, index, items, labels: Ok(None) };
        store.labels = store.other("dataset.json").map_err(|e| e.to_string()).and_then(|json| {
            let end = json.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
            from_json(&json[..end])
        });
        Ok(store)
    }

    /// [`open`](Self::open), once in this process: whoever opens the same file while another holds it, shares it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn shared(path: &Path) -> Result<Arc<Self>, StoreError> {
        static OPENED: Mutex<Option<HashMap<String, Weak<Hdf5Store>>>> = Mutex::new(None);
        let mut key = Fingerprint::of(&path.display().to_string());
        key.add_file(path);
        key.add_file(&list_of(path));
        // Whoever comes second waits, rather than reads the list, too.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.get_or_insert_default();
        if let Some(store) = opened.get(&key.to_string()).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let store = Arc::new(Self::open(path)?);
        opened.retain(|_, store| store.strong_count() > 0);
        opened.insert(key.to_string(), Arc::downgrade(&store));
        Ok(store)
    }

    /// The labels in its `dataset.json` by item; `None` if there are none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if `dataset.json` is missing or has no list of labels.
    pub fn labels(&self) -> Result<Option<&BTreeMap<String, Option<usize>>>, StoreError> {
        let problem = |problem: &String| StoreError {
            file: self.name.clone(),
            problem: problem.clone(),
            of_system: false,
        };
        self.labels.as_ref().map(Option::as_ref).map_err(problem)
    }

    /// The `.h5` file.
    pub fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    /// The label of an item; `None` if it has none.
    pub fn label(&self, item: &str) -> Option<usize> {
        self.labels.as_ref().ok()?.as_ref()?.get(item).copied().flatten()
    }

    /// The bytes of a data set: of an image the encoded file.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if there is no such data set, or it cannot be read.
    pub fn bytes(&self, item: &str) -> Result<Vec<u8>, StoreError> {
        match self.index.place(item).map_err(|e| self.problem(item, e))? {
            Some(place) => self.bytes.read(place.at, place.len).map_err(|e| self.problem(item, e)),
            None => self.other(item),
        }
    }

    /// The bytes of a data set that is not in one piece, or not in the index.
    fn other(&self, item: &str) -> Result<Vec<u8>, StoreError> {
        let (dataset, _) = self.dataset(item)?;
        dataset.read_raw().map_err(|e| self.problem(item, e))
    }

    /// A data set that may be read as a whole, and its shape. Without storage, or packed, a data set of any size takes a
    /// few bytes of a file; none has more than the file that it is in.
    fn dataset(&self, item: &str) -> Result<(Dataset, Vec<u64>), StoreError> {
        let dataset = self.file.dataset(item).map_err(|e| self.problem(item, e))?;
        let shape = dataset.shape().map_err(|e| self.problem(item, e))?;
        let element = dataset.element_size().map_err(|e| self.problem(item, e))?;
        let size = shape.iter().try_fold(element, |size, d| size.checked_mul(*d));
        let most = MOST_BYTES.min(self.bytes.size());
        if size.is_none_or(|size| size > most) {
            let values = format!("{shape:?} values of {element} bytes");
            let reason =
                format!("{values} are more than the {most} bytes that are read of this file");
            return Err(self.problem(item, Failure { reason, of_system: false }));
        }
        Ok((dataset, shape))
    }

    /// The moments `[2·C, h, w]` of a latent, mean first, and their shape.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if there is no such data set, or it does not hold floats.
    pub fn moments(&self, item: &str) -> Result<(Vec<f32>, Vec<usize>), StoreError> {
        let place = self.index.place(item).map_err(|e| self.problem(item, e))?;
        if let Some(place) = place.filter(|place| place.is_f32) {
            let bytes = self.bytes.read(place.at, place.len);
            let bytes = bytes.map_err(|e| self.problem(item, e))?;
            let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            return Ok((bytes.chunks_exact(4).map(value).collect(), place.shape.to_vec()));
        }
        let (dataset, shape) = self.dataset(item)?;
        let values = dataset.read_f32().map_err(|e| self.problem(item, e))?;
        Ok((values, shape.into_iter().map(|d| d as usize).collect()))
    }

    fn problem(&self, item: &str, e: impl Into<Failure>) -> StoreError {
        let Failure { reason, of_system } = e.into();
        let problem = format!("{item} cannot be read: {reason}");
        StoreError { file: self.name.clone(), problem, of_system }
    }
}

/// The list of the items' names beside `x.h5`: `x_h5.json`.
pub(in crate::data) fn list_of(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}_h5.json"))
}

/// A file for reading by position.
fn streamed(path: &Path) -> Result<File, StoreError> {
    let wrap =
        |e: String| StoreError { file: path.display().to_string(), problem: e, of_system: false };
    let bytes = Positioned::open(path).map_err(|e| wrap(e.to_string()))?;
    File::from_source(bytes).map_err(|e| wrap(e.to_string()))
}

/// The identity that a file carries as JSON in an attribute of its root, which other readers pass over.
pub(in crate::data) fn identity_of(path: &Path) -> Result<Option<String>, StoreError> {
    let wrap = |problem: String| StoreError {
        file: path.display().to_string(),
        problem,
        of_system: false,
    };
    let attributes = streamed(path)?.root().attrs().map_err(|e| wrap(e.to_string()))?;
    Ok(attributes.get(IDENTITY).and_then(|value| value.as_str()).map(String::from))
}

#[cfg(test)]
mod tests {
    use hdf5_pure::FileBuilder;

    use super::*;

    #[test]
    fn no_more_values_are_read_than_a_file_can_have() {
        const LEN: usize = 4 << 20;
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("x.h5");
        // Zeros, which take a thousandth when they are packed.
        let mut file = FileBuilder::new();
        for name in ["dataset.json", "0.png"] {
            let dataset = file.create_dataset(name).with_u8_data(&vec![0; LEN]);
            dataset.with_chunks(&[LEN as u64]).with_deflate(6);
        }
        let dataset = file.create_dataset("1.npy").with_f32_data(&vec![0.0; LEN]);
        dataset.with_chunks(&[LEN as u64]).with_deflate(6);
        let bytes = file.finish().expect("it is written");
        assert!(bytes.len() < LEN / 100, "{} bytes", bytes.len());
        std::fs::write(&path, bytes).expect("it is written");
        std::fs::write(list_of(&path), r#"["0.png", "1.npy"]"#).expect("it is written");
        let store = Hdf5Store::open(&path).expect("it opens");
        for (item, error) in [
            ("dataset.json", store.labels().expect_err("it is too large")),
            ("0.png", store.bytes("0.png").expect_err("it is too large")),
            ("1.npy", store.moments("1.npy").expect_err("it is too large")),
        ] {
            let error = error.to_string();
            assert!(error.contains(&format!("{item} cannot be read: [4194304] values")), "{error}");
        }
    }
}
