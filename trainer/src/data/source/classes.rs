//! Which folders of a data set are its classes.

use std::collections::{BTreeMap, BTreeSet};

/// The classes of a data set, and where their folders are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// The folder that holds the class folders, with `/` at its end; empty at the top.
    pub root: String,
    /// Parts of a class folder's name below `root`.
    pub parts: usize,
    /// Names of the class folders in the order of their labels; empty for a set without classes.
    pub names: Vec<String>,
    /// Why there are none, where folders hold images.
    pub note: Option<String>,
}

impl Classes {
    /// The class folder of an image; `None` if it is in none.
    pub(super) fn of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let below = name.strip_prefix(&self.root)?;
        let (end, _) = below.match_indices('/').nth(self.parts.checked_sub(1)?)?;
        Some(&below[..end])
    }
}

/// Why there is no such order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The top folders are splits of one set: each has the same classes.
    Splits(Vec<String>),
    /// Class folders without images.
    Empty(Vec<String>),
    /// The classes are either this folder's or it is one of them.
    Unclear(String),
    /// No class folders are so deep; the deepest are here, if there are any.
    TooDeep(Option<usize>),
}

/// A folder: images in it, images below it, and its folders.
#[derive(Debug, Default)]
struct Folder {
    images: usize,
    total: usize,
    folders: BTreeMap<String, Folder>,
}

impl Folder {
    /// The tree of image names and of folders that may be empty.
    fn tree<'a>(
        images: impl Iterator<Item = &'a str>,
        folders: impl Iterator<Item = &'a str>,
    ) -> Self {
        let mut root = Self::default();
        for folder in folders {
            let mut at = &mut root;
            for part in folder.split('/').filter(|part| !part.is_empty()) {
                at = at.folders.entry(part.into()).or_default();
            }
        }
        for name in images {
            let mut at = &mut root;
            at.total += 1;
            let (path, _) = name.rsplit_once('/').unwrap_or(("", name));
            for part in path.split('/').filter(|part| !part.is_empty()) {
                at = at.folders.entry(part.into()).or_default();
                at.total += 1;
            }
            at.images += 1;
        }
        root
    }

    /// Folders above the deepest image.
    fn height(&self) -> usize {
        self.full().iter().map(|(_, folder)| 1 + folder.height()).max().unwrap_or(0)
    }

    /// Folders with images.
    fn full(&self) -> Vec<(&String, &Self)> {
        self.folders.iter().filter(|(_, folder)| folder.total > 0).collect()
    }
}

