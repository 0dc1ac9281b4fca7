//! The published models: those that are known, and what of them is on this machine.

use std::path::{Path, PathBuf};

use tintype::catalogue::{Catalogue, Entry, Kind, Role};
use tintype::generate::{ModelPaths, Settings};
use tintype::model::Architecture;
use tintype_download::{Downloader, Environment, Presence, user_catalogue};

use super::card::warning;
use crate::face;
use tintype::catalogue::Size;

/// The catalogue, and what finds and fetches its files.
#[derive(Debug)]
pub struct Library {
    pub(crate) catalogue: Catalogue,
    pub(crate) downloader: Downloader,
}

/// What of a model is on this machine, and what fetching the rest takes.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// How much of all that it needs.
    pub presence: Presence,
    /// Its own files.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// All that are here, as opening it takes them.
    pub paths: ModelPaths,
    /// Bytes of the files that are missing.
    pub missing: Size,
    /// Bytes of them that a download goes on from.
    pub begun: u64,
    /// Who is asked for them.
    pub hosts: Vec<String>,
    /// What is to be said of their licences first.
    pub warnings: Vec<String>,
}

impl Library {
    /// The library of an environment. A catalogue of the user's own that cannot be read is left out, and the
    /// second value says so.
    pub fn open(environment: Environment) -> (Self, Option<String>) {
        let (catalogue, trouble) = match user_catalogue(&environment) {
            Ok(catalogue) => (catalogue, None),
            Err(error) => {
                let sentence = face::full_sentence(&error);
                let trouble =
                    format!("{sentence}. Only the program's own list of models is shown.");
                (Catalogue::built_in().clone(), Some(trouble))
            }
        };
        (Self { catalogue, downloader: Downloader::new(environment) }, trouble)
    }

    /// The models that make pictures, and autoencoders; what only evaluation and training take is left out.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let is_shown = |entry: &&Entry| matches!(entry.kind, Kind::Network | Kind::Autoencoder);
        self.catalogue.entries().iter().filter(is_shown)
    }

    /// The published network whose file on this machine this is.
    pub fn entry_of(&self, network: &Path) -> Option<&Entry> {
        let is_it = |entry: &&Entry| {
            let file = entry.file(Role::Network).and_then(|file| self.downloader.find(file));
            file.is_some_and(|file| file == network)
        };
        self.entries().find(is_it)
    }

    /// What of every model is on this machine. Looks at files, and makes no request.
    pub fn statuses(&self) -> Vec<(String, CacheStatus)> {
        self.entries().map(|entry| (entry.name.clone(), self.status(entry))).collect()
    }

    fn status(&self, entry: &Entry) -> CacheStatus {
        let Self { catalogue, downloader } = self;
        let mut files: Vec<PathBuf> =
            entry.files.iter().filter_map(|file| downloader.find(file)).collect();
        files.sort();
        files.dedup();
        let missing = downloader.missing(catalogue, entry);
        let (mut hosts, mut warnings) = (Vec::new(), Vec::new());
        for (of, file) in &missing {
            add(&mut hosts, downloader.host(file));
            if let Some(warning) = warning(of) {
                add(&mut warnings, warning);
            }
        }
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        CacheStatus {
            presence: downloader.presence(catalogue, entry),
            bytes: files.iter().map(size).sum(),
            files,
            paths: downloader.paths(catalogue, entry),
            missing: Size::of(missing.iter().map(|(_, file)| *file)),
            begun: missing.iter().map(|(_, file)| downloader.begun(file)).sum(),
            hosts,
            warnings,
        }
    }
}

/// The authors' settings, where they fit the network that the file of an entry holds, and its guide.
pub fn published_settings(
    entry: &Entry,
    architecture: &Architecture,
    guide: Option<&Architecture>,
) -> Option<Settings> {
    let is_of_kind = entry.architecture.as_deref() == Some(architecture.name());
    let fits = |settings: &Settings| settings.validate_with(architecture, guide).is_ok();
    entry.sampling.filter(|settings| is_of_kind && fits(settings))
}

impl CacheStatus {
    /// The question before a download, which is its button: "Download 2.7 GiB from huggingface.co", or "Resume" and
    /// what is still to come, where one was interrupted.
    pub fn question(&self) -> String {
        let hosts = self.hosts.join(" and ");
        let verb = if self.begun > 0 { "Resume" } else { "Download" };
        match self.missing.less(self.begun) {
            Size::Unknown => format!("{verb} from {hosts}, size unknown"),
            size => format!("{verb} {size} from {hosts}"),
        }
    }
}

fn add(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

/// A library that finds nothing on this machine.
#[cfg(test)]
pub(crate) fn empty() -> Library {
    let of = ["HF_HOME", "TINTYPE_CACHE", "TINTYPE_CATALOGUE"];
    let environment =
        Environment::of(|name| of.contains(&name).then(|| "/there/is/nothing".into()));
    Library::open(environment).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_bytes_and_hosts() {
        let library = empty();
        let statuses = library.statuses();
        let status = |name: &str| &statuses.iter().find(|(n, _)| n == name).expect(name).1;
        let question = status("lightningdit-xl-1-800ep").question();
        assert_eq!(question, "Download about 4.5 GiB from huggingface.co");
        assert!(status("lightningdit-xl-1-800ep").warnings.is_empty());
        let hosts = &status("repa-sit-xl-2").hosts;
        assert_eq!(*hosts, ["www.dropbox.com", "huggingface.co"]);
        let begun = CacheStatus { begun: 1 << 30, ..status("lightningdit-xl-1-800ep").clone() };
        assert_eq!(begun.question(), "Resume about 3.5 GiB from huggingface.co");
        let warnings = &status("sit-b-2").warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("SiT-B/2"), "{warnings:?}");
    }

    #[test]
    fn a_catalogue_that_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("models.json");
        std::fs::write(&own, "[]").expect("written");
        let environment =
            Environment::of(|name| (name == "TINTYPE_CATALOGUE").then(|| own.clone().into()));
        let (library, trouble) = Library::open(environment);
        assert!(trouble.expect("a sentence").contains("models.json"));
        assert!(library.entries().count() > 30);
    }

    #[test]
    fn settings_of_another_kind_of_network_are_not_taken() {
        let library = empty();
        let of = |name: &str| library.catalogue.get(name).expect(name);
        let preset = |name: &str| tintype::preset::find(name).expect(name).architecture;
        let settings = published_settings(of("repa-e-sit-xl-1"), &preset("sit-xl-1"), None);
        assert_eq!(settings.map(|settings| settings.steps), Some(250));
        let other = preset("lightningdit-xl-1");
        assert_eq!(published_settings(of("repa-e-sit-xl-1"), &other, None), None);
        assert_eq!(published_settings(of("sit-b-2"), &preset("sit-xl-1"), None), None);
    }
}
