//! Where images come from: folders, tar archives (also of tar archives, as ImageNet is packed), zip
//! archives and HDF5 stores, read in place.

mod classes;
mod container;
pub(in crate::data) mod filter;
pub(in crate::data) mod labels;
mod links;
mod tar;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;
use super::hdf5::{Hdf5Store, list_of};
use classes::{Classes, Problem};
use container::{Container, Listing, Location, list_folder, list_zip, normal_of_any};
use filter::{Kind, in_hidden, is_magic, is_tar, kind};
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

impl SourceError {
    /// What is wrong, without the name of the file.
    pub(in crate::data) fn problem(&self) -> &str {
        &self.problem
    }
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
        // Stores that were prepared inside their source are no classes.
        let store =
            |(name, _): &(String, Location)| Some(name.strip_suffix("/store.json")?.to_string());
        let stores: Vec<String> = others.iter().filter_map(store).collect();
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

    /// Gives every image its label; `split` is the folder that is looked at, `lists` are the label lists in the
    /// folders around it, `others` are the files that are not images.
    fn label(
        &mut self,
        options: &Options,
        split: &str,
        lists: Vec<LabelList>,
        others: &Listing,
    ) -> Result<(), String> {
        if let Container::Hdf5(store) = &self.container {
            let labels = store.labels().map_err(|e| e.to_string())?.cloned();
            let full = |item: &Item| match &item.location {
                Location::Hdf5(name) => name.clone(),
                _ => item.name.clone(),
            };
            return self.label_by_list(labels, full, "dataset.json has");
        }
        for list in self.list_inside(others).into_iter().chain(lists) {
            let bytes = self.container.read(&list.name, &list.location);
            let labels = from_json(&bytes.map_err(|e| e.to_string())?)?;
            let labels: Labels = labels.map(|labels| {
                labels.into_iter().map(|(name, label)| (normal_of_any(&name), label)).collect()
            });
            // A list of a folder around this split, but not of this split.
            let is_of_others = labels
                .as_ref()
                .is_some_and(|labels| !labels.keys().any(|name| name.starts_with(&list.added)));
            if !list.added.is_empty() && is_of_others {
                continue;
            }
            let name = |item: &Item| {
                let below = item.name.strip_prefix(&list.removed).unwrap_or(&item.name);
                normal_of_any(&format!("{}{below}", list.added))
            };
            return self.label_by_list(labels, name, "dataset.json has");
        }
        let (cls, is_web) = {
            let keys: BTreeSet<&str> = self.items.iter().map(|item| key(&item.name)).collect();
            let beside = |end: &str| {
                let is_beside = |name: &str| {
                    let (_, extension) = name.rsplit_once('.').unwrap_or_default();
                    extension.eq_ignore_ascii_case(end) && keys.contains(key(name))
                };
                let files = others.files.iter();
                files.filter(|(name, _)| is_beside(name)).collect::<Vec<_>>()
            };
            let described = beside("json").len().max(beside("txt").len());
            (beside("cls"), described * 2 > keys.len())
        };
        if !cls.is_empty() {
            let mut labels = BTreeMap::new();
            for (name, at) in cls {
                let bytes = self.container.read(name, at).map_err(|e| e.to_string())?;
                labels.insert(key(name).to_string(), from_cls(name, &bytes)?);
            }
            let name = |item: &Item| key(&item.name).to_string();
            return self.label_by_list(Some(labels), name, ".cls files have");
        }
        // Shards of a web dataset are no classes.
        let shards = is_web.then_some(&others.shards);
        let shards = shards.filter(|shards| !shards.is_empty());
        let inside = |name: &str| shards.map_or(0, |shards| shard_of(name, shards));
        let names = self.items.iter().map(|item| &item.name[inside(&item.name)..]);
        let in_shard = |folder: &&String| shards.is_none() || inside(folder) > 0;
        let folders = others.folders.iter().filter(in_shard);
        let folders = folders.map(|folder| &folder[inside(folder)..]);
        let found = classes::find(names, folders, options.class_depth, options.allow_empty);
        let classes = found.map_err(|problem| self.explain(problem))?;
        if let Some(note) = &classes.note {
            self.labelled_by = format!("it has no labels: {note}");
        } else if shards.is_some() {
            self.labelled_by =
                "it has no labels: its archives are shards of a web dataset without .cls files"
                    .into();
        }
        self.label_by_folder(split, &classes, inside);
        Ok(())
    }

