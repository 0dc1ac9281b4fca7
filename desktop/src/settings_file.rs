//! The file of the preferences: of the windows that share it one writes it, and trouble with it is told once.

use std::path::{Path, PathBuf};

use tintype::files::{Lock, LockError, writable_folder};

use crate::preferences::{Preferences, Write};

/// Where this window's preferences are saved, if they are.
#[derive(Debug)]
pub struct SettingsFile {
    path: PathBuf,
    is_ours: bool,
    lock: Option<Lock>,
    /// How many times in a row they could not be saved.
    failures: u32,
}

/// The failure in a row that is told: a program that has the file open for a moment is no trouble.
const TOLD: u32 = 2;

impl SettingsFile {
    /// The file at a path, which is empty where there is no home for one. The second value says so where preferences
    /// will not be saved there.
    pub fn open(path: &Path) -> (Self, Option<String>) {
        let file = Self { path: path.into(), is_ours: true, lock: None, failures: 0 };
        let Some(folder) = path.parent() else {
            let trouble = "There is no home folder, so settings are not saved. Name a file for \
                           them with --settings when starting the app.";
            return (Self { is_ours: false, ..file }, Some(trouble.into()));
        };
        if let Err(e) = writable_folder(folder) {
            let trouble = format!("Settings cannot be saved: {e}: {}", e.source);
            return (Self { failures: TOLD, ..file }, Some(trouble));
        }
        match Lock::take(&lock_of(path)) {
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

    /// Reads the preferences. The second value says what of them could not be read. A file that is there and cannot
    /// be read at all is left as it is: nothing is saved in place of settings that may be good.
    pub fn load(&mut self) -> (Preferences, Option<String>) {
        Preferences::load(&self.path, self.is_ours).unwrap_or_else(|trouble| {
            self.is_ours = false;
            self.release();
            (Preferences::default(), Some(trouble))
        })
    }

    /// Saves preferences, if they are to be saved.
    ///
    /// # Errors
    ///
    /// Where that fails; a sentence goes with the second failure in a row.
    pub fn save(&mut self, preferences: &Preferences, write: Write) -> Result<(), Option<String>> {
        if !self.is_ours {
            return Ok(());
        }
        preferences.save(&self.path, write).map_err(|trouble| {
            self.failures = self.failures.saturating_add(1);
            (self.failures == TOLD).then_some(trouble)
        })?;
        self.failures = 0;
        Ok(())
    }

    /// Leaves the file to the next window.
    pub fn release(&mut self) {
        self.lock = None;
    }
}

/// The file that the window holds. Its name is longer than that of the settings, so it is never their file.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tintype::files::{WriteError, write_whole};

    use super::*;

    fn of_seed(seed: u64) -> Preferences {
        let mut preferences = Preferences::default();
        preferences.form.seed = seed;
        preferences
    }

    fn save(file: &mut SettingsFile, seed: u64) -> Result<(), Option<String>> {
        file.save(&of_seed(seed), write_whole)
    }

    fn saved(path: &Path) -> u64 {
        Preferences::load(path, false).expect("it can be read").0.form.seed
    }

    #[test]
    fn the_first_window_saves_and_the_second_says_that_it_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/settings.json");
        let (mut first, trouble) = SettingsFile::open(&path);
        assert_eq!(trouble, None);
        let (mut second, trouble) = SettingsFile::open(&path);
        assert!(trouble.expect("a sentence").contains("Another window"));
        assert_eq!(save(&mut first, 1), Ok(()));
        assert_eq!(save(&mut second, 2), Ok(()));
        assert_eq!(saved(&path), 1);
        // Another file is another matter.
        assert_eq!(SettingsFile::open(&folder.path().join("other.json")).1, None);
        // A window that is started again finds the way free.
        first.release();
        let (mut third, trouble) = SettingsFile::open(&path);
        assert_eq!(trouble, None);
        assert_eq!(save(&mut third, 3), Ok(()));
        assert_eq!(saved(&path), 3);
    }

