//! Writing stores, group by group.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hdf5_pure::{
    AttrValue, CharacterSet, DatasetBuilder, Datatype, Error, File, FileBuilder, StringPadding,
};
use tintype::files::{Identity, rename, sync_folder, write_durably};

use super::{StoreError, identity_of, list_of, streamed};
use crate::data::made::{IDENTITY, Other, create_folder, sweep};

/// Items of one group of a store.
pub const GROUP: usize = 1000;
/// The labels, at the top of a store.
const LABELS: &str = "dataset.json";

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
    /// Starts `x.h5`, or resumes an earlier run's `x.h5.partial` of the same identity; `None` if `x.h5` is finished.
    ///
    /// # Errors
    ///
    /// * [`IdentityError`](tintype::files::IdentityError) if either was made from something else, and is not to be
    ///   removed.
    /// * [`StoreError`] if they cannot be read; or the unfinished file cannot be created, or an old one be removed.
    pub fn open(path: &Path, identity: &Identity, other: Other) -> Result<Option<Self>> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let writer = Self { path: path.into(), partial: partial.into() };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        create_folder(folder)?;
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = [name(&writer.partial), name(&list_of(path))];
        sweep(folder, |left| own.iter().any(|own| own == left))?;
        if path.exists() {
            let recorded = identity_of(path)?;
            let compared = identity.check(path, recorded.as_deref());
            other.settle(compared, &[path, list_of(path).as_path()])?;
        }
        if path.exists() {
            return Ok(None);
        }
        if writer.partial.exists() {
            let recorded = identity_of(&writer.partial)?;
            let compared = identity.check(&writer.partial, recorded.as_deref());
            other.settle(compared, &[writer.partial.as_path()])?;
        }
        if !writer.partial.exists() {
            let mut file = FileBuilder::new();
            file.set_attr(IDENTITY, AttrValue::String(identity.text()));
            let bytes = file.finish().map_err(|e| writer.problem(e))?;
            write_durably(&writer.partial, &bytes)?;
        }
        Ok(Some(writer))
    }

    /// Number of complete groups.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the unfinished file cannot be opened.
    pub fn groups(&self) -> Result<usize, StoreError> {
        let names = streamed(&self.partial)?.root().groups().map_err(|e| self.problem(e))?;
        let names: std::collections::HashSet<String> = names.into_iter().collect();
        Ok((0..).take_while(|group| names.contains(&group_name(*group))).count())
    }

    /// The unfinished file, to add to it.
    fn edited(&self) -> Result<File, StoreError> {
        // A process that another thread starts has the lock of a closed file until it runs its own program.
        for _ in 0..40 {
            match File::open_rw(&self.partial) {
                Err(Error::FileLocked(_)) => std::thread::sleep(Duration::from_millis(50)),
                opened => return opened.map_err(|e| self.problem(e)),
            }
        }
        File::open_rw(&self.partial).map_err(|e| self.problem(e))
    }

    /// Adds the next group: item `i` of it is `items[i]`, under the name that [`item_name`] gives.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the group is there already, or the file cannot be written.
    pub fn append(&self, group: usize, items: Vec<(String, Payload)>) -> Result<(), StoreError> {
        let file = self.edited()?;
        let root = file.root();
        root.create_group(&group_name(group)).map_err(|e| self.problem(e))?;
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

    /// Adds the labels, writes the list of names beside the store and gives both their names. Each step is left
    /// out where a process that was killed did it, so that the next one finishes.
    ///
    /// `names` with groups and `dataset.json` where `listing_groups`, as REPA-E lists its images.
    ///
    /// # Errors
    ///
    /// If the labels or the list cannot be written, or the finished file cannot be renamed.
    pub fn finish(self, labels: &[(String, i64)], listing_groups: bool) -> Result<()> {
        if streamed(&self.partial)?.dataset(LABELS).is_err() {
            let file = self.edited()?;
            let json = serde_json::to_vec(&serde_json::json!({ "labels": labels }))?;
            file.root()
                .create_dataset(LABELS, |dataset| string(dataset, json))
                .map_err(|e| self.problem(e))?;
            file.commit().map_err(|e| self.problem(e))?;
        }
        let mut names: Vec<String> = labels.iter().map(|(name, _)| name.clone()).collect();
        if listing_groups {
            names.extend((0..labels.len().div_ceil(GROUP)).map(group_name));
            names.push(LABELS.into());
            names.sort();
        }
        write_durably(&list_of(&self.path), &serde_json::to_vec(&names)?)?;
        // The list first: a store with its final name has all that belongs to it.
        rename(&self.partial, &self.path)
            .and_then(|()| sync_folder(&self.path))
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }

    fn problem(&self, e: impl std::fmt::Display) -> StoreError {
        let (file, problem) = (self.partial.display().to_string(), e.to_string());
        StoreError { file, problem, of_system: false }
    }
}

fn group_name(group: usize) -> String {
    format!("{group:05}")
}

/// The name of item `index`: `00000/img00000000.png`, `00000/img-mean-std-00000000.npy`.
pub fn item_name(index: usize, prefix: &str, extension: &str) -> String {
    format!("{}/{prefix}{index:08}.{extension}", group_name(index / GROUP))
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
