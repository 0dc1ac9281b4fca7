//! Models of the catalogue on this machine.

use std::path::{Path, PathBuf};

use tintype::catalogue::{Address, Catalogue, Entry, File, Role};
use tintype::generate::ModelPaths;

use crate::downloader::Downloader;
use crate::part::{VALIDATOR, part_of, with_end};
use crate::unfinished;

/// How much of a model is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All that it needs.
    Here,
    /// Some files, or parts of them.
    Partly,
    /// Nothing of its own.
    Missing,
}

impl Downloader {
    /// The files that a model needs and that are not on this machine, each once. Makes no request.
    pub fn missing<'a>(
        &self,
        catalogue: &'a Catalogue,
        entry: &'a Entry,
    ) -> Vec<(&'a Entry, &'a File)> {
        let mut missing: Vec<(&Entry, &File)> = Vec::new();
        for (of, file) in catalogue.files(entry) {
            let is_new = missing.iter().all(|(_, other)| other.address != file.address);
            if is_new && self.find(file).is_none() {
                missing.push((of, file));
            }
        }
        missing
    }

    /// How much of a model is on this machine. Makes no request.
    pub fn presence(&self, catalogue: &Catalogue, entry: &Entry) -> Presence {
        let missing = self.missing(catalogue, entry);
        let has_some = |file: &File| self.find(file).is_some() || self.is_begun(file);
        match (entry.files.is_empty(), missing.is_empty()) {
            (true, _) => Presence::Missing,
            (false, true) => Presence::Here,
            (false, false) if entry.files.iter().any(has_some) => Presence::Partly,
            (false, false) => Presence::Missing,
        }
    }

    /// Whether a part of a file is here. Makes no request.
    pub fn is_begun(&self, file: &File) -> bool {
        self.parts(file).iter().any(|part| part.is_file())
    }

    /// Bytes of a file that are here and that a download goes on from, unless the server has another version by now; 0
    /// where it begins anew. Makes no request.
    pub fn begun(&self, file: &File) -> u64 {
        let is_continued = |part: &Path| match &file.address {
            Address::Hub(_) => true,
            _ => file.sha256.is_some() || with_end(part, VALIDATOR).is_file(),
        };
        let parts = self.parts(file).into_iter().filter(|part| is_continued(part));
        let lengths = parts.filter_map(|part| Some(part.metadata().ok()?.len()));
        lengths.max().unwrap_or(0)
    }

    /// Where the parts of a file lie: of a Hub's, those of every version that was begun.
    fn parts(&self, file: &File) -> Vec<PathBuf> {
        match &file.address {
            Address::Hub(hub) => {
                let blobs = self.cache().folder(hub).join("blobs");
                let names = unfinished::parts_of(&blobs, hub);
                names.into_iter().map(|name| blobs.join(name)).collect()
            }
            _ => vec![part_of(&self.place(file))],
        }
    }

    /// The files of a model that are on this machine, as opening it takes them. Makes no request.
    pub fn paths(&self, catalogue: &Catalogue, entry: &Entry) -> ModelPaths {
        let mut paths = ModelPaths::default();
        for (_, file) in catalogue.files(entry) {
            if let Some(path) = self.find(file) {
                set_path(&mut paths, file.role, path);
            }
        }
        paths
    }
}

/// Puts a file into the place of its role, where that is free; other roles have none.
pub fn set_path(paths: &mut ModelPaths, role: Role, path: PathBuf) {
    let place = match role {
        Role::Network => &mut paths.model,
        Role::Config => &mut paths.config,
        Role::Autoencoder => &mut paths.vae,
        Role::Statistics => &mut paths.stats,
        Role::Guide => &mut paths.guide,
        _ => return,
    };
    place.get_or_insert(path);
}