    /// A lock on the settings themselves would go with the first that are saved.
    #[test]
    fn settings_of_any_name_are_those_of_one_window() {
        for name in ["settings.lock", "settings", "settings.json.lock"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(name);
            let (mut first, trouble) = SettingsFile::open(&path);
            assert_eq!(trouble, None, "{name}");
            assert_eq!(save(&mut first, 1), Ok(()), "{name}");
            let (_, trouble) = SettingsFile::open(&path);
            assert!(trouble.is_some_and(|t| t.contains("Another window")), "{name}");
        }
    }

    #[test]
    fn damaged_settings_are_moved_by_the_window_that_saves_them_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        let kept = folder.path().join("settings.damaged.json");
        let (mut first, _) = SettingsFile::open(&path);
        let (mut second, _) = SettingsFile::open(&path);
        for text in ["not JSON", r#"{"theme": 7}"#] {
            std::fs::write(&path, text).expect("written");
            let trouble = second.load().1.expect("a sentence");
            assert!(trouble.contains("could not be read"), "{trouble}");
            assert!(!trouble.contains("The old file is"), "{trouble}");
            assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text);
            assert!(!kept.exists());
        }
        assert!(first.load().1.expect("a sentence").contains("settings.damaged.json"));
        assert!(kept.exists());
    }

    #[test]
    fn settings_that_the_system_does_not_read_are_left_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        // A folder is not read as a file, even by an administrator.
        std::fs::create_dir_all(path.join("inside")).expect("a folder");
        let (mut file, trouble) = SettingsFile::open(&path);
        assert_eq!(trouble, None);
        let trouble = file.load().1.expect("a sentence");
        assert!(trouble.contains("could not be read ("), "{trouble}");
        assert!(trouble.contains("settings are not saved"), "{trouble}");
        assert!(path.join("inside").exists());
        // Nor are they written once they could be.
        std::fs::remove_dir_all(&path).expect("removed");
        assert_eq!(save(&mut file, 1), Ok(()));
        assert!(!path.exists());
        assert_eq!(SettingsFile::open(&path).1, None, "the next window may save");
    }

    /// Writes nothing, as Windows does while a program has the file open.
    fn in_use(path: &Path, _: &[u8]) -> Result<(), WriteError> {
        Err(WriteError { path: path.into(), source: ErrorKind::PermissionDenied.into() })
    }

    #[test]
    fn a_file_that_is_open_elsewhere_for_a_moment_is_no_trouble() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        let (mut file, _) = SettingsFile::open(&path);
        for seed in [1, 2] {
            assert_eq!(file.save(&of_seed(seed), in_use), Err(None));
            assert_eq!(save(&mut file, seed), Ok(()));
            assert_eq!(saved(&path), seed);
        }
        assert_eq!(file.save(&of_seed(3), in_use), Err(None));
        let trouble = file.save(&of_seed(3), in_use).expect_err("it is open").expect("a sentence");
        assert!(trouble.contains("could not be saved"), "{trouble}");
        assert_eq!(file.save(&of_seed(3), in_use), Err(None), "it was said");
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
        assert_eq!(save(&mut file, 1), Err(None), "it was said");
        // Once the way is free they are saved after all, and new trouble is news.
        std::fs::remove_file(&blocked).expect("removed");
        assert_eq!(save(&mut file, 1), Ok(()));
        assert_eq!(saved(&path), 1);
        std::fs::remove_dir_all(&blocked).expect("removed");
        std::fs::write(&blocked, "").expect("written");
        assert_eq!(save(&mut file, 2), Err(None));
        let trouble = save(&mut file, 2).expect_err("a file is there").expect("a sentence");
        assert!(trouble.contains("could not be saved"), "{trouble}");
        assert_eq!(save(&mut file, 2), Err(None), "it was said");
    }

    #[test]
    fn without_a_home_nothing_is_written() {
        let (mut file, trouble) = SettingsFile::open(Path::new(""));
        assert!(trouble.expect("a sentence").contains("--settings"));
        assert_eq!(file.load().1, None);
        assert_eq!(save(&mut file, 1), Ok(()));
    }
}
