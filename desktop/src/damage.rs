//! Settings that could not be read: where the old file is kept, and what is said.

use std::io;
use std::path::{Path, PathBuf};

use tintype::files::write_beside;

/// Places of lost settings that are named.
const NAMED: usize = 4;

/// Keeps the bytes of a file beside it, where no other kept one has that name; returns where.
pub(crate) fn keep(path: &Path, bytes: &[u8]) -> Option<PathBuf> {
    write_beside(&path.with_extension("damaged.json"), bytes).ok()
}

/// The file is there, and the system does not read it.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!(
        "The settings in {} could not be read ({error}); settings are not saved, and the app \
         starts with its defaults.",
        path.display()
    )
}

/// Nothing of what was read is understood.
pub(crate) fn all_lost(path: &Path, reason: &str, kept: Option<&Path>) -> String {
    format!(
        "The settings in {} could not be read ({reason}); the app starts with its defaults.{}",
        path.display(),
        where_kept(kept)
    )
}

/// Parts are not understood.
pub(crate) fn partly_lost(path: &Path, lost: &[String], kept: Option<&Path>) -> String {
    let (named, others) = lost.split_at(lost.len().min(NAMED));
    let mut names = named.join(", ");
    if !others.is_empty() {
        names += &format!(" and {} more", others.len());
    }
    format!(
        "Some settings in {} could not be read and are at their defaults: {names}.{}",
        path.display(),
        where_kept(kept)
    )
}

fn where_kept(kept: Option<&Path>) -> String {
    kept.map_or(String::new(), |kept| format!(" The old file is {}.", kept.display()))
}
