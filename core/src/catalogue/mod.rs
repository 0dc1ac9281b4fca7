//! Published models and the other files that go with them, by name: what each is, where it lies, under which
//! licence, and what of this has been checked.
//!
//! The [`Catalogue`] is data (`catalogue.json`, compiled in); a file of one's own extends it. Nothing here reads a
//! file or makes a request.

mod address;
mod entry;
mod size;

use std::sync::LazyLock;

pub use address::{Address, AddressError, Hub};
pub use entry::{Entry, File, Kind, Licence, Outcome, Role, Sources};
pub use size::Size;

use crate::labels::printable;

/// Published models by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

/// What a catalogue file has at its top.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    models: Vec<Entry>,
}

/// A catalogue of one's own that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is not a catalogue of models: {problem}")]
pub struct CatalogueError {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

/// There is no entry of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no model {:?}{}", printable(.name), suggestion(.near))]
pub struct UnknownModel {
    /// What was asked for.
    pub name: String,
    /// Names that are close.
    pub near: Vec<String>,
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

static BUILT_IN: LazyLock<Catalogue> = LazyLock::new(|| {
    let text = include_str!("catalogue.json");
    Catalogue::parse(text, "catalogue.json").expect("a test reads the catalogue")
});

impl Catalogue {
    /// The catalogue of this version.
    ///
    /// # Panics
    ///
    /// Never: a test reads it.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    fn parse(text: &str, file: &str) -> Result<Self, CatalogueError> {
        let failed = |problem: String| CatalogueError { file: file.into(), problem };
        let text = text.trim_start_matches('\u{feff}');
        let document: Document = serde_json::from_str(text).map_err(|e| failed(e.to_string()))?;
        for (i, entry) in document.models.iter().enumerate() {
            entry
                .check()
                .map_err(|problem| failed(format!("{}: {problem}", printable(&entry.name))))?;
            if document.models[..i].iter().any(|other| other.name == entry.name) {
                return Err(failed(format!("it has {} twice", entry.name)));
            }
        }
        Ok(Self { entries: document.models })
    }

    /// This catalogue and that of a file in the same format, whose entries come first and replace those of their
    /// names.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] where the text is no catalogue, an entry needs one that neither has, or a name is there
    /// twice.
    pub fn extended(&self, text: &str, file: &str) -> Result<Self, CatalogueError> {
        let Self { mut entries } = Self::parse(text, file)?;
        let old = self.entries.iter().filter(|old| entries.iter().all(|new| new.name != old.name));
        let old: Vec<Entry> = old.cloned().collect();
        entries.extend(old);
        let catalogue = Self { entries };
        let missing = catalogue.entries.iter().find_map(|entry| {
            let need = entry.needs.iter().find(|need| catalogue.get(need).is_none())?;
            Some(format!("{} needs {}, which is not there", entry.name, printable(need)))
        });
        match missing {
            Some(problem) => Err(CatalogueError { file: file.into(), problem }),
            None => Ok(catalogue),
        }
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of a name, in any case.
    ///
    /// # Errors
    ///
    /// [`UnknownModel`], with the names that are close.
    pub fn find(&self, name: &str) -> Result<&Entry, UnknownModel> {
        let lower = name.trim().to_lowercase();
        self.get(&lower).ok_or_else(|| UnknownModel { name: name.into(), near: self.near(&lower) })
    }

    /// Names that may have been meant, the closest first.
    fn near(&self, name: &str) -> Vec<String> {
        const SHOWN: usize = 3;
        const ALIKE: f64 = 0.85;
        let closeness = |entry: &Entry| match entry.name.contains(name) && name.len() > 2 {
            true => 1.0,
            false => strsim::jaro_winkler(name, &entry.name),
        };
        let mut near: Vec<_> = self.entries.iter().map(|e| (closeness(e), &e.name)).collect();
        near.retain(|(closeness, _)| *closeness >= ALIKE);
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.into_iter().take(SHOWN).map(|(_, name)| name.clone()).collect()
    }

    /// Entries in which every word is found: in the name, title, architecture, kind or licence. All without a word.
    pub fn search(&self, words: &str) -> Vec<&Entry> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let has_all = |entry: &&Entry| {
            let text = entry.searched();
            words.iter().all(|word| text.contains(word.as_str()))
        };
        self.entries.iter().filter(has_all).collect()
    }

    /// The entry and those that it needs, each once; what it names itself comes before what those need.
    fn with_needs<'a>(&'a self, entry: &'a Entry) -> Vec<&'a Entry> {
        let mut all = vec![entry];
        let mut next = 0;
        while let Some(entry) = all.get(next).copied() {
            let needed = entry.needs.iter().filter_map(|name| self.get(name));
            for needed in needed {
                if all.iter().all(|other| other.name != needed.name) {
                    all.push(needed);
                }
            }
            next += 1;
        }
        all
    }

    /// The file that an option of this role takes when it is given the name of the entry: the entry's own, else that
    /// of an entry that it needs; with the entry that it is of.
    pub fn file<'a>(&'a self, entry: &'a Entry, role: Role) -> Option<(&'a Entry, &'a File)> {
        let mut all = self.with_needs(entry).into_iter();
        all.find_map(|entry| Some((entry, entry.file(role)?)))
    }

