//! Which label each image gets: from lists, from files beside the images, or from their folders.

use std::collections::{BTreeMap, BTreeSet};

use super::classes::{self, Classes, Problem};
use super::container::{Container, Listing, Location, Skipped};
use super::labels::{LABEL_FILE, Labels, from_cls, from_json, key};
use super::names::normal_of_any;
use super::{Item, Options, Source};

impl Source {
    /// Gives every image its label; `split` is the folder that is looked at, `lists` are the label lists in the
    /// folders around it, `others` are the files that are not images.
    pub(super) fn label(
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
            has_effect(options, "dataset.json")?;
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
            has_effect(options, "dataset.json")?;
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
        // Class folders tell splits by themselves.
        if !cls.is_empty() || (is_web && !others.shards.is_empty()) {
            self.has_one_split()?;
        }
        if !cls.is_empty() {
            has_effect(options, ".cls files")?;
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

    /// Refuses shards of several splits: images for validation would be trained on.
    fn has_one_split(&self) -> Result<(), String> {
        let names = self.items.iter().map(|item| item.name.as_str());
        let Some(splits) = classes::several_splits(names) else { return Ok(()) };
        Err(format!(
            "it holds several splits of one data set, such as {}; choose a folder with --split, or put the archives of one into a folder of their own",
            splits.join(" and ")
        ))
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
            Problem::Unclear(folder) => {
                let depth = folder.matches('/').count();
                format!(
                    "{folder} is a class with folders of its own, or the folder around the classes, though it has no more images than lie beside it; say so with --class-depth {depth} or --class-depth {}",
                    depth + 1
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
}

/// Refuses options for class folders where labels are listed.
fn has_effect(options: &Options, list: &str) -> Result<(), String> {
    let given =
        [("--class-depth", options.class_depth.is_some()), ("--allow-empty", options.allow_empty)];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => Err(format!("{option} has no effect where the labels are in {list}")),
        None => Ok(()),
    }
}

/// A list of labels, and how the names in it follow from those of images.
pub(super) struct LabelList {
    name: String,
    location: Location,
    /// What its names do not begin with.
    removed: String,
    /// What they begin with instead.
    added: String,
}

/// The label lists in the folders around a split, the innermost first.
pub(super) fn lists_above(split: &str, listing: &Listing) -> Vec<LabelList> {
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
