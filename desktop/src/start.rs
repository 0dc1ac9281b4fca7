//! How the app is started.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tintype::generate::ModelPaths;
use tintype_download::Environment;

/// How the app is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The file of the preferences; empty where there is no home for one.
    pub preferences: PathBuf,
    /// Where pictures are saved unless somebody chose another folder.
    pub pictures: PathBuf,
    /// Model, instead of the remembered one.
    pub paths: Option<ModelPaths>,
    /// Device, instead of the remembered one.
    pub device: Option<String>,
    /// Folder for pictures, instead of the remembered one.
    pub output: Option<PathBuf>,
    /// Files to open, as if they were dropped on the window.
    pub files: Vec<PathBuf>,
    /// Where published models are fetched from and kept, instead of what the process' environment says.
    pub environment: Option<Environment>,
    /// The model that is open, for a start after this one.
    pub open: Arc<Mutex<Option<ModelPaths>>>,
    /// The folder for pictures that was chosen in the window, for a start after this one.
    pub folder: Arc<Mutex<Option<PathBuf>>>,
    /// A message to begin with.
    pub notice: Option<String>,
    /// Repaint 60 times a second while pictures develop, and report how long frames took.
    pub frame_times: bool,
}

impl Start {
    /// Notes which model is open.
    pub fn note_open(&self, paths: &ModelPaths) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(paths.clone());
    }

    /// The model that was open last; `None` where no window came so far.
    pub fn last_open(&self) -> Option<ModelPaths> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which folder was chosen.
    pub fn note_folder(&self, folder: &Path) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.into());
    }

    /// The folder that was chosen last, in the window or at this start; `None` where none was.
    pub fn last_folder(&self) -> Option<PathBuf> {
        let chosen = self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        chosen.or_else(|| self.output.clone())
    }
}
