//! Pictures into files, never over another one.

use std::path::{Path, PathBuf};

use tintype::files::{writable_folder, write_beside};

/// Writes a PNG under the first free name, `stem.png`, `stem (2).png`, …; the error says why not.
///
/// # Errors
///
/// A sentence where the folder cannot be created or the file cannot be written.
pub fn save(folder: &Path, stem: &str, png: &[u8]) -> Result<PathBuf, String> {
    let sentence = |e: tintype::files::WriteError| format!("{e}: {}", e.source);
    writable_folder(folder).map_err(sentence)?;
    write_beside(&folder.join(format!("{stem}.png")), png).map_err(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_never_replaces_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("new");
        let first = save(&inside, "fruit-17-7", b"one").expect("saved");
        let second = save(&inside, "fruit-17-7", b"two").expect("saved");
        assert_eq!(first, inside.join("fruit-17-7.png"));
        assert_eq!(second, inside.join("fruit-17-7 (2).png"));
        assert_eq!(std::fs::read(first).expect("there"), b"one");
        let blocked = save(&second, "fruit-17-7", b"three").expect_err("that is a file");
        assert!(blocked.contains("cannot be written"), "{blocked}");
    }
}
