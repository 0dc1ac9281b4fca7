//! Files of an output in a folder: whose work they are, and what a killed process left of them.

use std::path::Path;

use anyhow::{Context, Result};
use tintype::files::{Identity, IdentityError, sync_folder};
use tintype::weights::open;

/// What happens to an output of another making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Other {
    /// It is an error.
    #[default]
    Refuse,
    /// It is removed.
    Remove,
}

impl Other {
    /// Passes the result of a comparison on, or removes the files of an output of another making; tells whether it
    /// did.
    ///
    /// # Errors
    ///
    /// The comparison's; or a file cannot be removed.
    pub fn settle(self, compared: Result<(), IdentityError>, files: &[&Path]) -> Result<bool> {
        match compared {
            Err(error) if error.is_other_making() && self == Self::Remove => {
                files.iter().try_for_each(|file| remove(file))?;
                Ok(true)
            }
            compared => Ok(compared.map(|()| false)?),
        }
    }
}

/// Removes a file, unless another process has.
///
/// # Errors
///
/// If it is there and cannot be removed.
pub fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("{} cannot be removed", file.display()))
        }
        _ => Ok(()),
    }
}

/// Creates a folder, and makes its name last as long as the files in it will.
///
/// # Errors
///
/// If it cannot be created.
pub fn create_folder(folder: &Path) -> Result<()> {
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let new: Vec<&Path> = folder.ancestors().take_while(is_new).collect();
    std::fs::create_dir_all(folder)
        .and_then(|()| new.into_iter().try_for_each(sync_folder))
        .with_context(|| format!("{} cannot be created", folder.display()))
}

/// Names of the files in a folder, sorted; none if it is not there.
///
/// # Errors
///
/// If the folder is there and cannot be read.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("{} cannot be read", folder.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", folder.display()))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Compares every shard in a folder whose name `is_shard` with an identity; tells whether some were removed.
///
/// A shard that cannot be opened is nobody's work.
///
/// # Errors
///
/// [`IdentityError`] for the first shard of another making, unless those are removed; or the folder cannot be
/// read, or a shard not be removed.
pub fn check_shards(
    folder: &Path,
    is_shard: impl Fn(&str) -> bool,
    identity: &Identity,
    other: Other,
) -> Result<bool> {
    let mut removed = false;
    for name in names(folder)?.iter().filter(|name| is_shard(name)) {
        let path = folder.join(name);
        let Ok(shard) = open(&path) else { continue };
        let recorded = shard.metadata.get(IDENTITY).cloned();
        drop(shard);
        let compared = identity.check(&path, recorded.as_deref());
        removed |= other.settle(compared, &[path.as_path()])?;
    }
    Ok(removed)
}

/// The key of a shard's metadata, and the attribute of an `.h5` file, with its identity as JSON.
pub const IDENTITY: &str = "identity";

/// Removes the temporary files that killed processes left of files whose name `is_own`; only while no other
/// process writes them.
///
/// # Errors
///
/// If the folder cannot be read, or a file cannot be removed.
pub fn sweep(folder: &Path, is_own: impl Fn(&str) -> bool) -> Result<()> {
    for name in names(folder)? {
        if of_temporary(&name).is_some_and(&is_own) {
            remove(&folder.join(&name))?;
        }
    }
    Ok(())
}

/// The name of the file that a temporary one (`NAME.PID-RANDOM.tmp`) was to become.
fn of_temporary(name: &str) -> Option<&str> {
    let (name, mark) = name.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (process, random) = mark.split_once('-')?;
    let hex = |c: char| c.is_ascii_hexdigit();
    (process.parse::<u32>().is_ok() && random.len() == 16 && random.chars().all(hex))
        .then_some(name)
}

/// Whether a name is `before`, digits, `after`.
pub fn is_numbered(name: &str, before: &str, after: &str) -> bool {
    let number = name.strip_prefix(before).and_then(|name| name.strip_suffix(after));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use tintype::files::temporary_name;

    use super::*;

    #[test]
    fn only_own_temporary_files_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = temporary_name(&folder.path().join("images_00003.safetensors"));
        let others = ["images_00003.safetensors", "notes.tmp", "images_00001.safetensors.tmp"];
        std::fs::write(&left, "half").expect("it is written");
        for name in others {
            std::fs::write(folder.path().join(name), "x").expect("it is written");
        }
        sweep(folder.path(), |name| is_numbered(name, "images_", ".safetensors")).expect("swept");
        assert!(!left.exists());
        assert_eq!(names(folder.path()).expect("names").len(), others.len());
        assert!(names(&folder.path().join("no")).expect("nothing").is_empty());
    }

    #[test]
    fn numbered_names() {
        assert!(is_numbered("000123.png", "", ".png"));
        for name in [".png", "a.png", "1.png.tmp", "-1.png"] {
            assert!(!is_numbered(name, "", ".png"), "{name}");
        }
    }
}
