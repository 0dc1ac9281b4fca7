//! REPA-E's and Hi-DiT's HDF5 stores (`checkpoints` §3).

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_pure::File;

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
    labels: BTreeMap<String, i64>,
}

impl Hdf5Store {
    /// Opens `x.h5`, whose list is `x_h5.json` beside it.
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
        let is_item = |n: &String| {
            [".npy", ".png", ".jpg", ".jpeg", ".bmp", ".webp"].iter().any(|e| n.ends_with(e))
        };
        let mut items: Vec<String> = names.into_iter().filter(is_item).collect();
        items.sort();
        let mut store = Self { name: name.clone(), file, items, labels: BTreeMap::new() };
        #[derive(serde::Deserialize)]
        struct Labels {
            labels: Vec<(String, i64)>,
        }
        let json = store.bytes("dataset.json")?;
        let end = json.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        let labels: Labels = serde_json::from_slice(&json[..end])
            .map_err(|e| wrap(format!("its dataset.json is damaged: {e}")))?;
        store.labels = labels.labels.into_iter().collect();
        Ok(store)
    }

    /// The label of an item.
    pub fn label(&self, item: &str) -> Option<i64> {
        self.labels.get(item).copied()
    }

    /// The bytes of a data set: of an image the encoded file.
    pub fn bytes(&self, item: &str) -> Result<Vec<u8>, StoreError> {
        self.file.dataset(item).and_then(|d| d.read_raw()).map_err(|e| self.problem(item, e))
    }

    /// The moments `[2·C, h, w]` of a latent, mean first, and their shape.
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
