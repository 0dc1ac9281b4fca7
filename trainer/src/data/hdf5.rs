//! REPA-E's and Hi-DiT's HDF5 stores (`checkpoints` §3).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::source::filter::{Kind, kind};
use super::source::labels::{Labels, from_json};
use hdf5_pure::{CharacterSet, DatasetBuilder, Datatype, File, FileBuilder, StringPadding};

/// What can be wrong with a store.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct StoreError {
    file: String,
    problem: String,
}

/// A store of images or latent moments: an `.h5` file with its `_h5.json` list of names.
pub struct Hdf5Store {
    name: String,
    file: File,
    /// Names of the items in the order of the data set.
    pub items: Vec<String>,
    /// What its `dataset.json` says, or why that cannot be used.
    labels: Result<Labels, String>,
}

impl Hdf5Store {
    /// Opens `x.h5`, whose list is `x_h5.json` beside it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the file or its list cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let wrap = |problem: String| StoreError { file: name.clone(), problem };
        let file = File::open(path).map_err(|e| wrap(e.to_string()))?;
        let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let list = path.with_file_name(format!("{stem}_h5.json"));
        let text = std::fs::read_to_string(&list)
            .map_err(|e| wrap(format!("its list {} cannot be read: {e}", list.display())))?;
        let names: Vec<String> = serde_json::from_str(&text)
            .map_err(|e| wrap(format!("its list {} is damaged: {e}", list.display())))?;
        let is_item =
            |n: &String| n.ends_with(".npy") || matches!(kind(n), Kind::Image | Kind::UnreadImage);
        let mut items: Vec<String> = names.into_iter().filter(is_item).collect();
        items.sort();
        let mut store = Self { name: name.clone(), file, items, labels: Ok(None) };
        store.labels = store.bytes("dataset.json").map_err(|e| e.to_string()).and_then(|json| {
            let end = json.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
            from_json(&json[..end])
        });
        Ok(store)
    }

    /// The labels in its `dataset.json` by item; `None` if there are none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if `dataset.json` is missing or has no list of labels.
    pub fn labels(&self) -> Result<Option<&BTreeMap<String, Option<usize>>>, StoreError> {
        let problem =
            |problem: &String| StoreError { file: self.name.clone(), problem: problem.clone() };
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
        self.file.dataset(item).and_then(|d| d.read_raw()).map_err(|e| self.problem(item, e))
    }

    /// The moments `[2·C, h, w]` of a latent, mean first, and their shape.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if there is no such data set, or it does not hold floats.
    pub fn moments(&self, item: &str) -> Result<(Vec<f32>, Vec<usize>), StoreError> {
        let dataset = self.file.dataset(item).map_err(|e| self.problem(item, e))?;
        let shape = dataset.shape().map_err(|e| self.problem(item, e))?;
        let values = dataset.read_f32().map_err(|e| self.problem(item, e))?;
        Ok((values, shape.into_iter().map(|d| d as usize).collect()))
    }

    fn problem(&self, item: &str, e: impl std::fmt::Display) -> StoreError {
        StoreError { file: self.name.clone(), problem: format!("{item} cannot be read: {e}") }
    }
}

/// Items of one group of a store.
pub const GROUP: usize = 1000;

/// What an item of a written store holds.
#[derive(Clone, Debug)]
pub enum Payload {
    /// An encoded image, stored as one fixed-length string.
    File(Vec<u8>),
    /// Float32 values with their shape.
    Floats(Vec<f32>, Vec<u64>),
}

/// Writes a store group by group; a killed process loses the current group.
#[derive(Debug)]
pub struct Hdf5Writer {
    path: PathBuf,
    partial: PathBuf,
}

impl Hdf5Writer {
    /// Starts `x.h5`, or resumes an earlier run's `x.h5.partial`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the unfinished file cannot be created.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let writer = Self { path: path.into(), partial: partial.into() };
        if !writer.partial.exists() {
            FileBuilder::new().write(&writer.partial).map_err(|e| writer.problem(e))?;
        }
        Ok(writer)
    }

    /// Number of complete groups.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the unfinished file cannot be opened.
    pub fn groups(&self) -> Result<usize, StoreError> {
        let file = File::open(&self.partial).map_err(|e| self.problem(e))?;
        Ok((0..).take_while(|g| file.group(&format!("{g:05}")).is_ok()).count())
    }

    /// Adds the next group: item `i` of it is `items[i]`, under the name that [`item_name`] gives.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the group is there already, or the file cannot be written.
    pub fn append(&self, group: usize, items: Vec<(String, Payload)>) -> Result<(), StoreError> {
        let file = File::open_rw(&self.partial).map_err(|e| self.problem(e))?;
        let root = file.root();
        root.create_group(&format!("{group:05}")).map_err(|e| self.problem(e))?;
        for (name, payload) in items {
            root.create_dataset(&name, |dataset| match payload {
                Payload::File(bytes) => string(dataset, bytes),
                Payload::Floats(values, shape) => {
                    dataset.with_f32_data(&values).with_shape(&shape);
                }
            })
            .map_err(|e| self.problem(e))?;
        }
        file.commit().map_err(|e| self.problem(e))
    }

    /// Adds the labels, writes the list of names beside the store and gives both their names.
    ///
    /// `names` with groups and `dataset.json` where `listing_groups`, as REPA-E lists its images.
    ///
    /// # Errors
    ///
    /// If the labels or the list cannot be written, or the finished file cannot be renamed.
    pub fn finish(self, labels: &[(String, i64)], listing_groups: bool) -> anyhow::Result<()> {
        let file = File::open_rw(&self.partial).map_err(|e| self.problem(e))?;
        let json = serde_json::to_vec(&serde_json::json!({ "labels": labels }))?;
        file.root()
            .create_dataset("dataset.json", |dataset| string(dataset, json))
            .map_err(|e| self.problem(e))?;
        file.commit().map_err(|e| self.problem(e))?;
        drop(file);
        let mut names: Vec<String> = labels.iter().map(|(name, _)| name.clone()).collect();
        if listing_groups {
            let groups = labels.len().div_ceil(GROUP);
            names.extend((0..groups).map(|g| format!("{g:05}")));
            names.push("dataset.json".into());
            names.sort();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let list = self.path.with_file_name(format!("{stem}_h5.json"));
        tintype::files::write_whole(&list, &serde_json::to_vec(&names)?)?;
        std::fs::rename(&self.partial, &self.path)?;
        Ok(())
    }

    fn problem(&self, e: impl std::fmt::Display) -> StoreError {
        StoreError { file: self.partial.display().to_string(), problem: e.to_string() }
    }
}

/// The name of item `index`: `00000/img00000000.png`, `00000/img-mean-std-00000000.npy`.
pub fn item_name(index: usize, prefix: &str, extension: &str) -> String {
    format!("{:05}/{prefix}{index:08}.{extension}", index / GROUP)
}

/// One scalar fixed-length string that holds the bytes, zeros included.
fn string(dataset: &mut DatasetBuilder, bytes: Vec<u8>) {
    let datatype = Datatype::String {
        size: bytes.len() as u32,
        padding: StringPadding::NullPad,
        charset: CharacterSet::Ascii,
    };
    dataset.with_raw_data(datatype, bytes, 1).with_shape(&[]);
}
