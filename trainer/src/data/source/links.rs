//! Files of an archive, and links between them.

use std::collections::BTreeMap;

use super::container::{Listing, Location};
use super::names::normal;

/// Links that lead to links that lead to … so many are taken for a circle.
const LONGEST_CHAIN: usize = 40;
/// Folders that may be entered through a link inside of one that was, and so on.
const MOST_NESTED: usize = 16;
/// Names that links to folders may give to what is in these, unless a source has many files: two links in each of twenty
/// folders in a row give a file a million.
const MOST_NAMES: usize = 1_000_000;
/// Such names for each file of a source, as where a few trees of links sort its files anew.
const NAMES_OF_FILE: usize = 8;
/// Bytes of such names, for each that there may be.
const BYTES_OF_NAME: usize = 256;

/// Links that make too much of what is in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// Too many folders in a row.
    #[error("its links lead from folder to folder more than {} times in a row", MOST_NESTED)]
    Nested,
    /// Too many names.
    #[error("its links give its files more than {0} other names")]
    Names(usize),
}

/// Names that links to folders may give in a source of so many files.
fn most_names(files: usize) -> usize {
    files.saturating_mul(NAMES_OF_FILE).max(MOST_NAMES)
}

/// Names that links to folders have made in a source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    names: usize,
    bytes: usize,
}

impl Made {
    /// Adds a name of so many bytes, where there may be `most` names.
    fn add(&mut self, bytes: usize, most: usize) -> Result<(), LinkError> {
        self.names += 1;
        self.bytes += bytes;
        match self.names > most || self.bytes / BYTES_OF_NAME > most {
            true => Err(LinkError::Names(most)),
            false => Ok(()),
        }
    }
}

/// Members of an archive by their names. As when unpacked, the last one of a name is the one that stays.
#[derive(Debug, Default)]
pub(super) struct Members {
    files: BTreeMap<String, Location>,
    /// Symbolic links, and where they lead from the top of the archive; links on that way are not followed yet.
    links: BTreeMap<String, String>,
}

impl Members {
    /// Adds a file.
    pub fn file(&mut self, name: String, location: Location) {
        self.links.remove(&name);
        self.files.insert(name, location);
    }

    /// Adds a symbolic link; its target is relative to its folder, or outside of the archive.
    pub fn symbolic(&mut self, name: String, target: &str) {
        self.files.remove(&name);
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = match target.starts_with('/') {
            true => target.to_string(),
            false => format!("{folder}/{target}").trim_start_matches('/').to_string(),
        };
        self.links.insert(name, target);
    }

    /// Adds a hard link: another name of what the target is now.
    pub fn hard(&mut self, name: String, target: &str) {
        let target = normal(target);
        if target == name {
            return;
        }
        if let Some(location) = self.files.get(&target).cloned() {
            self.file(name, location);
        } else {
            let target = self.links.get(&target).cloned().unwrap_or(target);
            self.files.remove(&name);
            self.links.insert(name, target);
        }
    }

    /// A path without links; `None` if they lead around in a circle or out of the archive.
    fn resolved(&self, path: &str) -> Option<String> {
        let mut rest: Vec<&str> = path.split('/').rev().collect();
        let mut at: Vec<&str> = Vec::new();
        let mut followed = 0;
        while let Some(part) = rest.pop() {
            match part {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                part => at.push(part),
            }
            if let Some(target) = self.links.get(&at.join("/")) {
                followed += 1;
                if followed > LONGEST_CHAIN || target.starts_with('/') {
                    return None;
                }
                at.clear();
                rest.extend(target.split('/').rev());
            }
        }
        Some(at.join("/"))
    }

