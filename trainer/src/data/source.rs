//! Image sources: folders, tar archives (also of tar archives, like ImageNet), zip archives and HDF5
//! stores, read in place.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::hdf5::Hdf5Store;
use zip::ZipArchive;

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

/// Extensions that are taken for images.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "bmp", "webp", "gif", "tif", "tiff"];
/// The label list that NVIDIA's data tools write.
const LABEL_FILE: &str = "dataset.json";

/// The images of a folder or an archive, in the order of their names.
pub struct Source {
    container: Container,
    /// Every image.
    pub items: Vec<Item>,
    /// Class names in the order of the labels; empty where there are no classes.
    pub classes: Vec<String>,
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

/// Location of an item's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Location {
    File,
    Range { start: usize, len: usize },
    Zip { index: usize },
}

enum Container {
    Folder(PathBuf),
    Tar(Mmap),
    Zip(PathBuf, Box<ZipArchive<Cursor<Shared>>>),
    Hdf5(Box<Hdf5Store>),
}

/// A mapped file that several readers share.
#[derive(Clone, Debug)]
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} images in {} classes", self.items.len(), self.classes.len())
    }
}

impl Source {
    /// Opens a folder, a `.tar` or a `.zip`. The first folder of a name is its class, after the
    /// folders that all names share, in the order of their names or, where all are numbers, of these; `within` keeps only names below it. A `dataset.json` with
    /// `labels` decides instead where there is one.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the path is missing, unreadable, damaged or of another kind, if it holds
    /// no images below `within`, or if its `dataset.json` cannot be read or lacks the label of an
    /// image.
    pub fn open(path: &Path, within: Option<&str>) -> Result<Self, SourceError> {
        let (container, mut locations) = match path.extension().and_then(|e| e.to_str()) {
            _ if path.is_dir() => list_folder(path)?,
            Some("tar") => list_tar(path)?,
            Some("zip") => list_zip(path)?,
            Some("h5" | "hdf5") => return Self::of_hdf5(path),
            Some("gz" | "tgz" | "bz2" | "xz" | "zst") => {
                return Err(error(
                    path,
                    "compressed tar archives cannot be read in place; decompress it to a .tar first",
                ));
            }
            _ if !path.exists() => return Err(error(path, "there is no such file or folder")),
            _ => return Err(error(path, "neither a folder nor a .tar, .zip or .h5 file")),
        };
        if let Some(prefix) = within {
            let prefix = format!("{}/", prefix.trim_matches('/'));
            locations = locations
                .into_iter()
                .filter_map(|(name, location)| {
                    Some((name.strip_prefix(&prefix)?.to_string(), location))
                })
                .collect();
        }
        let mut source = Self { container, items: Vec::new(), classes: Vec::new() };
        let label_file = locations.iter().find(|(name, _)| name.as_str() == LABEL_FILE);
        let labels = match label_file {
            Some((_, location)) => {
                let item =
                    Item { name: LABEL_FILE.into(), label: None, location: location.clone() };
                Some(read_labels(&source.read(&item)?, path)?)
            }
            None => None,
        };
        let is_image = |name: &str| {
            let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
            extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
        };
        locations.retain(|name, _| is_image(name));
        if locations.is_empty() {
            let end = within.map_or(String::new(), |w| format!(" below {w:?}"));
            return Err(error(path, format!("there are no images in it{end}")));
        }
        source.items = locations
            .into_iter()
            .map(|(name, location)| Item { name, label: None, location })
            .collect();
        match labels {
            Some(labels) => source.label_by_list(&labels, path)?,
            None => source.label_by_folder(),
        }
        Ok(source)
    }

    /// Hi-DiT's and REPA-E's `images.h5`, in the order of its list.
    fn of_hdf5(path: &Path) -> Result<Self, SourceError> {
        let store = Hdf5Store::open(path).map_err(|e| error(path, e))?;
        let item = |name: &String| Item {
            name: name.clone(),
            label: store.label(name).and_then(|l| usize::try_from(l).ok()),
            location: Location::File,
        };
        let items: Vec<Item> = store.items.iter().map(item).collect();
        if items.iter().any(|item| item.name.ends_with(".npy")) {
            return Err(error(path, "it holds latents; prepare its images.h5 instead"));
        }
        let count = items.iter().filter_map(|i| i.label).max().map_or(0, |last| last + 1);
        let classes = (0..count).map(|c| c.to_string()).collect();
        Ok(Self { container: Container::Hdf5(Box::new(store)), items, classes })
    }

    /// Labels from the first folder below those that all names share.
    fn label_by_folder(&mut self) {
        let folders = |name: &str| -> Vec<String> {
            let mut parts: Vec<String> = name.split('/').map(String::from).collect();
            parts.pop();
            parts
        };
        let first = folders(&self.items[0].name);
        let shared = |n: usize| {
            self.items.iter().all(|item| {
                let parts = folders(&item.name);
                parts.len() > n && parts[n] == first[n]
            })
        };
        let depth = (0..first.len()).take_while(|&n| shared(n)).count();
        // All in one folder: that folder is not a class.
        let class = |name: &str| folders(name).get(depth).cloned();
        let names: BTreeSet<String> =
            self.items.iter().filter_map(|item| class(&item.name)).collect();
        self.classes = names.into_iter().collect();
        // ImageNetV2's folders are called 0 to 999, by their labels.
        let number = |name: &String| name.parse::<usize>().ok();
        if self.classes.iter().all(|name| number(name).is_some()) {
            self.classes.sort_by_key(number);
        }
        let labels: BTreeMap<&String, usize> = self.classes.iter().zip(0..).collect();
        for item in &mut self.items {
            item.label = class(&item.name).and_then(|name| labels.get(&name).copied());
        }
    }

