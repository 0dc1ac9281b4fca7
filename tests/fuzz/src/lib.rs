//! What the fuzz targets share: a bound on memory, files for readers that take paths, containers around
//! an input, and reading all that a file holds.

pub mod checkpoint;
pub mod container;
mod memory;
pub mod source;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder of this process. The fuzzer ends without destructors, so it stays; `.ci/fuzz` removes it.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // In memory, unless another place is asked for.
        let memory = Path::new("/dev/shm");
        let made = match std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        made.expect("there is a place for files").keep()
    })
}

/// Lets a reader open a file of these bytes, which is `name` in the [`folder`].
pub fn with_file<T>(bytes: &[u8], name: &str, read: impl FnOnce(&Path) -> T) -> T {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the folder takes files");
    read(&path)
}