    /// The label list at the top, or in the folders around everything.
    fn list_inside(&self, others: &Listing) -> Option<LabelList> {
        let folder_of = |name: &str| match name.strip_suffix(LABEL_FILE) {
            Some(folder) if folder.is_empty() || folder.ends_with('/') => Some(folder.to_string()),
            _ => None,
        };
        let lists = others.files.iter().filter_map(|(name, location)| {
            let removed = folder_of(name)?;
            let is_around = self.items.iter().all(|item| item.name.starts_with(&removed));
            let (name, location) = (name.clone(), location.clone());
            is_around.then_some(LabelList { name, location, removed, added: String::new() })
        });
        lists.min_by_key(|list| list.removed.len())
    }

    /// Labels from a list, whose keys follow from the images; `None` for a set without labels. `list` ends with
    /// "has" or "have".
    fn label_by_list(
        &mut self,
        labels: Labels,
        key: impl Fn(&Item) -> String,
        list: &str,
    ) -> Result<(), String> {
        let name = list.rsplit_once(' ').map_or(list, |(name, _)| name);
        let Some(labels) = labels else {
            self.labelled_by = format!("it has no labels, as {name} says");
            return Ok(());
        };
        for item in &mut self.items {
            let label = labels.get(&key(item));
            item.label = *label.ok_or_else(|| format!("{list} no label for {:?}", item.name))?;
        }
        let count = labels.values().flatten().max().map_or(0, |last| last + 1);
        self.classes = (0..count).map(|class| class.to_string()).collect();
        self.labelled_by = format!("its labels are those of {name}");
        Ok(())
    }

