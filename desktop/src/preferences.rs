//! What is remembered from one start to the next: one JSON file, written whole and read part by part.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tintype::files::{WriteError, text_of};
use tintype::generate::{ModelPaths, Settings};

use crate::damage;
use crate::engine::Choice;
use crate::form::Form;
use crate::salvage::{Salvaged, forget, put_back, salvage};

/// Of the file. Those without a number are of version 0, whose parts were the same.
const VERSION: u32 = 1;

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
    /// Its sampler, where it is not the default. Read as a whole: steps are of one sampler.
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
    /// What a later version remembers, which is written back.
    #[serde(skip)]
    pub unknown: Map<String, Value>,
}

/// The file.
#[derive(Serialize)]
struct File<'a> {
    version: u32,
    #[serde(flatten)]
    preferences: &'a Preferences,
}

/// What writes a file: [`write_whole`](tintype::files::write_whole), or
/// [`try_write_whole`](tintype::files::try_write_whole) where nothing may wait.
pub type Write = fn(&Path, &[u8]) -> Result<(), WriteError>;

/// Classes that are remembered as recent.
const RECENT: usize = 8;

impl Window {
    /// Whether a window can have it. Numbers out of range become infinite.
    fn is_possible(&self) -> bool {
        let mut numbers = self.position.unwrap_or_default().into_iter().chain(self.size);
        numbers.all(f32::is_finite) && self.size.iter().all(|side| *side > 0.0)
    }
}

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
    /// Reads the file. What of it cannot be understood falls to defaults, and the second value says so. Of this
    /// window's own file the old bytes are then kept beside it.
    ///
    /// # Errors
    ///
    /// A sentence where the file is there and cannot be read: it may be good, so it is not to be written.
    pub fn load(path: &Path, is_ours: bool) -> Result<(Self, Option<String>), String> {
        let bytes = match std::fs::read(path) {
            // A folder above it may be a file.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Default::default());
            }
            Err(e) => return Err(damage::unreadable(path, &e)),
            Ok(bytes) => bytes,
        };
        let keep = || if is_ours { damage::keep(path, &bytes) } else { None };
        match Self::read(&bytes) {
            Ok((preferences, lost)) if lost.is_empty() => Ok((preferences, None)),
            // The rest of the file is good, and stays.
            Ok((preferences, lost)) => {
                let trouble = damage::partly_lost(path, &lost, keep().as_deref());
                Ok((preferences, Some(trouble)))
            }
            Err(reason) => {
                let kept = keep();
                if kept.is_some() {
                    // Where it stays it is kept once more, under the same name.
                    let _ = std::fs::remove_file(path);
                }
                Ok((Self::default(), Some(damage::all_lost(path, &reason, kept.as_deref()))))
            }
        }
    }

    /// What a file holds, and the places of what could not be read; an error where it is no JSON object.
    fn read(bytes: &[u8]) -> Result<(Self, Vec<String>), String> {
        let text = text_of(bytes).map_err(|e| e.to_string())?;
        let mut given: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| e.to_string())?;
        given.remove("version");
        let Salvaged { read, lost, unknown } = salvage::<Self>(given);
        let window = read.window.filter(Window::is_possible);
        Ok((Self { window, unknown, ..read }, lost))
    }

    /// Sets the model. What a later version remembers of the files of another one goes with that.
    pub fn set_paths(&mut self, paths: ModelPaths) {
        if paths.model != self.choice.paths.model {
            forget(&mut self.unknown, &["choice", "paths"]);
        }
        self.choice.paths = paths;
    }

    /// Sets how a model's pictures are sampled, which is remembered where it is not the default. What a later version
    /// remembers of another sampler goes with that.
    pub fn set_settings(&mut self, model: &str, settings: Settings, defaults: Settings) {
        let remembered = &mut self.models.entry(model.into()).or_default().settings;
        if remembered.unwrap_or(defaults).sampler != settings.sampler {
            forget(&mut self.unknown, &["models", model, "settings"]);
        }
        *remembered = (settings != defaults).then_some(settings);
    }

    /// The window of the last time, asked for before there is one that could tell of trouble.
    pub fn window_in(path: &Path) -> Option<Window> {
        let (preferences, _) = Self::read(&std::fs::read(path).ok()?).ok()?;
        preferences.window
    }

    /// Writes the file; the error is a sentence.
    ///
    /// # Errors
    ///
    /// A sentence where the file or its folder cannot be written.
    pub fn save(&self, path: &Path, write: Write) -> Result<(), String> {
        let sentence = |reason: String| format!("The settings could not be saved: {reason}");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| sentence(format!("{}: {e}", folder.display())))?;
        }
        let text = self.to_json().map_err(|e| sentence(e.to_string()))?;
        write(path, &text).map_err(|e| sentence(format!("{e}: {}", e.source)))
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut file = serde_json::to_value(File { version: VERSION, preferences: self })?;
        if let Value::Object(file) = &mut file {
            put_back(&self.unknown, file);
        }
        serde_json::to_vec_pretty(&file)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tintype::files::write_whole;
    use tintype::settings::Sampler;

    use super::*;

    /// The file as the window has it that saves there.
    fn load(path: &Path) -> (Preferences, Option<String>) {
        Preferences::load(path, true).expect("it can be read")
    }

    #[test]
    fn settings_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/settings.json");
        assert_eq!(load(&path).1, None, "a first start is no trouble");
        let mut preferences = Preferences { theme: Theme::Dark, ..Preferences::default() };
        preferences.form.seed = 42;
        preferences.choice.paths.average = Some(2);
        let of_model = preferences.models.entry("abc".into()).or_default();
        of_model.toggle_favourite(3);
        (0..20).for_each(|class| of_model.made(class % 10));
        assert_eq!(of_model.recent, [9, 8, 7, 6, 5, 4, 3, 2]);
        preferences.save(&path, write_whole).expect("saved");
        assert_eq!(load(&path), (preferences, None));
    }

    #[test]
    fn a_damaged_file_is_kept_and_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        let kept = |name: &str| std::fs::read(folder.path().join(name)).expect("it is kept");
        let torn = b"{\"theme\": \"da";
        std::fs::write(&path, torn).expect("written");
        assert_eq!(Preferences::window_in(&path), None);
        let (preferences, trouble) = load(&path);
        assert_eq!(preferences.theme, Theme::System);
        assert!(trouble.expect("a sentence").contains("settings.damaged.json"));
        assert_eq!(kept("settings.damaged.json"), torn);
        assert!(!path.exists());
        // A setting of a later version is no damage, and neither is the mark that Windows' Notepad begins texts with.
        for text in [r#"{"theme": "dark", "later": 1}"#, "\u{feff}{\"theme\": \"dark\"}"] {
            std::fs::write(&path, text).expect("written");
            let (preferences, trouble) = load(&path);
            assert_eq!((preferences.theme, trouble), (Theme::Dark, None), "{text}");
        }
        // Bytes that are no text are kept, too, and replace no others.
        std::fs::write(&path, b"\xff\xfe").expect("written");
        let trouble = load(&path).1.expect("a sentence");
        assert!(trouble.contains("UTF-16") && trouble.contains("damaged (2).json"), "{trouble}");
        assert_eq!(kept("settings.damaged (2).json"), b"\xff\xfe");
        assert_eq!(kept("settings.damaged.json"), torn);
    }

    #[test]
    fn a_locked_folder_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").expect("written");
        let path = blocked.join("settings.json");
        let trouble = Preferences::default().save(&path, write_whole);
        assert!(trouble.expect_err("that is a file").contains("could not be saved"));
        assert_eq!(load(&path).1, None, "there are no settings to be lost");
    }

    /// A settings file of the repository, read, and as it is.
    fn case(name: &str) -> (Preferences, Vec<String>, Value) {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/settings");
        let bytes = std::fs::read(cases.join(name).with_extension("json")).expect(name);
        let (preferences, lost) = Preferences::read(&bytes).expect("an object");
        (preferences, lost, serde_json::from_slice(&bytes).expect("JSON"))
    }

    /// What would be in the file.
    fn written(preferences: &Preferences) -> Value {
        serde_json::from_slice(&preferences.to_json().expect("JSON")).expect("JSON")
    }

    /// Every value of one file is in another.
    fn assert_holds(now: &Value, then: &Value, place: &str) {
        let Value::Object(parts) = then else {
            assert_eq!(now, then, "{place}");
            return;
        };
        for (name, part) in parts {
            assert_holds(&now[name], part, &format!("{place}.{name}"));
        }
    }

    /// The formats of earlier versions, the oldest first.
    #[test]
    fn settings_of_earlier_versions_are_read_and_written_without_loss() {
        for name in ["1-first", "2-hybrid", "3-live", "4-averages", "5-numbered"] {
            let (preferences, lost, then) = case(name);
            assert!(lost.is_empty(), "{name}: {lost:?}");
            assert!(preferences.unknown.is_empty(), "{name}: {:?}", preferences.unknown);
            let now = written(&preferences);
            assert_eq!(now["version"], json!(VERSION));
            assert_holds(&now, &then, name);
            let again = Preferences::read(now.to_string().as_bytes());
            assert_eq!(again, Ok((preferences, Vec::new())), "{name}");
        }
    }

    #[test]
    fn earlier_settings_mean_what_they_meant() {
        let (first, ..) = case("1-first");
        assert_eq!(first.theme, Theme::Dark);
        assert_eq!((first.form.seed, first.form.to), (7, None));
        let of_model = &first.models["a8454562b8209a49"];
        assert_eq!((of_model.live, &of_model.favourites[..]), (None, &[3, 5][..]));
        let settings = of_model.settings.expect("its sampler");
        assert_eq!((settings.sampler.name(), settings.steps), ("dpmpp-2m", 12));
        let (live, ..) = case("3-live");
        assert_eq!(live.models["00c0ffee00c0ffee"].live, Some(false));
        let (averages, ..) = case("4-averages");
        assert_eq!(averages.choice.paths.average, Some(2));
        assert_eq!(averages.form.to.map(|to| to.seed), Some(20));
    }

    #[test]
    fn a_later_version_finds_its_settings_again() {
        let (mut preferences, lost, mut then) = case("later");
        assert!(lost.is_empty(), "{lost:?}");
        preferences.theme = Theme::Light;
        then["theme"] = json!("light");
        then["version"] = json!(VERSION);
        assert_holds(&written(&preferences), &then, "later");
    }

    #[test]
    fn what_a_later_version_remembers_goes_with_its_model_and_its_sampler() {
        let (mut preferences, ..) = case("later");
        let key = "a8454562b8209a49";
        let kept = |preferences: &Preferences| {
            let now = written(preferences);
            let guidance = &now["models"][key]["settings"]["guidance"];
            let is_there = |part: &Value| !part.is_null();
            [
                is_there(&now["choice"]["paths"]["adapters"]),
                is_there(&guidance["momentum"]),
                is_there(&now["models"][key]["notes"]) && is_there(&now["choice"]["threads"]),
            ]
        };
        let settings = preferences.models[key].settings.expect("its sampler");
        let other = Settings { sampler: Sampler::Heun, ..settings };
        // Another guide makes it no other model, and other steps no other sampler.
        preferences.set_paths(ModelPaths { guide: Some("g".into()), ..ModelPaths::default() });
        preferences.set_settings(key, Settings { steps: 9, ..settings }, other);
        assert_eq!(kept(&preferences), [true, true, true]);
        preferences.set_paths(ModelPaths { model: Some("m".into()), ..ModelPaths::default() });
        preferences.set_settings("another", other, settings);
        assert_eq!(kept(&preferences), [false, true, true]);
        preferences.set_settings(key, Settings { steps: 9, ..other }, other);
        assert_eq!(kept(&preferences), [false, false, true]);
        // Nor do they come back with the old ones.
        preferences.set_paths(ModelPaths::default());
        preferences.set_settings(key, settings, other);
        assert_eq!(kept(&preferences), [false, false, true]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings.json");
        let (.., then) = case("damaged");
        std::fs::write(&path, then.to_string()).expect("written");
        let (preferences, trouble) = load(&path);
        let trouble = trouble.expect("a sentence");
        let lost = "choice.precision, form.count, models.00c0ffee00c0ffee, models.a8454562b8209a49.settings and 1 more";
        assert!(trouble.contains(lost), "{trouble}");
        assert!(trouble.contains("settings.damaged.json"), "{trouble}");
        let kept = std::fs::read_to_string(folder.path().join("settings.damaged.json"));
        assert_eq!(kept.expect("it is kept"), then.to_string());
        assert!(path.exists(), "the rest is good");
        // What stands beside it stays.
        assert_eq!((preferences.theme, preferences.choice.device.as_str()), (Theme::System, "cpu"));
        assert_eq!((preferences.form.seed, preferences.form.count), (7, 1));
        let of_model = &preferences.models["a8454562b8209a49"];
        assert_eq!((of_model.settings, &of_model.recent[..]), (None, &[1, 2][..]));
        assert!(!preferences.models.contains_key("00c0ffee00c0ffee"), "it is a number");
        // Once it is written again, nothing is lost any more.
        preferences.save(&path, write_whole).expect("saved");
        assert_eq!(load(&path), (preferences, None));
    }

    #[test]
    fn a_window_without_size_or_of_infinite_size_is_left_out() {
        let (preferences, lost, _) = case("damaged");
        assert_eq!(preferences.window, None);
        assert!(!lost.contains(&"window".to_string()));
        let window = Window { position: None, size: [900.0, 640.0], maximized: true };
        assert!(window.is_possible());
        assert!(!Window { size: [900.0, 0.0], ..window }.is_possible());
        assert!(!Window { position: Some([f32::INFINITY, 0.0]), ..window }.is_possible());
    }
}
