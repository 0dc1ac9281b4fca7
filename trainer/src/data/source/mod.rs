//! Where images come from: folders, tar archives (also of tar archives, as ImageNet is packed), zip
//! archives and HDF5 stores, read in place.

mod classes;
mod container;
pub(in crate::data) mod filter;
pub(in crate::data) mod labels;
mod tar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;
use super::hdf5::{Hdf5Store, list_of};
use classes::{Classes, Problem};
use container::{Container, Listing, Location, list_folder, list_zip};
use filter::{Kind, kind};
use labels::{LABEL_FILE, Labels, from_cls, from_json, key};
use rayon::prelude::*;

pub use container::Skipped;

/// What can be wrong with a source.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct SourceError {
    file: String,
    problem: String,
}

fn error(file: &Path, problem: impl std::fmt::Display) -> SourceError {
    SourceError { file: file.display().to_string(), problem: problem.to_string() }
}

/// How a source is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only what lies below this folder: a split such as `train`. Its path from the top, or its name alone if
    /// no other folder has that.
    pub split: Option<String>,
    /// How many folders are around the class folders; found by itself if `None`.
    pub class_depth: Option<usize>,
    /// A class folder without images keeps its label; else it is an error.
    pub allow_empty: bool,
    /// Every image, whatever its class: labels and class folders are not looked at.
    pub unlabelled: bool,
}

/// The images of a folder or an archive, in the order of their names.
pub struct Source {
    container: Container,
    /// Every image.
    pub items: Vec<Item>,
    /// Class names in the order of the labels; empty where there are no classes.
    pub classes: Vec<String>,
    /// Images, and links to images, that are left out.
    pub skipped: Vec<Skipped>,
    /// Files of systems and tools, such as `.DS_Store` and everything below `__MACOSX`.
    pub hidden: usize,
    /// Where the labels come from, in a sentence.
    pub labelled_by: String,
}

/// One image of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name inside the source, with `/` between folders.
    pub name: String,
    /// Its class.
    pub label: Option<usize>,
    location: Location,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} images in {} classes", self.items.len(), self.classes.len())
    }
}

impl Source {
    /// Opens a folder, a `.tar`, a `.zip`, a folder of `.tar` files, or an `images.h5`.
    ///
    /// Labels come from a `dataset.json` with `labels`, from `KEY.cls` beside each `KEY.png` as in web
    /// datasets, or from the folders that images are in: a folder around all class folders is no class.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if
    /// * the path is missing, unreadable, damaged or of another kind, or has no images
    /// * the top folders are splits (`train`, `test`) and none is chosen, or there is no such split
    /// * a class folder is empty
    /// * labels are listed, and one is missing or not a whole number
    pub fn open(path: &Path, options: &Options) -> Result<Self, SourceError> {
        let (container, mut listing) = list(path)?;
        if let Some(split) = &options.split {
            let folder = find_split(split, &listing).map_err(|problem| error(path, problem))?;
            listing.within(&folder);
        }
        let mut source = Self {
            container,
            items: Vec::new(),
            classes: Vec::new(),
            skipped: Vec::new(),
            hidden: 0,
            labelled_by: "it has no labels".into(),
        };
        let listed = source.sort(listing);
        if source.items.is_empty() {
            let problem = match source.skipped.first() {
                Some(first) => format!(
                    "there are no images in it that can be read; of {} left out, the first is {}: {}",
                    source.skipped.len(),
                    first.name,
                    first.reason
                ),
                None => match &options.split {
                    Some(split) => format!("there are no images in it below {split:?}"),
                    None => "there are no images in it".into(),
                },
            };
            return Err(error(path, problem));
        }
        if !options.unlabelled {
            let labels = source.label(options, &listed);
            labels.map_err(|problem| error(path, problem))?;
        }
        Ok(source)
    }

    /// Takes the images of a listing, and returns what else there is.
    fn sort(&mut self, mut listing: Listing) -> Listing {
        let mut others = Vec::new();
        for (name, location) in listing.files {
            match kind(&name) {
                Kind::Image => self.items.push(Item { name, label: None, location }),
                Kind::UnreadImage => {
                    let format = name.rsplit('.').next().unwrap_or_default().to_ascii_uppercase();
                    let reason = format!("{format} is not an image format that is read");
                    self.skipped.push(Skipped { name, reason });
                }
                Kind::Hidden => self.hidden += 1,
                Kind::Other => others.push((name, location)),
            }
        }
        self.items.sort_by(|a, b| a.name.cmp(&b.name));
        let visible = |skipped: &Skipped| !filter::in_hidden(&skipped.name);
        self.skipped.extend(listing.skipped.drain(..).filter(visible));
        self.skipped.sort_by(|a, b| a.name.cmp(&b.name));
        listing.folders.retain(|folder| !filter::in_hidden(folder));
        Listing { files: others, folders: listing.folders, skipped: Vec::new() }
    }

