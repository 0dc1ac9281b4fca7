//! What is remembered from one start to the next: one JSON file, written whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tintype::files::write_whole;
use tintype::generate::Settings;

use crate::engine::Choice;
use crate::form::Form;

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system says.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// Place and size of the window, in points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Left and top, where the system tells.
    pub position: Option<[f32; 2]>,
    /// Width and height.
    pub size: [f32; 2],
    /// Whether it fills the screen.
    pub maximized: bool,
}

/// What belongs to one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfModel {
    /// Its sampler, where it is not the default.
    pub settings: Option<Settings>,
    /// Whether pictures are made live, where somebody decided.
    pub live: Option<bool>,
    /// Classes with a star.
    pub favourites: Vec<usize>,
    /// Classes lately made, the latest first.
    pub recent: Vec<usize>,
}

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// Light or dark.
    pub theme: Theme,
    /// The window.
    pub window: Option<Window>,
    /// Where pictures are saved, where it is not the default.
    pub output: Option<PathBuf>,
    /// Model, device and precision.
    pub choice: Choice,
    /// Seed, count and classes.
    pub form: Form,
    /// By fingerprint; averages of one file by that of the first.
    pub models: BTreeMap<String, OfModel>,
}

/// Classes that are remembered as recent.
const RECENT: usize = 8;

impl OfModel {
    /// Notes that a class was made.
    pub fn made(&mut self, class: usize) {
        self.recent.retain(|c| *c != class);
        self.recent.insert(0, class);
        self.recent.truncate(RECENT);
    }

    /// Gives a class a star, or takes it.
    pub fn toggle_favourite(&mut self, class: usize) {
        match self.favourites.iter().position(|c| *c == class) {
            Some(at) => {
                self.favourites.remove(at);
            }
            None => self.favourites.push(class),
        }
    }
}

impl Preferences {
    /// Reads the file. One that cannot be understood is kept beside, and the second value says so.
    pub fn load(path: &Path) -> (Self, Option<String>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Default::default(),
            Err(e) => return (Self::default(), Some(damaged(path, &e.to_string(), None))),
        };
        match serde_json::from_str(&text) {
            Ok(preferences) => (preferences, None),
            Err(e) => {
                let kept = path.with_extension("damaged.json");
                let kept = std::fs::rename(path, &kept).ok().map(|()| kept);
                (Self::default(), Some(damaged(path, &e.to_string(), kept.as_deref())))
            }
        }
    }

    /// The window of the last time, asked for before there is one that could tell of trouble.
    pub fn window_in(path: &Path) -> Option<Window> {
        let preferences: Self = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        preferences.window
    }

    /// Writes the file; the error is a sentence.
    ///
    /// # Errors
    ///
    /// A sentence where the file or its folder cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let sentence = |reason: String| format!("The settings could not be saved: {reason}");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| sentence(format!("{}: {e}", folder.display())))?;
        }
        let text = serde_json::to_vec_pretty(self).map_err(|e| sentence(e.to_string()))?;
        write_whole(path, &text).map_err(|e| sentence(format!("{e}: {}", e.source)))
    }
}

fn damaged(path: &Path, reason: &str, kept: Option<&Path>) -> String {
    let kept = kept.map_or(String::new(), |kept| format!(" The old file is {}.", kept.display()));
    format!(
        "The settings in {} could not be read ({reason}); the app starts with its defaults.{kept}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/settings.json");
        assert_eq!(Preferences::load(&path).1, None, "a first start is no trouble");
        let mut preferences = Preferences { theme: Theme::Dark, ..Preferences::default() };
        preferences.form.seed = 42;
        preferences.choice.paths.average = Some(2);
        let of_model = preferences.models.entry("abc".into()).or_default();
        of_model.toggle_favourite(3);
        (0..20).for_each(|class| of_model.made(class % 10));
        assert_eq!(of_model.recent, [9, 8, 7, 6, 5, 4, 3, 2]);
        preferences.save(&path).expect("saved");
        assert_eq!(Preferences::load(&path), (preferences, None));
    }

    #[test]
    fn a_damaged_file_is_kept_and_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        std::fs::write(&path, "{\"theme\": \"da").expect("written");
        assert_eq!(Preferences::window_in(&path), None);
        let (preferences, trouble) = Preferences::load(&path);
        assert_eq!(preferences.theme, Theme::System);
        assert!(trouble.expect("a sentence").contains("settings.damaged.json"));
        assert!(folder.path().join("settings.damaged.json").exists() && !path.exists());
        // A setting of a later version is no damage.
        std::fs::write(&path, "{\"theme\": \"dark\", \"later\": 1}").expect("written");
        assert_eq!(Preferences::load(&path).0.theme, Theme::Dark);
        assert_eq!(Preferences::load(&path).1, None);
    }

    #[test]
    fn a_locked_folder_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").expect("written");
        let trouble = Preferences::default().save(&blocked.join("settings.json"));
        assert!(trouble.expect_err("that is a file").contains("could not be saved"));
    }
}