/// Finds the classes of images by the folders that they are in.
///
/// A folder around everything, and images beside it, are stepped over. `depth` says how many folders are
/// around the class folders instead. An empty class folder keeps its label if `allow_empty`.
pub(super) fn find<'a>(
    images: impl Iterator<Item = &'a str>,
    folders: impl Iterator<Item = &'a str>,
    depth: Option<usize>,
    allow_empty: bool,
) -> Result<Classes, Problem> {
    let tree = Folder::tree(images, folders);
    if let Some(depth) = depth {
        let mut level = vec![(String::new(), &tree)];
        for _ in 0..=depth {
            if level.is_empty() {
                break;
            }
            let mut below = Vec::new();
            for (path, folder) in &level {
                below.extend(folder.folders.iter().map(|(name, inner)| (join(path, name), inner)));
            }
            level = below;
        }
        if level.iter().all(|(_, folder)| folder.total == 0) {
            return Err(Problem::TooDeep(tree.height().checked_sub(1)));
        }
        return named(String::new(), depth + 1, level, allow_empty);
    }
    let (mut at, mut root) = (&tree, String::new());
    loop {
        match at.full().as_slice() {
            [] => return Ok(Classes::default()),
            // More images beside the one folder than in it: they are the set.
            [(name, only)] if only.full().is_empty() && at.images > only.total => {
                let note = format!("more images lie beside the folder {root}{name} than in it");
                return Ok(Classes { note: Some(note), ..Classes::default() });
            }
            [(name, only)] if !only.full().is_empty() => {
                root.push_str(name);
                root.push('/');
                at = only;
            }
            several => {
                if let Some(splits) = splits(several) {
                    let path = |name: String| format!("{root}{name}");
                    return Err(Problem::Splits(splits.into_iter().map(path).collect()));
                }
                // `train/cat`, `train/dog` and `assets/logo.png`.
                let mut deep = several.iter().filter(|(_, folder)| !folder.full().is_empty());
                if let (true, Some((name, inner)), None) =
                    (several.len() > 1, deep.next(), deep.next())
                    && inner.full().len() > 1
                    && inner.images == 0
                {
                    let folder = format!("{root}{name}");
                    // Of a thousand classes, one may have folders: they are not the classes.
                    if inner.total <= at.total - inner.total {
                        return Err(Problem::Unclear(folder));
                    }
                    root = folder;
                    root.push('/');
                    at = inner;
                    continue;
                }
                let level = at.folders.iter().map(|(name, folder)| (name.clone(), folder));
                return named(root, 1, level.collect(), allow_empty);
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}/{name}") }
}

/// The classes of a level.
fn named(
    root: String,
    parts: usize,
    level: Vec<(String, &Folder)>,
    allow_empty: bool,
) -> Result<Classes, Problem> {
    let empty = level.iter().filter(|(_, folder)| folder.total == 0);
    let empty: Vec<String> = empty.map(|(name, _)| format!("{root}{name}")).collect();
    if !empty.is_empty() && !allow_empty {
        return Err(Problem::Empty(empty));
    }
    let names = sorted(level.into_iter().map(|(name, _)| name).collect());
    Ok(Classes { root, parts, names, note: None })
}

/// Names of folders that hold the same classes: splits of one set.
fn splits(folders: &[(&String, &Folder)]) -> Option<Vec<String>> {
    let all = || folders.iter().map(|(name, _)| (*name).clone()).collect();
    if folders.len() > 1 && folders.iter().all(|(name, _)| is_split(name)) {
        return Some(all());
    }
    // Two that share two classes. (One shared name is usual: `images` in every class of Tiny ImageNet.)
    let classes: Vec<BTreeSet<&String>> = folders
        .iter()
        .map(|(_, folder)| folder.full().into_iter().map(|(name, _)| name).collect())
        // Of ten thousand classes, every two would be compared.
        .filter(|names: &BTreeSet<_>| names.len() > 1)
        .collect();
    let share = |a: &BTreeSet<&String>, b: &BTreeSet<&String>| a.intersection(b).count() > 1;
    let shared = classes.iter().enumerate().any(|(i, a)| classes[..i].iter().any(|b| share(a, b)));
    shared.then(all)
}

/// A folder of each split, where all folders that hold the images are called like splits, and not like one alone, as
/// `train-0000` and `val-0000` are. Folders around everything are stepped over.
pub(super) fn several_splits<'a>(images: impl Iterator<Item = &'a str>) -> Option<Vec<String>> {
    let tree = Folder::tree(images, std::iter::empty());
    let (mut at, mut root) = (&tree, String::new());
    while let ([(name, only)], 0) = (at.full().as_slice(), at.images) {
        root = join(&root, name);
        at = only;
    }
    let mut first = BTreeMap::new();
    for (name, _) in at.full() {
        first.entry(split_of(name)?).or_insert_with(|| join(&root, name));
    }
    (first.len() > 1).then(|| first.into_values().collect())
}

/// Whether a folder is called like a split: `train`, `cifar10-test`, `val2017`, …
fn is_split(name: &str) -> bool {
    split_of(name).is_some()
}

/// The split that a folder is called like.
fn split_of(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    name.split(|c: char| !c.is_ascii_alphabetic()).find_map(|word| match word {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" | "dev" => Some("val"),
        "test" | "testing" => Some("test"),
        "eval" => Some("eval"),
        _ => None,
    })
}

/// Class names in the order of their labels: by number where all are numbers, else by text.
pub(super) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    if are_numbers(&names) {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    }
    names
}