    /// Gives every image its label; `others` are the files that are not images.
    fn label(&mut self, options: &Options, others: &Listing) -> Result<(), String> {
        if let Container::Hdf5(store) = &self.container {
            let labels = store.labels().map_err(|e| e.to_string())?.cloned();
            return self.label_by_list(labels, |item| item.to_string(), LABEL_FILE);
        }
        if let Some((name, at)) = others.files.iter().find(|(name, _)| name == LABEL_FILE) {
            let bytes = self.container.read(name, at).map_err(|e| e.to_string())?;
            let labels = from_json(&bytes)?;
            return self.label_by_list(labels, |item| item.to_string(), LABEL_FILE);
        }
        let cls: Vec<_> = others.files.iter().filter(|(name, _)| name.ends_with(".cls")).collect();
        if !cls.is_empty() {
            let mut labels = BTreeMap::new();
            for (name, at) in cls {
                let bytes = self.container.read(name, at).map_err(|e| e.to_string())?;
                labels.insert(key(name).to_string(), Some(from_cls(name, &bytes)?));
            }
            return self.label_by_list(Some(labels), |item| key(item).to_string(), ".cls files");
        }
        let names = self.items.iter().map(|item| item.name.as_str());
        let folders = others.folders.iter().map(String::as_str);
        let found = classes::find(names, folders, options.class_depth, options.allow_empty);
        let classes = found.map_err(|problem| self.explain(problem))?;
        self.label_by_folder(options, &classes);
        Ok(())
    }

    /// Labels from a list, whose keys follow from the images' names; `None` for a set without labels.
    fn label_by_list(
        &mut self,
        labels: Labels,
        key: impl Fn(&str) -> String,
        list: &str,
    ) -> Result<(), String> {
        let Some(labels) = labels else {
            self.labelled_by = format!("it has no labels, as {list} says");
            return Ok(());
        };
        for item in &mut self.items {
            let label = labels.get(&key(&item.name));
            item.label =
                *label.ok_or_else(|| format!("{list} has no label for {:?}", item.name))?;
        }
        let count = labels.values().flatten().max().map_or(0, |last| last + 1);
        self.classes = (0..count).map(|class| class.to_string()).collect();
        self.labelled_by = format!("its labels are those of {list}");
        Ok(())
    }

    /// Labels from the class folders; images that are in none are left out.
    fn label_by_folder(&mut self, options: &Options, classes: &Classes) {
        if classes.names.is_empty() {
            return;
        }
        let numbers: BTreeMap<&str, usize> =
            classes.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let (mut items, mut stray) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut self.items) {
            match classes.of(&item.name).and_then(|class| numbers.get(class)) {
                Some(label) => items.push(Item { label: Some(*label), ..item }),
                None => {
                    stray.push(Skipped { name: item.name, reason: "not in a class folder".into() })
                }
            }
        }
        self.items = items;
        self.skipped.extend(stray);
        self.classes = classes.names.clone();
        let order = match classes::are_numbers(&classes.names) {
            true if classes.names.iter().enumerate().all(|(i, name)| name.parse() == Ok(i)) => {
                ", whose numbers are the labels"
            }
            true => ", in the order of their numbers, which are not the labels",
            false => "",
        };
        let split = options.split.as_deref().map(|split| split.trim_matches('/'));
        let root: Vec<&str> = split.into_iter().chain(classes.root.split_terminator('/')).collect();
        let place = match root.as_slice() {
            [] => "at the top".into(),
            root => format!("of {}", root.join("/")),
        };
        self.labelled_by = format!("its classes are the folders {place}{order}");
    }

    /// A problem with the class folders, and the way out.
    fn explain(&self, problem: Problem) -> String {
        match problem {
            Problem::Splits(folders) => {
                let count = |folder: &String| {
                    let prefix = format!("{folder}/");
                    let n = self.items.iter().filter(|item| item.name.starts_with(&prefix)).count();
                    format!("{folder} ({n} images)")
                };
                format!(
                    "it holds splits of one data set, not classes: {}; choose one with --split, or say with --class-depth where the class folders are",
                    folders.iter().map(count).collect::<Vec<_>>().join(", ")
                )
            }
            Problem::Empty(folders) => {
                let shown: Vec<&str> = folders.iter().take(5).map(String::as_str).collect();
                let more = match folders.len() - shown.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!(
                    "there are no images in the class folders {}{more}; remove them, or let them keep their labels with --allow-empty",
                    shown.join(", ")
                )
            }
        }
    }

    /// The encoded bytes of an image.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the file or the archive's member cannot be read.
    ///
    /// # Panics
    ///
    /// If `item` is of another source.
    pub fn read(&self, item: &Item) -> Result<Cow<'_, [u8]>, SourceError> {
        self.container.read(&item.name, &item.location)
    }

    /// The files that hold the images.
    fn files(&self) -> Vec<PathBuf> {
        match &self.container {
            Container::Folder(root) => {
                let file = |item: &Item| match &item.location {
                    Location::File(below) => Some(root.join(below)),
                    _ => None,
                };
                self.items.iter().filter_map(file).collect()
            }
            Container::Tars(maps) => maps.iter().map(|(path, _)| path.clone()).collect(),
            Container::Zip(path, _) => vec![path.clone()],
            Container::Hdf5(store) => vec![store.path().into(), list_of(store.path())],
        }
    }

    /// Tells sources apart: names and labels of all images in order, and sizes and modification times of the
    /// files that hold them.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for item in &self.items {
            fingerprint.add(&item.name);
            fingerprint.add(&item.label.map_or("none".into(), |label| label.to_string()));
        }
        // On a network's disk, each is a question to a server.
        let stamp = |file: &PathBuf| {
            let mut stamp = Fingerprint::default();
            stamp.add_file(file);
            stamp.to_string()
        };
        let stamps: Vec<String> = self.files().par_iter().map(stamp).collect();
        stamps.iter().for_each(|stamp| fingerprint.add(stamp));
        fingerprint
    }
}