    /// Labels from the class folders; images that are in none are left out.
    ///
    /// The names of the class folders begin where `inside` says.
    fn label_by_folder(&mut self, split: &str, classes: &Classes, inside: impl Fn(&str) -> usize) {
        if classes.names.is_empty() {
            return;
        }
        let numbers: BTreeMap<&str, usize> =
            classes.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let (mut items, mut stray) = (Vec::new(), Vec::new());
        for item in std::mem::take(&mut self.items) {
            match classes.of(&item.name[inside(&item.name)..]).and_then(|class| numbers.get(class))
            {
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
        let root = normal_of_any(&format!("{split}/{}", classes.root));
        let place = match (root.as_str(), classes.parts) {
            ("", 0 | 1) => "at the top".into(),
            ("", parts) => format!("that are {} deep", parts - 1),
            (root, 0 | 1) => format!("of {root}"),
            (root, parts) => format!("that are {} deep in {root}", parts - 1),
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
            Problem::TooDeep(deepest) => match deepest {
                Some(deepest) => {
                    format!("no class folders are so deep; --class-depth {deepest} is the deepest")
                }
                None => "there are no class folders in it for --class-depth".into(),
            },
            Problem::Empty(folders) => {
                let show = |folder: &String| {
                    let prefix = format!("{folder}/");
                    let is_in = |skipped: &&Skipped| skipped.name.starts_with(&prefix);
                    match self.skipped.iter().find(is_in) {
                        Some(one) => format!("{folder} (which holds {}: {})", one.name, one.reason),
                        None => folder.clone(),
                    }
                };
                let shown: Vec<String> = folders.iter().take(5).map(show).collect();
                let more = match folders.len() - shown.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!(
                    "there are no images that can be read in the class folders {}{more}; remove them, or let them keep their labels with --allow-empty",
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
            Container::Files { root, archives } => {
                let file = |item: &Item| match &item.location {
                    Location::File(below) => Some(root.join(below)),
                    _ => None,
                };
                let archives = archives.iter().map(|(path, _)| path.clone());
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
            with_archives(path, container, listing)
        }
        Some("tar") => tar::list_tar(path),
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

/// Adds the contents of a folder's archives: shards of a web dataset, or an archive a class. Archives among images
/// are left out, unless they hold most of the images.
fn with_archives(
    folder: &Path,
    container: Container,
    mut listing: Listing,
) -> Result<(Container, Listing), SourceError> {
    let images = |files: &[(String, Location)]| {
        files.iter().filter(|(name, _)| kind(name) == Kind::Image).count()
    };
    let is_archive = |(name, _): &(String, Location)| is_tar(name) && kind(name) == Kind::Other;
    let (mut tars, files): (Vec<_>, Vec<_>) = listing.files.into_iter().partition(is_archive);
    listing.files = files;
    if tars.is_empty() {
        return Ok((container, listing));
    }
    tars.sort_by(|a, b| a.0.cmp(&b.0));
    let beside = images(&listing.files);
    let mut inner = Listing::default();
    let mut archives = Vec::new();
    let mut have_images = true;
    for (name, location) in &tars {
        let path = match location {
            Location::File(below) => folder.join(below),
            _ => folder.join(name),
        };
        let prefix = &name[..name.len() - ".tar".len()];
        let before = inner.files.len();
        match tar::add_tar(&path, archives.len(), &format!("{prefix}/"), &mut inner) {
            Ok(map) => archives.push((path, map)),
            Err(e) if beside == 0 => return Err(e),
            Err(_) => {
                have_images = false;
                break;
            }
        }
        inner.shards.insert(prefix.into());
        have_images &= images(&inner.files[before..]) > 0;
    }
    let inside = images(&inner.files);
    // Those of one archive beside its contents would be there twice.
    let many = if tars.len() > 1 { inside } else { inside / 10 };
    if beside > 0 && !(have_images && beside < many) {
        for (name, _) in tars {
            listing.skip(name, "an archive among images");
        }
        return Ok((container, listing));
    }
    listing.files.extend(inner.files);
    listing.folders.extend(inner.folders);
    listing.skipped.extend(inner.skipped);
    listing.shards = inner.shards;
    Ok((Container::Files { root: folder.into(), archives }, listing))
}

/// A list of labels, and how the names in it follow from those of images.
struct LabelList {
    name: String,
    location: Location,
    /// What its names do not begin with.
    removed: String,
    /// What they begin with instead.
    added: String,
}

/// The label lists in the folders around a split, the innermost first.
fn lists_above(split: &str, listing: &Listing) -> Vec<LabelList> {
    let list = |(name, location): &(String, Location)| {
        let folder = name.strip_suffix(LABEL_FILE)?;
        let is_folder = folder.is_empty() || folder.ends_with('/');
        let below = split.strip_prefix(folder).filter(|_| is_folder)?;
        let added = format!("{below}/");
        let (name, location) = (name.clone(), location.clone());
        Some(LabelList { name, location, removed: String::new(), added })
    };
    let mut lists: Vec<LabelList> = listing.files.iter().filter_map(list).collect();
    lists.sort_by_key(|list| list.added.len());
    lists
}

/// The length of the archive's name that an item's begins with.
fn shard_of(name: &str, shards: &BTreeSet<String>) -> usize {
    let mut slashes = name.match_indices('/').map(|(at, _)| at);
    slashes.find(|at| shards.contains(&name[..*at])).map_or(0, |at| at + 1)
}

/// Hi-DiT's and REPA-E's `images.h5`, in the order of its list.
fn list_hdf5(path: &Path) -> Result<(Container, Listing), SourceError> {
    let store = Hdf5Store::open(path).map_err(|e| error(path, e))?;
    if store.items.iter().any(|name| name.ends_with(".npy")) {
        return Err(error(path, "it holds latents; prepare its images.h5 instead"));
    }
    let files = store.items.iter().map(|name| (name.clone(), Location::Hdf5(name.clone())));
    let files = files.collect();
    Ok((Container::Hdf5(Box::new(store)), Listing { files, ..Listing::default() }))
}

/// The folder that is meant by a split's path or name.
fn find_split(split: &str, listing: &Listing) -> Result<String, String> {
    let wanted = normal_of_any(split);
    let wanted = wanted.as_str();
    if wanted.is_empty() {
        return Err(format!("--split {split:?} is not the name of a folder in it"));
    }
    if listing.folders.contains(wanted) && !in_hidden(wanted) {
        return Ok(wanted.into());
    }
    let visible = || listing.folders.iter().filter(|folder| !in_hidden(folder));
    let is_named = |folder: &&String| {
        let end = folder.len().checked_sub(wanted.len()).and_then(|at| folder.split_at_checked(at));
        end.is_some_and(|(before, name)| {
            name.eq_ignore_ascii_case(wanted) && (before.is_empty() || before.ends_with('/'))
        })
    };
    let named: Vec<&String> = visible().filter(is_named).collect();
    match named.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let top = visible().filter(|folder| !folder.contains('/'));
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
