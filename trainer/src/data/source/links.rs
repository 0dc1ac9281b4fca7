//! Files of an archive, and links between them.

use std::collections::BTreeMap;

use super::container::{Listing, Location};
use super::names::normal;

/// Links that lead to links that lead to … so many are taken for a circle.
const LONGEST_CHAIN: usize = 40;

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
    pub fn list(mut self, prefix: &str, listing: &mut Listing) {
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
        // Each with the folders that it lies in.
        let mut work = Vec::new();
        for (name, end) in &folders {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let folder = self.resolved(folder).unwrap_or_default();
            work.push((name.clone(), end.clone(), vec![folder]));
        }
        while let Some((name, end, path)) = work.pop() {
            let Some(end) = end else {
                listing.skip(format!("{prefix}{name}"), "a link to what is not in the archive");
                continue;
            };
            let inside = format!("{end}/");
            let is_around = |folder: &String| *folder == end || folder.starts_with(&inside);
            if end.is_empty() || path.iter().any(is_around) {
                listing.skip(format!("{prefix}{name}"), "a link to a folder around it");
                continue;
            }
            let mut empty = true;
            let files = self.files.range(inside.clone()..);
            for (file, location) in files.take_while(|(file, _)| file.starts_with(&inside)) {
                empty = false;
                let below = &file[inside.len()..];
                listing.add(format!("{prefix}{name}/{below}"), location.clone());
            }
            let links = folders.range(inside.clone()..);
            for (link, target) in links.take_while(|(link, _)| link.starts_with(&inside)) {
                empty = false;
                let below = &link[inside.len()..];
                let path = [path.as_slice(), std::slice::from_ref(&end)].concat();
                work.push((format!("{name}/{below}"), target.clone(), path));
            }
            if empty {
                listing.skip(format!("{prefix}{name}"), "a link to what is not in the archive");
            }
        }
        for (name, location) in self.files {
            listing.add(format!("{prefix}{name}"), location);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(members: Members) -> (Vec<(String, usize)>, Vec<String>) {
        let mut listing = Listing::default();
        members.list("", &mut listing);
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
}
