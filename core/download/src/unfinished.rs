//! Which file an unfinished content of a Hub is of: contents lie under ids that only the Hub knows.

use std::path::{Path, PathBuf};

use tintype::catalogue::Hub;
use tintype::files::write_whole;

use crate::error::DownloadError;
use crate::part::{part_of, with_end};

/// What follows the name of a part in that of the note.
const NOTE: &str = ".path";

fn note_of(blob: &Path) -> PathBuf {
    with_end(&part_of(blob), NOTE)
}

/// Notes it beside the part.
pub(crate) fn note(blob: &Path, hub: &Hub) -> Result<(), DownloadError> {
    let folder = blob.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(DownloadError::write(folder))?;
    Ok(write_whole(&note_of(blob), hub.path.as_bytes())?)
}

/// Removes the note of a content of which no part is left: it is whole, or nothing of it came.
pub(crate) fn forget_unless_partial(blob: &Path) {
    if !part_of(blob).exists() {
        let _ = std::fs::remove_file(note_of(blob));
    }
}

/// The beginnings of the names of a file's unfinished contents in the folder of blobs.
pub(crate) fn parts_of(blobs: &Path, hub: &Hub) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(blobs) else { return Vec::new() };
    let is_of = |name: &String| {
        let noted = std::fs::read_to_string(blobs.join(name));
        noted.is_ok_and(|path| path == hub.path)
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let notes = names.filter(|name| name.ends_with(NOTE)).filter(is_of);
    notes.map(|name| name.trim_end_matches(NOTE).to_string()).collect()
}
