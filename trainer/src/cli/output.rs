//! Image output: checked before generation, written atomically, without overwriting other images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tintype::files::{WriteError, writable_folder, write_beside, write_whole};

/// An output folder or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A folder with one file per image.
    Folder(PathBuf),
    /// One file: the image, or the grid of several.
    File(PathBuf),
}

impl Output {
    /// Parses `--out` and checks that it is writable.
    ///
    /// # Errors
    ///
    /// If another kind of image file is named, or the folder cannot be created or written.
    pub fn prepare(path: &Path) -> Result<Self> {
        let is_file = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        if !is_file && path.extension().is_some() && !path.is_dir() {
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if ["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"].contains(&&*extension) {
                bail!("--out {}: only .png files are written", path.display());
            }
        }
        let folder = match is_file {
            true => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            false => path,
        };
        let unwritable = || format!("--out {} cannot be written", path.display());
        writable_folder(folder).map_err(|e| e.source).with_context(unwritable)?;
        Ok(match is_file {
            true => Self::File(path.into()),
            false => Self::Folder(path.into()),
        })
    }

    /// Writes an image: overwrites a given file, but not other images in a folder. Returns its path.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the file cannot be written.
    pub fn write(&self, path: &Path, png: &[u8]) -> std::result::Result<PathBuf, WriteError> {
        match self {
            Self::File(_) => write_whole(path, png).map(|()| path.into()),
            Self::Folder(_) => write_beside(path, png),
        }
    }
}