    /// The size of every file that a request to an entry needs.
    pub fn size(&self, entry: &Entry) -> Size {
        if entry.files.is_empty() {
            return Size::Unknown;
        }
        Size::of(self.files(entry).into_iter().map(|(_, file)| file))
    }

    /// Every file that a request to an entry needs: its own, then those of the entries that it needs, of which only
    /// what generating takes.
    pub fn files<'a>(&'a self, entry: &'a Entry) -> Vec<(&'a Entry, &'a File)> {
        let mut files: Vec<(&Entry, &File)> = Vec::new();
        for of in self.with_needs(entry) {
            let is_own = of.name == entry.name;
            for file in &of.files {
                let is_taken = !is_own && files.iter().any(|(_, other)| other.role == file.role);
                let is_wanted = match is_own {
                    true => !file.role.is_for_training(),
                    false => file.role.is_for_generating(),
                };
                if is_wanted && !is_taken {
                    files.push((of, file));
                }
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_whole() {
        let catalogue = Catalogue::built_in();
        assert!(catalogue.entries().len() > 40);
        for entry in catalogue.entries() {
            for need in &entry.needs {
                assert!(catalogue.get(need).is_some(), "{} needs {need}", entry.name);
            }
            assert!(!entry.title.is_empty() && !entry.licence.id.is_empty(), "{}", entry.name);
            assert!(!entry.files.is_empty() || !entry.notes.is_empty(), "{}", entry.name);
            if let Some(preset) = &entry.preset {
                assert!(crate::preset::find(preset).is_some(), "{preset}");
            }
        }
    }

    #[test]
    fn digests_and_revisions_are_hexadecimal() {
        let files = Catalogue::built_in().entries().iter().flat_map(|entry| &entry.files);
        let mut pinned = 0;
        for file in files {
            if let Address::Hub(hub) = &file.address
                && hub.revision != "main"
            {
                assert!(hub.is_pinned(), "{}", file.address);
            }
            pinned += usize::from(file.sha256.is_some());
            assert_eq!(file.sha256.is_some(), file.sources.sha256.is_some(), "{}", file.address);
            assert!(file.bytes.is_none() || file.sources.bytes.is_some(), "{}", file.address);
        }
        assert!(pinned > 12, "{pinned}");
    }

    #[test]
    fn published_settings_fit_the_networks_that_are_known() {
        for entry in Catalogue::built_in().entries() {
            if let (Some(preset), Some(settings)) = (entry.known_network(), entry.sampling) {
                settings.validate(&preset.architecture).expect(&entry.name);
            }
        }
    }

    #[test]
    fn names_are_found_and_suggested() {
        let catalogue = Catalogue::built_in();
        let entry = catalogue.find("LightningDiT-XL-1-800ep").expect("any case");
        let roles: Vec<Role> = catalogue.files(entry).iter().map(|(_, f)| f.role).collect();
        assert_eq!(roles, [Role::Network, Role::Autoencoder, Role::Statistics]);
        let error = catalogue.find("lightningdit-xl-800ep").expect_err("there is none");
        assert!(error.near.iter().any(|n| n == "lightningdit-xl-1-800ep"), "{error}");
        assert!(catalogue.find("nothing of the kind").expect_err("none").near.is_empty());
        assert!(catalogue.search("imagenet 512").iter().any(|entry| entry.name == "pmf-b-32"));
        assert!(
            catalogue.search("imagenet 256").iter().any(|entry| entry.name.starts_with("light"))
        );
        let found = catalogue.search("repa-e mit autoencoder");
        assert!(found.iter().any(|entry| entry.name == "e2e-vavae"), "{found:?}");
    }

    #[test]
    fn a_catalogue_of_ones_own_comes_first() {
        let mine = r#"{"models": [
            {"name": "mine", "title": "Mine", "kind": "network", "licence": {"id": "CC-BY-NC-4.0", "commercial": false},
             "files": [{"role": "network", "address": "https://example.org/mine.safetensors"}],
             "needs": ["va-vae"]},
            {"name": "va-vae", "title": "Another", "kind": "autoencoder", "licence": {"id": "MIT", "commercial": true},
             "files": [{"role": "autoencoder", "address": "hub:me/mine/vae.pt"}]}]}"#;
        let built_in = Catalogue::built_in();
        let both = built_in.extended(mine, "models.json").expect("a catalogue");
        assert_eq!(both.entries().len(), built_in.entries().len() + 1);
        assert_eq!(both.entries()[0].name, "mine");
        assert_eq!(both.find("va-vae").expect("it is replaced").title, "Another");
        let refused =
            |text: &str| built_in.extended(text, "models.json").expect_err("refused").to_string();
        assert!(refused("[]").starts_with("models.json is not a catalogue of models: "));
        assert!(refused(&mine.replace("va-vae", "mine")).ends_with("it has mine twice"));
        let other = refused(&mine.replace("\"needs\": [\"va-vae\"]", "\"needs\": [\"x\"]"));
        assert!(other.ends_with("mine needs x, which is not there"), "{other}");
        let other = refused(&mine.replace("\"title\"", "\"titel\""));
        assert!(other.contains("titel"), "{other}");
    }
}
