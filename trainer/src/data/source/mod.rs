//! Where images come from: folders, tar archives (also of tar archives, as ImageNet is packed), zip
//! archives and HDF5 stores, read in place.

mod classes;
mod container;
pub(in crate::data) mod filter;
mod folder;
mod labelling;
pub(in crate::data) mod labels;
mod links;
mod list;
mod names;
mod tar;
mod zip;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::fingerprint::Fingerprint;
use super::hdf5::list_of;
use super::made::is_numbered;
use super::positioned::is_of_system;
use super::store::STORE_FILE;
use container::{Container, Listing, Location};
use filter::{Kind, in_hidden, is_magic, kind};
use labelling::lists_above;
use list::{find_split, list};

pub use container::Skipped;

/// What can be wrong with a source.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct SourceError {
    file: String,
    problem: String,
    /// Whether it is an error of the system or the disk.
    of_system: bool,
}

impl SourceError {
    /// What is wrong, without the name of the file.
    pub(in crate::data) fn problem(&self) -> &str {
        &self.problem
    }

    /// Whether it is an error of the system, of the disk or of a file that has changed, and not of what is in the
    /// file.
    pub(in crate::data) fn is_of_system(&self) -> bool {
        self.of_system
    }
}

/// An error of what is in a file.
fn error(file: &Path, problem: impl std::fmt::Display) -> SourceError {
    let (file, problem) = (file.display().to_string(), problem.to_string());
    SourceError { file, problem, of_system: false }
}

/// An error of the system.
fn unreadable(file: &Path, problem: impl std::fmt::Display) -> SourceError {
    SourceError { of_system: true, ..error(file, problem) }
}

/// An error of either kind.
fn failed(file: &Path, e: &std::io::Error) -> SourceError {
    SourceError { of_system: is_of_system(e), ..error(file, e) }
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
        let mut folder = String::new();
        let mut lists = Vec::new();
        if let Some(split) = &options.split {
            folder = find_split(split, &listing).map_err(|problem| error(path, problem))?;
            lists = lists_above(&folder, &listing);
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
            let labels = source.label(options, &folder, lists, &listed);
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
                    let reason = filter::why_unread(&name);
                    self.skipped.push(Skipped { name, reason });
                }
                Kind::Hidden => self.hidden += 1,
                Kind::Other if self.is_image_without_extension(&name, &location) => {
                    let reason = "an image without an extension of one".into();
                    self.skipped.push(Skipped { name, reason });
                }
                Kind::Other => others.push((name, location)),
            }
        }
        self.items.sort_by(|a, b| a.name.cmp(&b.name));
        let visible = |skipped: &Skipped| !in_hidden(&skipped.name);
        self.skipped.extend(listing.skipped.drain(..).filter(visible));
        self.skipped.sort_by(|a, b| a.name.cmp(&b.name));
        // Stores that were prepared inside their source are no classes; one that is not finished has shards alone.
        let store = |(name, _): &(String, Location)| {
            let (folder, file) = name.rsplit_once('/')?;
            let is_shard = |(number, _): (&str, &str)| is_numbered(number, "images_", "");
            let is_of_store =
                file == STORE_FILE || file.split_once(".safetensors").is_some_and(is_shard);
            is_of_store.then(|| folder.to_string())
        };
        let stores: BTreeSet<String> = others.iter().filter_map(store).collect();
        let in_store = |folder: &str| {
            let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
            stores.iter().any(|store| folder.strip_prefix(store.as_str()).is_some_and(is_below))
        };
        listing.folders.retain(|folder| !in_hidden(folder) && !in_store(folder));
        Listing { files: others, skipped: Vec::new(), ..listing }
    }

    /// Whether a file of a folder, whose name has no extension, is an image by its first bytes.
    fn is_image_without_extension(&self, name: &str, location: &Location) -> bool {
        let (Container::Files { root, .. }, Location::File(below)) = (&self.container, location)
        else {
            return false;
        };
        let mut start = Vec::new();
        filter::has_no_extension(name)
            && std::fs::File::open(root.join(below))
                .is_ok_and(|file| file.take(16).read_to_end(&mut start).is_ok())
            && is_magic(&start)
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
    pub fn read(&self, item: &Item) -> Result<Vec<u8>, SourceError> {
        self.container.read(&item.name, &item.location)
    }

    /// Whether the images are those of this `.h5` file; also where that cannot be told.
    pub fn is_read_from(&self, file: &Path) -> bool {
        let Container::Hdf5(store) = &self.container else { return false };
        match (store.path().canonicalize(), file.canonicalize()) {
            (Ok(own), Ok(file)) => own == file,
            (_, Err(e)) if e.kind() == std::io::ErrorKind::NotFound => false,
            _ => true,
        }
    }

    /// The files that hold the images.
    fn files(&self) -> Vec<PathBuf> {
        match &self.container {
            Container::Files { root, archives } => {
                let file = |item: &Item| match &item.location {
                    Location::File(below) => Some(root.join(below)),
                    _ => None,
                };
                let archives = archives.paths().map(PathBuf::from);
                self.items.iter().filter_map(file).chain(archives).collect()
            }
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
            stamp
        };
        let stamps: Vec<Fingerprint> = self.files().par_iter().map(stamp).collect();
        stamps.iter().for_each(|stamp| fingerprint.add(&stamp.to_string()));
        fingerprint
    }
}
