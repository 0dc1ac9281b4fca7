//! Names and addresses where options take files.

mod consent;
mod progress;
mod wishes;

use std::path::PathBuf;

use anyhow::{Result, bail};
use tintype::catalogue::Catalogue;
use tintype_download::{DownloadError, Downloader, Environment, user_catalogue};

pub use consent::ask;
pub use progress::fetch;
pub use wishes::{Wishes, entry_named};

/// Whether files that are not on this machine may be fetched.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct DownloadArgs {
    /// Download published files without asking
    #[arg(long)]
    pub yes: bool,
}

/// The catalogue, and what is on this machine.
pub struct Library {
    pub catalogue: Catalogue,
    pub downloader: Downloader,
}

impl Library {
    /// The catalogue with the user's own entries, and the caches of this machine. Makes no request.
    ///
    /// # Errors
    ///
    /// If the user's own catalogue cannot be read.
    pub fn open() -> Result<Self> {
        let environment = Environment::of_process();
        let catalogue = user_catalogue(&environment)?;
        Ok(Self { catalogue, downloader: Downloader::new(environment) })
    }
}

/// What came of several downloads, or the first error, with where the file was looked for or what fetches it.
///
/// * `results`: the name of the model or the address, where the file would be, and what came of it
///
/// # Errors
///
/// If a download failed.
pub fn all_fetched<T>(results: Vec<(String, PathBuf, Result<T, DownloadError>)>) -> Result<Vec<T>> {
    let said = |(what, place, result): (String, PathBuf, Result<T, DownloadError>)| match result {
        Ok(fetched) => Ok(fetched),
        Err(error @ DownloadError::Offline { .. }) => {
            bail!("{error}; `tintype download {what}` fetches it where there is a network")
        }
        Err(error @ DownloadError::Unreachable { .. }) => {
            bail!("{error}; it is not on this machine either ({} was looked for)", place.display())
        }
        Err(error) => Err(error.into()),
    };
    results.into_iter().map(said).collect()
}
