//! What a card says of a model.

use std::path::Path;

use tintype::catalogue::{Address, Catalogue, Entry, File, Kind, Outcome, Role, Size};
use tintype::generate::{ModelPaths, bytes};
use tintype::precision::Precision;
use tintype_download::Presence;

use super::library::CacheStatus;

/// Number of ImageNet's classes.
const IMAGENET: usize = 1000;

/// Where a card lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// All that the model needs is on this machine.
    Here,
    /// Something is to be downloaded.
    ToDownload,
    /// A later version has the network.
    Unsupported,
}

/// A model.
#[derive(Clone, Debug)]
pub struct Card {
    /// The name that commands take.
    pub name: String,
    /// The name that people read.
    pub title: String,
    /// A network or an autoencoder.
    pub kind: Kind,
    /// Its pictures and the published FID: "ImageNet 256², FID 1.35".
    pub about: String,
    /// Every published result.
    pub results: String,
    /// Bytes of all that it needs.
    pub size: Size,
    /// Its licence.
    pub licence: String,
    /// Where the licence was read.
    pub licence_source: String,
    /// What of its files has been verified.
    pub verified: String,
    /// The same for each file, with its address.
    pub sources: String,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// A page that describes it.
    pub page: Option<String>,
    /// Whether the names of its files are known.
    pub has_files: bool,
    /// What of it is on this machine, once that was looked for.
    pub status: Option<CacheStatus>,
    /// Its network, as the library calls it.
    architecture: Option<String>,
    is_supported: bool,
    parameters: Option<usize>,
    /// Bytes of the autoencoder's file; 0 for networks that work on pixels.
    autoencoder: Option<u64>,
}

impl Card {
    /// The card of an entry.
    pub fn of(catalogue: &Catalogue, entry: &Entry) -> Self {
        let files: Vec<&File> = catalogue.files(entry).into_iter().map(|(_, file)| file).collect();
        let results: Vec<String> = entry.results.iter().map(result).collect();
        let sources: Vec<String> = files.iter().map(|file| source(file)).collect();
        Self {
            name: entry.name.clone(),
            title: entry.title.clone(),
            kind: entry.kind,
            about: about(entry),
            results: results.join("\n"),
            size: Size::of(files.iter().copied()),
            licence: format!("licence {}", entry.licence.summary()),
            licence_source: match &entry.licence.source {
                Some(source) => format!("The licence as {source} has it"),
                None => "The licence has not been verified".into(),
            },
            verified: verified(&files),
            sources: sources.join("\n"),
            notes: entry.notes.clone(),
            page: page(entry),
            has_files: !entry.files.is_empty(),
            status: None,
            architecture: entry.architecture.clone(),
            is_supported: entry.is_supported(),
            parameters: entry.parameters(),
            autoencoder: autoencoder(&files),
        }
    }

    /// Where it lies.
    pub fn section(&self) -> Section {
        match &self.status {
            _ if !self.is_supported => Section::Unsupported,
            Some(status) if status.presence == Presence::Here => Section::Here,
            _ => Section::ToDownload,
        }
    }

    /// Its place among the others of its section: networks come first, and what can be fetched before what
    /// cannot.
    pub(super) fn rank(&self) -> (bool, bool) {
        (self.kind != Kind::Network, !self.has_files)
    }

    /// Bytes of memory that making a picture takes, about, where that can be told.
    pub fn memory(&self, precision: Precision) -> Option<u64> {
        let size = if precision == Precision::F32 { 4 } else { 2 };
        let network = (self.parameters? as u64).saturating_mul(size);
        Some(network.saturating_add(self.autoencoder?))
    }

    /// The file on this machine by which it may guide a network of this name: its guide's, else its own.
    pub fn guide(&self, network: &str) -> Option<&Path> {
        let status = self.status.as_ref().filter(|status| status.presence == Presence::Here)?;
        let ModelPaths { guide, model, .. } = &status.paths;
        let path = guide.as_deref().or(model.as_deref());
        path.filter(|_| self.kind == Kind::Network && self.architecture.as_deref() == Some(network))
    }

