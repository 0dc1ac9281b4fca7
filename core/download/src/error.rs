//! Why a file was not fetched.

use std::io;
use std::path::PathBuf;

use tintype::catalogue::CatalogueError;
use tintype::files::WriteError;

/// Why there is no catalogue of the user's own.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueFileError {
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is no catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// What a Hub says to a request that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The owner of the repository asks for conditions to be accepted.
    #[error("the repository is gated: accept its conditions at {page}, then set HF_TOKEN")]
    Gated {
        /// Where to accept them.
        page: String,
    },
    /// The token's owner has not been granted access.
    #[error("the owner of this HF_TOKEN has not been granted access; ask for it at {page}")]
    NotGranted {
        /// Where to ask.
        page: String,
    },
    /// No such repository, or a private one.
    #[error("the repository {repository} does not exist, or is private and needs an HF_TOKEN")]
    Repository {
        /// The repository.
        repository: String,
    },
    /// The token is wrong or expired.
    #[error("HF_TOKEN is wrong or has expired")]
    Token,
    /// The repository has no such branch, tag or commit.
    #[error("the repository {repository} has no revision {revision}")]
    Revision {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("the repository {repository} has no file {path} at revision {revision}")]
    Entry {
        /// The repository.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        path: String,
    },
    /// Anything else, in the server's words.
    #[error("the server answers {status}{}", message_of(.message))]
    Other {
        /// Status of the answer.
        status: u16,
        /// `X-Error-Message`.
        message: String,
    },
}

fn message_of(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A file that lies where another one would, by its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} has {found} bytes instead of {expected}", .path.display())]
pub struct Misfit {
    /// Where.
    pub path: PathBuf,
    /// Its bytes.
    pub found: u64,
    /// Those of the file that is meant.
    pub expected: u64,
}

/// Why a file was not fetched. Each names the address or the file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The environment forbids requests, and the file is not here.
    #[error("{address} is not on this machine ({} was looked for), and HF_HUB_OFFLINE forbids to fetch it", .place.display())]
    Offline {
        /// Where it comes from.
        address: String,
        /// Where it would be.
        place: PathBuf,
    },
    /// The environment forbids requests, and what is here is not the file.
    #[error("{address}: {misfit}, and HF_HUB_OFFLINE forbids to fetch it again")]
    OfflineMisfit {
        /// Where it comes from.
        address: String,
        /// What is here.
        misfit: Misfit,
    },
    /// The server refuses.
    #[error("{address}: {refusal}")]
    Refused {
        /// Where it comes from.
        address: String,
        /// What the server says.
        refusal: Refusal,
    },
    /// The server could not be reached, or did not do what it should, several times.
    #[error("{address} could not be fetched from {host}: {problem}")]
    Unreachable {
        /// Where it comes from.
        address: String,
        /// Who was asked last.
        host: String,
        /// What happened last.
        problem: String,
    },
    /// The token's file is no text.
    #[error(
        "the token in {} cannot be read: save it as UTF-8 (PowerShell may have written UTF-16), or set HF_TOKEN",
        .path.display()
    )]
    TokenFile {
        /// The file.
        path: PathBuf,
    },
    /// Something between here and the Hub answers in its place.
    #[error(
        "{address}: {host} answers, but is not a Hub (X-Repo-Commit is missing); is there a portal or proxy to log in to?"
    )]
    NotAHub {
        /// Where it comes from.
        address: String,
        /// Who answered.
        host: String,
    },
    /// A redirect leads from HTTPS to plain HTTP.
    #[error(
        "{address}: a redirect leads to {host} over plain HTTP, where others could change the file"
    )]
    Downgrade {
        /// Where it comes from.
        address: String,
        /// Where it leads.
        host: String,
    },
    /// A page came instead of the file.
    #[error(
        "{address} answers with a web page instead of the file; open it in a browser, and name the downloaded file"
    )]
    Page {
        /// Where it comes from.
        address: String,
    },
    /// The server tells neither the length nor the end of the file, and what came is cut, or may be.
    #[error(
        "{address} is cut, or may be: the server tells neither its length nor its end, and {problem}"
    )]
    Truncated {
        /// Where it comes from.
        address: String,
        /// What makes it so.
        problem: &'static str,
    },
    /// The content is not what was promised.
    #[error(
        "{address} is damaged or another file: its {algorithm} begins with {found:.12}, not {expected:.12}; the download was deleted"
    )]
    Digest {
        /// Where it comes from.
        address: String,
        /// How it was computed.
        algorithm: &'static str,
        /// What was promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// The server has another file than the catalogue describes.
    #[error(
        "{address} is another file than the catalogue describes: {what} is {found}, not {expected}"
    )]
    Changed {
        /// Where it comes from.
        address: String,
        /// What differs.
        what: &'static str,
        /// What the catalogue has.
        expected: String,
        /// What the server says.
        found: String,
    },
    /// The disk cannot hold it.
    #[error("{address} needs {} more in {}, where {} is free", size(*.needed), .place.display(), size(*.free))]
    Space {
        /// Where it comes from.
        address: String,
        /// The folder.
        place: PathBuf,
        /// Bytes that are still to come, with those of other downloads.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It was stopped; what has arrived is kept.
    #[error("the download was stopped; what has arrived is kept")]
    Stopped,
}

impl DownloadError {
    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write(WriteError { path, source })
    }
}

/// A size in the words of a person.
fn size(bytes: u64) -> String {
    tintype::generate::bytes(bytes)
}
