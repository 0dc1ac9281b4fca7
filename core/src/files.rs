//! Writing files so that nobody ever sees half of one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written", .path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: std::io::Error,
}

/// Writes a file under a temporary name and renames it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, bytes, false)
}

/// The same, after the bytes have reached the disk: survives a machine that stops, too.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, bytes, true)
}

fn write(path: &Path, bytes: &[u8], durably: bool) -> Result<(), WriteError> {
    let temporary = temporary_name(path);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            if durably { file.sync_all() } else { Ok(()) }
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(|source| WriteError { path: path.into(), source })
}

/// Creates a folder and makes sure that files can be written into it.
pub fn writable_folder(folder: &Path) -> Result<(), WriteError> {
    let failed = |source| WriteError { path: folder.into(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let probe = temporary_name(&folder.join(".tintype"));
    std::fs::write(&probe, []).map_err(failed)?;
    std::fs::remove_file(&probe).map_err(failed)
}

/// A name beside `path` that no reader looks for.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
}