    /// Whether one of its files is among those of a model.
    pub fn is_of(&self, paths: &ModelPaths) -> bool {
        let paths = [&paths.model, &paths.config, &paths.vae, &paths.stats, &paths.guide];
        let mut used = paths.into_iter().flatten();
        self.status.as_ref().is_some_and(|status| used.any(|path| status.files.contains(path)))
    }
}

/// Memory that is needed, beside what there is; and whether that is enough.
pub fn memory_words(needed: Option<u64>, free: Option<u64>) -> (String, bool) {
    match (needed, free) {
        (None, _) => ("memory needed: unknown".into(), true),
        (Some(needed), None) => {
            let needed = bytes(needed);
            (format!("needs about {needed} of memory; this device does not tell what it has"), true)
        }
        (Some(needed), Some(free)) if needed > free => {
            let (needed, free) = (bytes(needed), bytes(free));
            (format!("needs about {needed} of memory, and this device has only {free}"), false)
        }
        (Some(needed), Some(free)) => {
            (format!("needs about {} of this device's {}", bytes(needed), bytes(free)), true)
        }
    }
}

/// What is to be said of a licence before files are fetched; `None` if it allows commercial use.
pub fn warning(entry: &Entry) -> Option<String> {
    entry.licence.warning().map(|warning| format!("{}: {warning}", entry.title))
}

fn about(entry: &Entry) -> String {
    let of = match (entry.kind, entry.classes) {
        (Kind::Autoencoder, _) => Some("autoencoder".to_string()),
        (_, Some(IMAGENET)) => Some("ImageNet".into()),
        (_, Some(classes)) => Some(format!("{classes} classes,")),
        (_, None) => None,
    };
    let side = entry.image_size.map(|side| format!("{side}²"));
    let pictures: Vec<String> = of.into_iter().chain(side).collect();
    let pictures = pictures.join(" ").trim_end_matches(',').to_string();
    let fid = entry.fid().map(|fid| format!("FID {fid}"));
    let parts: Vec<String> =
        Some(pictures).filter(|p| !p.is_empty()).into_iter().chain(fid).collect();
    parts.join(", ")
}

fn result(outcome: &Outcome) -> String {
    let how = if outcome.guided { "with guidance" } else { "without guidance" };
    let note = outcome.note.as_ref().map_or(String::new(), |note| format!(", {note}"));
    format!("FID {} {how}{note}", outcome.fid)
}

/// What of the files was verified: "verified: address, SHA-256 of 1 of 3 files".
fn verified(files: &[&File]) -> String {
    let all = files.len();
    let count = |is: fn(&File) -> bool| files.iter().filter(|file| is(file)).count();
    let counts = [
        ("address", count(|file| file.sources.name.is_some())),
        ("size", count(|file| file.sources.bytes.is_some())),
        ("SHA-256", count(|file| file.sources.sha256.is_some())),
    ];
    let part = |(what, n): (&str, usize)| match n {
        0 => None,
        n if n == all => Some(what.to_string()),
        n => Some(format!("{what} of {n} of {all} files")),
    };
    let parts: Vec<String> = counts.into_iter().filter_map(part).collect();
    match parts.is_empty() {
        true => "nothing verified".into(),
        false => format!("verified: {}", parts.join(", ")),
    }
}

/// Where the facts of a file were read.
fn source(file: &File) -> String {
    let of = |what: &str, source: &Option<String>| match source {
        Some(source) => format!("{what}: {source}"),
        None => format!("{what}: not verified"),
    };
    let sources = &file.sources;
    let facts =
        [of("address", &sources.name), of("size", &sources.bytes), of("SHA-256", &sources.sha256)];
    format!("{} ({})", file.address, facts.join("; "))
}

