//! Names and addresses where options take files.

mod consent;
mod progress;
mod wishes;

use anyhow::{Context, Result};
use tintype::catalogue::Catalogue;
use tintype_download::{DownloadError, Downloader, Environment, user_catalogue};

pub use consent::ask;
pub use progress::fetch;
pub use wishes::Wishes;

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

/// The first error of several downloads, with where the file was looked for and what fetches it.
///
/// # Errors
///
/// If a download failed.
pub fn first_error<T>(
    results: Vec<(String, std::path::PathBuf, Result<T, DownloadError>)>,
) -> Result<Vec<T>> {
    let with_place =
        |(what, place, result): (String, std::path::PathBuf, Result<T, _>)| match result {
            Err(error @ DownloadError::Offline { .. }) => Err(anyhow::Error::from(error))
                .with_context(|| {
                    format!("`tintype download {what}` fetches it where there is a network")
                }),
            Err(error @ DownloadError::Unreachable { .. }) => Err(anyhow::Error::from(error))
                .with_context(|| format!("{} was looked for and is not there", place.display())),
            other => Ok(other?),
        };
    results.into_iter().map(with_place).collect()
}
