//! Tar archives, archives of archives as ImageNet is packed, and links inside them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use memmap2::Mmap;
use tar::EntryType;

use super::container::{Container, Listing, Location, map};
use super::{SourceError, error};

/// Links that lead to links that lead to … so many are taken for a circle.
const LONGEST_CHAIN: usize = 40;

/// Lists archives. Where there are several, each becomes a folder of its name.
pub(super) fn list_tars(paths: &[&Path]) -> Result<(Container, Listing), SourceError> {
    let mut listing = Listing::default();
    let mut maps = Vec::new();
    for (archive, path) in paths.iter().enumerate() {
        let map = map(path)?;
        let stem = path.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let prefix = if paths.len() > 1 { format!("{stem}/") } else { String::new() };
        let at = Archive { path, map: &map, number: archive };
        at.list(0, map.len(), &prefix, true, &mut listing)?;
        maps.push((path.to_path_buf(), map));
    }
    Ok((Container::Tars(maps), listing))
}

struct Archive<'a> {
    path: &'a Path,
    map: &'a Mmap,
    number: usize,
}

impl Archive<'_> {
    /// Lists the archive in a range of the file. Archives inside become folders of their name.
    fn list(
        &self,
        start: usize,
        len: usize,
        prefix: &str,
        nested: bool,
        listing: &mut Listing,
    ) -> Result<(), SourceError> {
        let damaged = |e: std::io::Error| error(self.path, format!("damaged archive: {e}"));
        let mut files: BTreeMap<String, Location> = BTreeMap::new();
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        let mut archive = tar::Archive::new(Cursor::new(&self.map[start..start + len]));
        for entry in archive.entries().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            let target = || {
                let bytes = entry.link_name_bytes().unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let at = start + entry.raw_file_position() as usize;
                    let size = entry.size() as usize;
                    if at.checked_add(size).is_none_or(|end| end > start + len) {
                        let problem = format!("{name} ends beyond the archive; it is truncated");
                        return Err(error(self.path, problem));
                    }
                    match name.strip_suffix(".tar") {
                        Some(inner) if nested => {
                            self.list(at, size, &format!("{prefix}{inner}/"), false, listing)?;
                        }
                        // As when unpacked, the last file of a name is the one that stays.
                        _ => {
                            links.remove(&name);
                            let location =
                                Location::Range { archive: self.number, start: at, len: size };
                            files.insert(name, location);
                        }
                    }
                }
                EntryType::Link => {
                    links.insert(name, normal(&target()));
                }
                EntryType::Symlink => {
                    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let target = target();
                    let target = match target.starts_with('/') {
                        true => target, // outside of the archive
                        false => normal(&format!("{folder}/{target}")),
                    };
                    links.insert(name, target);
                }
                EntryType::Directory => {
                    let folder = format!("{prefix}{name}");
                    listing.add_folders_of(&folder);
                    listing.folders.insert(folder.trim_end_matches('/').into());
                }
                EntryType::XGlobalHeader | EntryType::XHeader => {}
                EntryType::GNUSparse => listing.skip(format!("{prefix}{name}"), "a sparse file"),
                _ => listing.skip(format!("{prefix}{name}"), "not a regular file"),
            }
        }
        // Links to files first, since a link to a folder leads to them, too.
        let mut folders = Vec::new();
        for (name, target) in &links {
            match destination(target, &links, &files) {
                Ok(location) => {
                    files.insert(name.clone(), location);
                }
                Err(end) => folders.push((name, target, end)),
            }
        }
        for (name, target, end) in folders {
            let inside = format!("{end}/");
            let below = |file: &&String| file.starts_with(&inside);
            // A folder that the link itself lies in would have no end.
            let is_around = end.is_empty() || name.starts_with(&inside);
            let found: Vec<String> =
                files.keys().filter(below).filter(|_| !is_around).cloned().collect();
            if found.is_empty() {
                let reason = format!("a link to {target}, which is not in the archive");
                listing.skip(format!("{prefix}{name}"), reason);
            }
            for file in found {
                let location = files[&file].clone();
                listing.add(format!("{prefix}{name}/{}", &file[inside.len()..]), location);
            }
        }
        for (name, location) in files {
            listing.add(format!("{prefix}{name}"), location);
        }
        Ok(())
    }
}

/// The file that a link leads to, else the name that its chain ends with.
fn destination<'a>(
    target: &'a str,
    links: &'a BTreeMap<String, String>,
    files: &BTreeMap<String, Location>,
) -> Result<Location, &'a str> {
    let mut at = target;
    for _ in 0..LONGEST_CHAIN {
        if let Some(location) = files.get(at) {
            return Ok(location.clone());
        }
        match links.get(at) {
            Some(next) => at = next,
            None => break,
        }
    }
    Err(at)
}

/// A path without `.` and `..`, and without `/` at its ends.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