/// A page of the web that describes an entry.
fn page(entry: &Entry) -> Option<String> {
    let of_hub = entry.files.iter().find_map(|file| match &file.address {
        Address::Hub(hub) => Some(hub.page()),
        _ => None,
    });
    entry.page.clone().or(of_hub).filter(|page| crate::page::is_page(page))
}

/// Bytes of the autoencoder's file; `None` where they are not known.
fn autoencoder(files: &[&File]) -> Option<u64> {
    match files.iter().find(|file| file.role == Role::Autoencoder) {
        Some(file) => file.size(),
        None if files.is_empty() => None,
        None => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::library;
    use tintype::catalogue::Licence;

    use super::*;

    fn card(name: &str) -> Card {
        let catalogue = library::empty().catalogue;
        Card::of(&catalogue, catalogue.get(name).expect(name))
    }

    #[test]
    fn a_card_says_what_is_known() {
        let card = card("lightningdit-xl-1-800ep");
        assert_eq!(card.about, "ImageNet 256², FID 1.35");
        assert_eq!(card.size.to_string(), "about 4.5 GiB");
        assert_eq!(card.licence, "licence MIT");
        assert_eq!(card.verified, "verified: address, SHA-256 of 1 of 3 files");
        assert!(card.results.contains("FID 1.25 with guidance, balanced classes"));
        assert!(card.sources.contains("SHA-256: the hub's page of the file"), "{}", card.sources);
        assert_eq!(
            card.page.as_deref(),
            Some("https://huggingface.co/hustvl/lightningdit-xl-imagenet256-800ep")
        );
        assert_eq!(card.section(), Section::ToDownload);
    }

    #[test]
    fn what_is_unknown_is_said() {
        let hidit = card("hi-dit-xl-256");
        assert!(!hidit.has_files && !hidit.notes.is_empty() && hidit.page.is_some());
        assert_eq!(hidit.licence, "licence unknown");
        assert_eq!(hidit.memory(Precision::F32), None, "nor is its autoencoder known");
        let catalogue = library::empty().catalogue;
        let mut entry = catalogue.get("sit-b-2").expect("it is there").clone();
        entry.architecture = Some("A network of tomorrow".into());
        assert_eq!(Card::of(&catalogue, &entry).section(), Section::Unsupported);
        assert_eq!(card("sd-vae-ema").about, "autoencoder 256²");
    }

    #[test]
    fn memory_depends_on_the_precision_and_is_compared() {
        let card = card("lightningdit-xl-1-800ep");
        let network = 675_256_736;
        let wide = 4 * network + 2_150_000_000;
        assert_eq!(card.memory(Precision::F32), Some(wide));
        assert_eq!(card.memory(Precision::Bf16), Some(2 * network + 2_150_000_000));
        let (words, fits) = memory_words(Some(wide), Some(8 << 30));
        assert_eq!((words.as_str(), fits), ("needs about 4.5 GiB of this device's 8.0 GiB", true));
        assert!(!memory_words(Some(wide), Some(1 << 30)).1);
        assert!(memory_words(Some(wide), None).0.contains("does not tell"));
        assert!(memory_words(None, Some(1)).0.contains("unknown"));
    }

    #[test]
    fn licences_that_forbid_or_say_nothing_are_named() {
        let catalogue = library::empty().catalogue;
        let mut entry = catalogue.get("va-vae").expect("it is there").clone();
        assert_eq!(warning(&entry), None);
        entry.licence =
            Licence { id: "CC-BY-NC-4.0".into(), commercial: Some(false), source: None };
        assert!(warning(&entry).expect("a sentence").contains("no commercial use"));
        assert_eq!(entry.licence.summary(), "CC-BY-NC-4.0, no commercial use");
        entry.licence.commercial = None;
        assert!(warning(&entry).expect("a sentence").contains("see the model's page"));
    }
}