    /// Lists all files below a prefix, by the names of links, too.
    ///
    /// # Errors
    ///
    /// [`LinkError`] where links to folders multiply what is in these.
    pub fn list(mut self, prefix: &str, listing: &mut Listing) -> Result<(), LinkError> {
        // Links to files first, since a link to a folder leads to them, too.
        let (mut found, mut folders) = (Vec::new(), BTreeMap::new());
        for name in self.links.keys() {
            let end = self.resolved(name);
            match end.as_ref().and_then(|end| self.files.get(end)) {
                Some(location) => found.push((name.clone(), location.clone())),
                None => {
                    folders.insert(name.clone(), end);
                }
            }
        }
        self.files.extend(found);
        let own = (listing.files.len() + self.files.len()).saturating_sub(listing.made.names);
        let most = most_names(own);
        // Each with the folders that it lies in.
        let around = |name: &String| {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.resolved(folder).unwrap_or_default()
        };
        let around: Vec<String> = folders.keys().map(around).collect();
        let links = folders.iter().zip(&around);
        let mut work: Vec<(String, Option<&str>, Vec<&str>)> = links
            .map(|((name, end), around)| (name.clone(), end.as_deref(), vec![around.as_str()]))
            .collect();
        while let Some((name, end, path)) = work.pop() {
            let Some(end) = end else {
                listing.skip(format!("{prefix}{name}"), "a link to what is not in the archive");
                continue;
            };
            let inside = format!("{end}/");
            let is_around = |folder: &&str| *folder == end || folder.starts_with(&inside);
            if end.is_empty() || path.iter().any(is_around) {
                listing.skip(format!("{prefix}{name}"), "a link to a folder around it");
                continue;
            }
            if path.len() > MOST_NESTED {
                return Err(LinkError::Nested);
            }
            let mut empty = true;
            let files = self.files.range(inside.clone()..);
            for (file, location) in files.take_while(|(file, _)| file.starts_with(&inside)) {
                empty = false;
                let below = &file[inside.len()..];
                let name = format!("{prefix}{name}/{below}");
                listing.made.add(name.len(), most)?;
                listing.add(name, location.clone());
            }
            let links = folders.range(inside.clone()..);
            for (link, target) in links.take_while(|(link, _)| link.starts_with(&inside)) {
                empty = false;
                let below = &link[inside.len()..];
                let name = format!("{name}/{below}");
                listing.made.add(name.len(), most)?;
                let path = [path.as_slice(), std::slice::from_ref(&end)].concat();
                work.push((name, target.as_deref(), path));
            }
            if empty {
                listing.skip(format!("{prefix}{name}"), "a link to what is not in the archive");
            }
        }
        for (name, location) in self.files {
            listing.add(format!("{prefix}{name}"), location);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(members: Members) -> (Vec<(String, usize)>, Vec<String>) {
        let mut listing = Listing::default();
        members.list("", &mut listing).expect("few links");
        let number = |location| match location {
            Location::Zip(number) => number,
            _ => unreachable!("they are numbered"),
        };
        let mut files: Vec<_> =
            listing.files.into_iter().map(|(name, at)| (name, number(at))).collect();
        files.sort();
        (files, listing.skipped.into_iter().map(|skipped| skipped.name).collect())
    }

    #[test]
    fn links_lead_where_they_led_when_unpacked() {
        let mut members = Members::default();
        members.file("a/0".into(), Location::Zip(0));
        members.hard("a/1".into(), "./a/0");
        members.file("a/0".into(), Location::Zip(1));
        members.file("b/0".into(), Location::Zip(2));
        members.symbolic("b/0".into(), "../l/0");
        members.symbolic("l".into(), "a");
        members.symbolic("x".into(), "/a");
        let (files, skipped) = listed(members);
        let expected = [("a/0", 1), ("a/1", 0), ("b/0", 1), ("l/0", 1), ("l/1", 0)];
        assert_eq!(files, expected.map(|(name, at)| (name.to_string(), at)));
        assert_eq!(skipped, ["x"]);
    }

    #[test]
    fn circles_end() {
        let mut members = Members::default();
        members.file("a/0".into(), Location::Zip(0));
        members.symbolic("a/b".into(), "../b");
        members.file("b/1".into(), Location::Zip(1));
        members.symbolic("b/a".into(), "../a");
        members.symbolic("c".into(), "c");
        let (files, mut skipped) = listed(members);
        let expected = [("a/0", 0), ("a/b/1", 1), ("b/1", 1), ("b/a/0", 0)];
        assert_eq!(files, expected.map(|(name, at)| (name.to_string(), at)));
        skipped.sort();
        assert_eq!(skipped, ["a/b/a", "b/a/b", "c"]);
    }

    /// Folders in a row with so many links in each to the next, and a file in the last.
    fn in_a_row(folders: usize, links: usize) -> Members {
        let mut members = Members::default();
        for folder in 1..folders {
            for link in 0..links {
                members.symbolic(format!("{}/{link}", folder - 1), &format!("../{folder}"));
            }
        }
        members.file(format!("{}/0", folders - 1), Location::Zip(0));
        members
    }

    #[test]
    fn links_multiply_files_up_to_a_limit() {
        let list = |members: Members| members.list("", &mut Listing::default());
        assert_eq!(list(in_a_row(17, 1)), Ok(()));
        assert_eq!(list(in_a_row(18, 1)), Err(LinkError::Nested));
        // Two to the 40 names.
        assert_eq!(list(in_a_row(41, 2)), Err(LinkError::Nested));
        // Five to the ten names.
        assert_eq!(list(in_a_row(11, 5)), Err(LinkError::Names(MOST_NAMES)));
        // Archives in an archive have one limit.
        let mut listing = Listing::default();
        listing.made.names = MOST_NAMES - 1;
        let ended = in_a_row(3, 1).list("", &mut listing);
        assert_eq!(ended, Err(LinkError::Names(MOST_NAMES)));
    }

    #[test]
    fn a_large_source_may_have_trees_of_links() {
        // ImageNet's images, with eight trees beside the one that they lie in.
        let images = 1_281_167;
        assert!(most_names(images) >= 8 * images);
        assert_eq!(most_names(100), MOST_NAMES);
        assert_eq!(most_names(usize::MAX), usize::MAX);
        let mut made = Made { names: 2 * images - 1, bytes: 0 };
        assert_eq!(made.add(40, most_names(images)), Ok(()));
    }
}
