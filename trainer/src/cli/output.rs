//! Image output: checked before generation, written atomically, without replacing other images unasked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tintype::files::{WriteError, writable_folder, write_beside, write_whole};

/// Where images go, and those that went there.
#[derive(Debug)]
pub struct Output {
    place: Place,
    overwrite: bool,
    written: Vec<PathBuf>,
    taken: Vec<PathBuf>,
}

/// An output folder or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder with one file per image.
    Folder(PathBuf),
    /// One file: the image, or the grid of several.
    File(PathBuf),
}

/// Creates the folder of an output, and makes sure that files can be written into it.
///
/// # Errors
///
/// If it cannot be created or written.
pub fn check_folder(option: &str, output: &Path, folder: &Path) -> Result<()> {
    let unwritable = || format!("{option} {} cannot be written", output.display());
    writable_folder(folder).map_err(|e| e.source).with_context(unwritable)
}

/// Makes sure that a file of this name can be written; its folder is created.
///
/// # Errors
///
/// If it is a folder, or its folder cannot be created or written.
pub fn check_file(option: &str, file: &Path) -> Result<()> {
    ensure!(!file.is_dir(), "{option} {} is a folder", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    check_folder(option, file, folder.unwrap_or(Path::new(".")))
}

impl Output {
    /// Parses `--out` and checks that it is writable.
    ///
    /// # Errors
    ///
    /// If another kind of image file is named, or the folder cannot be created or written.
    pub fn prepare(path: &Path, overwrite: bool) -> Result<Self> {
        let is_file = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        if !is_file && path.extension().is_some() && !path.is_dir() {
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            let others = ["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
            if others.into_iter().any(|other| extension == other) {
                bail!("--out {}: only .png files are written", path.display());
            }
        }
        let place = match is_file {
            true => {
                check_file("--out", path)?;
                Place::File(path.into())
            }
            false => {
                check_folder("--out", path, path)?;
                Place::Folder(path.into())
            }
        };
        Ok(Self { place, overwrite, written: Vec::new(), taken: Vec::new() })
    }

    /// The folder or the file.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Writes an image under its name; where another file has that, under a free one, or over it with
    /// `--overwrite`. Returns its path.
    ///
    /// # Errors
    ///
    /// [`WriteError`] if the file cannot be written.
    pub fn write(&mut self, path: &Path, png: &[u8]) -> Result<PathBuf, WriteError> {
        let written = match self.overwrite {
            true => write_whole(path, png).map(|()| path.to_path_buf())?,
            false => write_beside(path, png)?,
        };
        if written != path {
            self.taken.push(path.into());
        }
        self.written.push(written.clone());
        Ok(written)
    }

    /// What was written, in a few words.
    pub fn summary(&self) -> String {
        let Some(last) = self.written.last() else { return "nothing was written".into() };
        let last = last.display();
        match self.taken.as_slice() {
            [] => last.to_string(),
            [one] => {
                format!("{last} ({} is another image; --overwrite replaces it)", one.display())
            }
            [.., one] => format!(
                "{last} ({} names, such as {}, are taken by other images; --overwrite replaces them)",
                self.taken.len(),
                one.display()
            ),
        }
    }
}