/// Whether classes are called by numbers.
pub(super) fn are_numbers(names: &[String]) -> bool {
    let is_number = |name: &String| {
        name.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<u64>().is_ok()
    };
    !names.is_empty() && names.iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(images: &[&str], folders: &[&str]) -> Result<Classes, Problem> {
        find(images.iter().copied(), folders.iter().copied(), None, false)
    }

    fn classes(root: &str, names: &[&str]) -> Result<Classes, Problem> {
        let parts = names.first().map_or(0, |name| name.split('/').count());
        let names = names.iter().map(|name| name.to_string()).collect();
        Ok(Classes { root: root.into(), parts, names, note: None })
    }

    #[test]
    fn the_level_that_holds_classes_is_found() {
        assert_eq!(of(&["cat/0.png", "dog/0.png"], &[]), classes("", &["cat", "dog"]));
        let images = ["train/cat/0.png", "train/dog/0.png", "preview.png"];
        assert_eq!(of(&images, &["docs"]), classes("train/", &["cat", "dog"]));
        assert_eq!(of(&["all/0.png", "all/1.png"], &[]), classes("", &["all"]));
        assert_eq!(of(&["a/all/0.png", "a/all/1.png"], &[]), classes("a/", &["all"]));
        assert_eq!(of(&["0.png", "1.png"], &[]), classes("", &[]));
        // A set without classes, and thumbnails of some.
        let found = of(&["0.png", "1.png", "thumbs/0.png"], &[]).expect("classes");
        assert!(found.names.is_empty() && found.note.is_some_and(|note| note.contains("thumbs")));
        // As many are not more, and folders inside are classes.
        assert_eq!(of(&["0.png", "1.png", "a/0.png", "a/1.png"], &[]), classes("", &["a"]));
        let images = ["0.png", "1.png", "2.png", "d/cat/0.png", "d/dog/0.png"];
        assert_eq!(of(&images, &[]), classes("d/", &["cat", "dog"]));
        // What lies beside the folder of the classes.
        let images = ["train/cat/0.png", "train/dog/0.png", "assets/logo.png"];
        assert_eq!(of(&images, &[]), classes("train/", &["cat", "dog"]));
        let images = ["cat/a/0.png", "cat/b/0.png", "dog/0.png", "emu/0.png"];
        assert_eq!(of(&images, &[]), Err(Problem::Unclear("cat".into())));
        let images = ["cat/0.png", "dog/0.png", "dog/old/0.png"];
        assert_eq!(of(&images, &[]), classes("", &["cat", "dog"]));
        // Classes with a folder of their own inside.
        let images = ["n01/images/0.png", "n02/images/0.png"];
        assert_eq!(of(&images, &[]), classes("", &["n01", "n02"]));
    }

    #[test]
    fn splits_are_not_classes() {
        let splits = |names: &[&str]| {
            Err(Problem::Splits(names.iter().map(|name| name.to_string()).collect()))
        };
        let images = ["d/cifar10-test/cat/0.png", "d/cifar10-train/cat/0.png"];
        assert_eq!(of(&images, &[]), splits(&["d/cifar10-test", "d/cifar10-train"]));
        let images = ["a/cat/0.png", "a/dog/0.png", "b/cat/0.png", "b/dog/0.png", "b/emu/0.png"];
        assert_eq!(of(&images, &[]), splits(&["a", "b"]));
        assert_eq!(of(&["train/0.png", "val2017/0.png"], &[]), splits(&["train", "val2017"]));
        let images = ["car/0.png", "train/0.png", "plane/0.png"];
        assert_eq!(of(&images, &[]), classes("", &["car", "plane", "train"]));
        // Asked for by depth.
        let images = ["a/cat/0.png", "a/dog/0.png", "b/cat/0.png", "b/dog/0.png"];
        let at = |depth| find(images.iter().copied(), [].into_iter(), Some(depth), false);
        assert_eq!(at(0), classes("", &["a", "b"]));
        assert_eq!(at(1), classes("", &["a/cat", "a/dog", "b/cat", "b/dog"]));
        let found = at(1).expect("classes");
        assert_eq!(found.of("b/cat/0.png"), Some("b/cat"));
        assert_eq!(found.of("b/0.png"), None);
        assert_eq!(at(2), Err(Problem::TooDeep(Some(1))));
    }

    #[test]
    fn an_empty_class_is_an_error_or_keeps_its_label() {
        let (images, folders) = (["a/0.png", "c/0.png"], ["a", "b", "c"]);
        assert_eq!(of(&images, &folders), Err(Problem::Empty(vec!["b".into()])));
        let kept = find(images.iter().copied(), folders.iter().copied(), None, true);
        assert_eq!(kept, classes("", &["a", "b", "c"]));
    }

    #[test]
    fn numbers_are_in_the_order_of_numbers() {
        let names: Vec<String> = (0..12).map(|n| format!("{n}/a.png")).collect();
        let found = find(names.iter().map(String::as_str), [].into_iter(), None, false);
        let numbers: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(found.map(|found| found.names), Ok(numbers));
        let names = |list: &[&str]| sorted(list.iter().map(|name| name.to_string()).collect());
        assert_eq!(names(&["010", "9", "1"]), ["1", "9", "010"]);
        assert_eq!(names(&["10", "9", "x"]), ["10", "9", "x"]);
    }
}
