//! Fetches published weights, from a Hugging Face Hub or a plain address.
//!
//! * [`Environment`] — where caches lie, the endpoint, the token, time limits: what the variables of Python's
//!   `huggingface_hub` say
//! * [`Downloader`] — finds a file of the [catalogue](tintype::catalogue) without a request, or fetches it: goes on
//!   where it was interrupted, checks every digest that is known, and gives a file its final name only when it
//!   is whole
//! * [`user_catalogue`] — the catalogue with the entries of the user's own file
//!
//! Files of a Hub lie in Python's cache, where `huggingface_hub` finds them, too; files of other addresses lie in a
//! cache folder of this program. Only [`Downloader::fetch`], [`complete`](Downloader::complete), those of several files,
//! [`newer`](Downloader::newer) and [`list`](Downloader::list) make requests.

mod cache;
mod check;
mod digests;
mod disk;
mod downloader;
mod environment;
mod error;
mod from_hub;
mod hub;
mod list;
mod part;
mod promise;
mod published;
mod receive;
mod remove;
mod retry;
mod token;
mod transport;
mod unfinished;
mod url_cache;
mod whole;

use tintype::catalogue::Catalogue;
use tintype::files::read_text;

pub use downloader::{Downloader, Fetched, State, Watch};
pub use environment::Environment;
pub use error::{CatalogueFileError, DownloadError, Misfit, Refusal};
pub use list::{Listed, Listing};
pub use published::{Presence, set_path};

/// The catalogue of this version with the entries of the user's own `models.json`, where there is one.
///
/// # Errors
///
/// [`CatalogueFileError`] where the file cannot be read or is no catalogue.
pub fn user_catalogue(environment: &Environment) -> Result<Catalogue, CatalogueFileError> {
    let built_in = Catalogue::built_in();
    let Some(path) = &environment.catalogue else { return Ok(built_in.clone()) };
    match read_text(path) {
        Ok(text) => Ok(built_in.extended(&text, &path.display().to_string())?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !environment.catalogue_is_named => {
            Ok(built_in.clone())
        }
        Err(source) => Err(CatalogueFileError::Io { path: path.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_may_begin_with_a_byte_order_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("models.json");
        let environment =
            Environment::of(|name| (name == "TINTYPE_CATALOGUE").then(|| path.clone().into()));
        std::fs::write(&path, "\u{feff}{\"models\": []}").expect("it is written");
        user_catalogue(&environment).expect("a catalogue");
        std::fs::write(&path, b"\xff\xfe{\0}\0").expect("it is written");
        let error = user_catalogue(&environment).expect_err("it is UTF-16");
        assert!(matches!(error, CatalogueFileError::Io { .. }), "{error}");
        std::fs::remove_file(&path).expect("it is removed");
        user_catalogue(&environment).expect_err("the file that was named is not there");
    }
}