    fn label_by_list(
        &mut self,
        labels: &BTreeMap<String, usize>,
        path: &Path,
    ) -> Result<(), SourceError> {
        for item in &mut self.items {
            let label = labels.get(&item.name);
            item.label = Some(*label.ok_or_else(|| {
                error(path, format!("{LABEL_FILE} has no label for {:?}", item.name))
            })?);
        }
        let count = labels.values().max().map_or(0, |last| last + 1);
        self.classes = (0..count).map(|c| c.to_string()).collect();
        Ok(())
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
        match (&self.container, &item.location) {
            (Container::Folder(root), _) => {
                let path = root.join(&item.name);
                std::fs::read(&path).map(Cow::Owned).map_err(|e| error(&path, e))
            }
            (Container::Hdf5(store), _) => {
                store.bytes(&item.name).map(Cow::Owned).map_err(|e| error(Path::new(&item.name), e))
            }
            (Container::Tar(map), Location::Range { start, len }) => {
                Ok(Cow::Borrowed(&map[*start..start + len]))
            }
            (Container::Zip(path, archive), Location::Zip { index }) => {
                let failed = |e: &dyn std::fmt::Display| error(path, format!("{}: {e}", item.name));
                let mut archive = archive.clone(); // shares the list of files
                let mut file = archive.by_index(*index).map_err(|e| failed(&e))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|e| failed(&e))?;
                Ok(Cow::Owned(bytes))
            }
            _ => unreachable!("items are read from the container that listed them"),
        }
    }

    /// Identifies the source by names, labels and locations of all items.
    pub fn fingerprint(&self) -> u32 {
        self.items.iter().fold(0, |crc, item| {
            let text = format!("{}\n{:?}\n{:?}\n", item.name, item.label, item.location);
            crc32c::crc32c_append(crc, text.as_bytes())
        })
    }
}

type Locations = BTreeMap<String, Location>;

fn list_folder(root: &Path) -> Result<(Container, Locations), SourceError> {
    let mut locations = Locations::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| error(&folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| error(&folder, e))?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let parts: Vec<_> = relative.iter().map(|p| p.to_string_lossy()).collect();
            locations.insert(parts.join("/"), Location::File);
        }
    }
    Ok((Container::Folder(root.into()), locations))
}

fn map(path: &Path) -> Result<Mmap, SourceError> {
    let file = File::open(path).map_err(|e| error(path, e))?;
    // SAFETY: the archive must not shrink while it is read; it is the user's data set.
    unsafe { Mmap::map(&file) }.map_err(|e| error(path, e))
}

fn list_tar(path: &Path) -> Result<(Container, Locations), SourceError> {
    let map = map(path)?;
    let mut locations = Locations::new();
    list_tar_range(path, &map, 0, map.len(), "", &mut locations)?;
    Ok((Container::Tar(map), locations))
}

/// Lists the archive in a range of the file; archives inside become folders of their name.
fn list_tar_range(
    path: &Path,
    map: &Mmap,
    start: usize,
    len: usize,
    prefix: &str,
    locations: &mut Locations,
) -> Result<(), SourceError> {
    let damaged = |e: std::io::Error| error(path, format!("damaged archive: {e}"));
    let mut archive = tar::Archive::new(Cursor::new(&map[start..start + len]));
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = format!("{prefix}{}", name.trim_start_matches("./"));
        let at = start + entry.raw_file_position() as usize;
        let size = entry.size() as usize;
        if at.checked_add(size).is_none_or(|end| end > start + len) {
            return Err(error(path, format!("{name} ends beyond the archive; it is truncated")));
        }
        match name.strip_suffix(".tar") {
            Some(inner) if prefix.is_empty() => {
                list_tar_range(path, map, at, size, &format!("{inner}/"), locations)?;
            }
            _ => {
                locations.insert(name, Location::Range { start: at, len: size });
            }
        }
    }
    Ok(())
}

fn list_zip(path: &Path) -> Result<(Container, Locations), SourceError> {
    let map = Shared(Arc::new(map(path)?));
    let archive = ZipArchive::new(Cursor::new(map))
        .map_err(|e| error(path, format!("damaged archive: {e}")))?;
    let locations = (0..archive.len())
        .filter_map(|index| Some((archive.name_for_index(index)?.ok()?.into_owned(), index)))
        .filter(|(name, _)| !name.ends_with('/'))
        .map(|(name, index)| (name, Location::Zip { index }))
        .collect();
    Ok((Container::Zip(path.into(), Box::new(archive)), locations))
}

fn read_labels(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, usize>, SourceError> {
    #[derive(serde::Deserialize)]
    struct File {
        labels: Vec<(String, usize)>,
    }
    let file: File = serde_json::from_slice(bytes)
        .map_err(|e| error(path, format!("{LABEL_FILE} has no usable labels: {e}")))?;
    Ok(file.labels.into_iter().collect())
}
