//! Names and addresses where options take files.

mod consent;
mod file_options;
mod progress;

use std::cell::OnceCell;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tintype::catalogue::{Catalogue, Entry, Role};
use tintype_download::{DownloadError, Downloader, Environment, user_catalogue};

use super::model::PartsArgs;

pub use consent::{agreed, ask};
pub use file_options::{FileOptions, autoencoder_roles, entry_named};
pub use progress::Watched;

/// Whether files that are not on this machine may be fetched.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct DownloadArgs {
    /// Download published files without asking
    #[arg(long)]
    pub yes: bool,
}

/// The catalogue, and what is on this machine.
pub struct Library {
    catalogue: OnceCell<Catalogue>,
    pub downloader: Downloader,
}

impl Library {
    /// Of this process' environment. Reads nothing and makes no request.
    pub fn of_process() -> Self {
        let downloader = Downloader::new(Environment::of_process());
        Self { catalogue: OnceCell::new(), downloader }
    }

    /// The catalogue with the user's own entries.
    ///
    /// # Errors
    ///
    /// If the user's own catalogue cannot be read.
    pub fn catalogue(&self) -> Result<&Catalogue> {
        if let Some(catalogue) = self.catalogue.get() {
            return Ok(catalogue);
        }
        let read = user_catalogue(self.downloader.environment())?;
        Ok(self.catalogue.get_or_init(|| read))
    }

    /// The published network that options name, unless they have another configuration for it.
    ///
    /// # Errors
    ///
    /// As [`entry_named`].
    pub fn network(&self, parts: &PartsArgs) -> Result<Option<&Entry>> {
        let named = parts.model.model.as_deref().map(|value| entry_named(self, value));
        Ok(named.transpose()?.flatten().filter(|_| parts.model.config.is_none()))
    }

    /// Whether another network will guide a published one: that of the option, or its own.
    ///
    /// # Errors
    ///
    /// If the user's own catalogue cannot be read.
    pub fn has_guide(&self, entry: &Entry, parts: &PartsArgs) -> Result<bool> {
        Ok(parts.guide.is_some() || self.catalogue()?.file(entry, Role::Guide).is_some())
    }
}

/// What came of several downloads, or the first error, with where the file was looked for or what fetches it.
///
/// * `results`: the name of the model or the address, where the file would be, and what came of it
///
/// # Errors
///
/// If a download failed; [`DownloadError::Stopped`] if one was stopped.
pub fn all_fetched<T>(results: Vec<(String, PathBuf, Result<T, DownloadError>)>) -> Result<Vec<T>> {
    if results.iter().any(|(.., result)| matches!(result, Err(DownloadError::Stopped))) {
        return Err(DownloadError::Stopped.into());
    }
    let (mut fetched, mut problems) = (Vec::new(), Vec::new());
    for (what, place, result) in results {
        match result {
            Ok(one) => fetched.push(one),
            Err(error @ DownloadError::Offline { .. }) => problems.push(format!(
                "{error}; `tintype download {what}` fetches it where there is a network"
            )),
            Err(error @ DownloadError::Unreachable { .. }) => problems.push(format!(
                "{error}; it is not on this machine either ({} was looked for)",
                place.display()
            )),
            Err(error) => problems.push(error.to_string()),
        }
    }
    match problems.is_empty() {
        true => Ok(fetched),
        false => bail!("{}", problems.join("; and ")),
    }
}
