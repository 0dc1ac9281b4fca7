//! The file of the preferences: of the windows that share it one writes it, and trouble with it is told once.

use std::path::{Path, PathBuf};

use tintype::files::{Lock, LockError, writable_folder};

use crate::preferences::Preferences;

/// Where this window's preferences are saved, if they are.
#[derive(Debug)]
pub struct SettingsFile {
    path: PathBuf,
    is_ours: bool,
    lock: Option<Lock>,
    /// Whether it was said that they cannot be saved.
    is_told: bool,
}

impl SettingsFile {
    /// The file at a path, which is empty where there is no home for one. The second value says so where preferences
    /// will not be saved there.
    pub fn open(path: &Path) -> (Self, Option<String>) {
        let file = Self { path: path.into(), is_ours: true, lock: None, is_told: false };
        let Some(folder) = path.parent() else {
            let trouble = "There is no home folder, so settings are not saved. Name a file for \
                           them with --settings when starting the app.";
            return (Self { is_ours: false, ..file }, Some(trouble.into()));
        };
        if let Err(e) = writable_folder(folder) {
            let trouble = format!("Settings cannot be saved: {e}: {}", e.source);
            return (Self { is_told: true, ..file }, Some(trouble));
        }
        match Lock::take(&path.with_extension("lock")) {
            Ok(lock) => (Self { lock: Some(lock), ..file }, None),
            Err(LockError::Held(_)) => {
                let trouble = "Another window is open with the same settings, so what is set in \
                               this one is not saved.";
                (Self { is_ours: false, ..file }, Some(trouble.into()))
            }
            // A disk without locks; what is set last is saved last.
            Err(LockError::Io { .. }) => (file, None),
        }
    }

    /// Saves preferences, if they are to be saved. Returns a sentence where that fails for the first time in a row.
    pub fn save(&mut self, preferences: &Preferences) -> Option<String> {
        if !self.is_ours {
            return None;
        }
        match preferences.save(&self.path) {
            Ok(()) => {
                self.is_told = false;
                None
            }
            Err(_) if self.is_told => None,
            Err(trouble) => {
                self.is_told = true;
                Some(trouble)
            }
        }
    }

    /// Leaves the file to the next window.
    pub fn release(&mut self) {
        self.lock = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_seed(seed: u64) -> Preferences {
        let mut preferences = Preferences::default();
        preferences.form.seed = seed;
        preferences
    }

    fn saved(path: &Path) -> u64 {
        Preferences::load(path).0.form.seed
    }

    #[test]
    fn the_first_window_saves_and_the_second_says_that_it_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/settings.json");
        let (mut first, trouble) = SettingsFile::open(&path);
        assert_eq!(trouble, None);
        let (mut second, trouble) = SettingsFile::open(&path);
        assert!(trouble.expect("a sentence").contains("Another window"));
        assert_eq!(first.save(&of_seed(1)), None);
        assert_eq!(second.save(&of_seed(2)), None);
        assert_eq!(saved(&path), 1);
        // Another file is another matter.
        assert_eq!(SettingsFile::open(&folder.path().join("other.json")).1, None);
        // A window that is started again finds the way free.
        first.release();
        let (mut third, trouble) = SettingsFile::open(&path);
        assert_eq!(trouble, None);
        assert_eq!(third.save(&of_seed(3)), None);
        assert_eq!(saved(&path), 3);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        // A file where the folder should be cannot be written into, even by an administrator.
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").expect("written");
        let path = blocked.join("settings.json");
        let (mut file, trouble) = SettingsFile::open(&path);
        let trouble = trouble.expect("a sentence");
        assert!(trouble.starts_with("Settings cannot be saved") && trouble.contains("file"));
        assert_eq!(file.save(&of_seed(1)), None, "it was said");
        // Once the way is free they are saved after all, and new trouble is news.
        std::fs::remove_file(&blocked).expect("removed");
        assert_eq!(file.save(&of_seed(1)), None);
        assert_eq!(saved(&path), 1);
        std::fs::remove_dir_all(&blocked).expect("removed");
        std::fs::write(&blocked, "").expect("written");
        let trouble = file.save(&of_seed(2)).expect("a sentence");
        assert!(trouble.contains("could not be saved"), "{trouble}");
        assert_eq!(file.save(&of_seed(2)), None, "it was said");
    }

    #[test]
    fn without_a_home_nothing_is_written() {
        let (mut file, trouble) = SettingsFile::open(Path::new(""));
        assert!(trouble.expect("a sentence").contains("--settings"));
        assert_eq!(file.save(&of_seed(1)), None);
    }
}
