//! Files of an output in a folder: how shards are written, whose work they are, and what a killed process left of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use tintype::files::{Identity, IdentityError, stream_durably, sync_folder};
use tintype::weights::{SaveError, TensorView, open, write_safetensors_to};

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

/// Streams tensors and metadata into a shard, and returns the CRC-32C of its file once that has reached the disk.
///
/// # Errors
///
/// If the shard cannot be written; one that was there before is whole then.
pub fn write_shard(
    path: &Path,
    tensors: &BTreeMap<String, TensorView>,
    metadata: &BTreeMap<String, String>,
) -> Result<u32> {
    let mut crc32c = 0;
    stream_durably(path, |file| {
        let mut out = Summed { file, crc32c: 0 };
        write_safetensors_to(&mut out, tensors, metadata).map_err(|e| match e {
            SaveError::Io(source) => source,
            format => io::Error::other(format),
        })?;
        crc32c = out.crc32c;
        Ok(())
    })?;
    Ok(crc32c)
}

/// A file and the checksum of what has been written to it.
struct Summed<'a> {
    file: &'a mut File,
    crc32c: u32,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

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
    use tintype::weights::write_safetensors;

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

    #[test]
    fn a_shard_is_written_with_the_checksum_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        let values: Vec<f32> = (0..3000).map(|i| i as f32).collect();
        let view = TensorView::from_f32(vec![30, 100], &values).expect("as many values");
        let tensors = BTreeMap::from([("x".to_string(), view)]);
        let metadata = BTreeMap::from([(IDENTITY.to_string(), "{}".to_string())]);
        let crc32c = write_shard(&path, &tensors, &metadata).expect("it is written");
        let bytes = std::fs::read(&path).expect("it is there");
        assert_eq!(bytes, write_safetensors(&tensors, &metadata).expect("it fits"));
        assert_eq!(crc32c, crc32c::crc32c(&bytes));
        assert!(write_shard(&folder.path().join("no/x"), &tensors, &metadata).is_err());
    }
}