/// Lists a source of any kind.
fn list(path: &Path) -> Result<(Container, Listing), SourceError> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        _ if path.is_dir() => {
            let (container, listing) = list_folder(path)?;
            let is_tar = |name: &str| {
                let end = name.rsplit_once('.').map(|(_, e)| e.eq_ignore_ascii_case("tar"));
                end == Some(true) && kind(name) == Kind::Other
            };
            let mut tars: Vec<&str> =
                listing.files.iter().map(|(name, _)| name.as_str()).filter(|n| is_tar(n)).collect();
            let images = listing.files.iter().any(|(name, _)| kind(name) == Kind::Image);
            if images || tars.is_empty() {
                return Ok((container, listing));
            }
            // Shards of a web dataset, or an archive a class.
            tars.sort_unstable();
            let paths: Vec<_> = tars.iter().map(|name| path.join(name)).collect();
            tar::list_tars(&paths.iter().map(|path| path.as_path()).collect::<Vec<_>>())
        }
        Some("tar") => tar::list_tars(&[path]),
        Some("zip") => list_zip(path),
        Some("h5" | "hdf5") => list_hdf5(path),
        Some("gz" | "tgz" | "bz2" | "xz" | "zst") => Err(error(
            path,
            "compressed tar archives cannot be read in place; decompress it to a .tar first",
        )),
        _ if !path.exists() => Err(error(path, "there is no such file or folder")),
        _ => Err(error(path, "neither a folder nor a .tar, .zip or .h5 file")),
    }
}

/// Hi-DiT's and REPA-E's `images.h5`, in the order of its list.
fn list_hdf5(path: &Path) -> Result<(Container, Listing), SourceError> {
    let store = Hdf5Store::open(path).map_err(|e| error(path, e))?;
    if store.items.iter().any(|name| name.ends_with(".npy")) {
        return Err(error(path, "it holds latents; prepare its images.h5 instead"));
    }
    let files = store.items.iter().map(|name| (name.clone(), Location::Hdf5)).collect();
    Ok((Container::Hdf5(Box::new(store)), Listing { files, ..Listing::default() }))
}

/// The folder that is meant by a split's path or name.
fn find_split(split: &str, listing: &Listing) -> Result<String, String> {
    let wanted = split.trim_matches('/');
    if listing.folders.contains(wanted) {
        return Ok(wanted.into());
    }
    let is_named = |folder: &&String| {
        let end = folder.len().checked_sub(wanted.len()).and_then(|at| folder.split_at_checked(at));
        end.is_some_and(|(before, name)| {
            name.eq_ignore_ascii_case(wanted) && (before.is_empty() || before.ends_with('/'))
        })
    };
    let named: Vec<&String> = listing.folders.iter().filter(is_named).collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let top = listing.folders.iter().filter(|folder| !folder.contains('/'));
            let top: Vec<&str> = top.take(20).map(String::as_str).collect();
            Err(format!("there is no folder {wanted:?} in it; at the top are {}", top.join(", ")))
        }
        several => {
            let list: Vec<&str> = several.iter().take(20).map(|f| f.as_str()).collect();
            Err(format!(
                "several folders are called {wanted:?}: {}; give the path",
                list.join(", ")
            ))
        }
    }
}
