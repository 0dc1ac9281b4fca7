//! What files a repository has.

use std::sync::atomic::AtomicBool;

use serde_json::Value;
use tintype::catalogue::{Address, Hub};

use crate::downloader::{Downloader, State};
use crate::error::{DownloadError, Refusal};
use crate::hub::{encoded, refusal};
use crate::retry::{Attempts, passing};
use crate::transport::{RequestError, header, resolved};

/// Pages of a listing that are read.
const PAGES: usize = 20;
/// Most bytes of a page.
const PAGE: u64 = 16 << 20;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its address.
    pub address: Address,
    /// Its size, where the Hub says it.
    pub bytes: Option<u64>,
}

impl Downloader {
    /// The files of a repository, at a revision, in the Hub's order.
    ///
    /// * `of`: any file of the repository; its path does not matter
    ///
    /// # Errors
    ///
    /// [`DownloadError`] where the Hub cannot be asked or refuses.
    pub fn list(&self, of: &Hub, stop: &AtomicBool) -> Result<Vec<Listed>, DownloadError> {
        let address = format!("hub:{}", of.repository);
        if self.environment.offline {
            return Err(DownloadError::Offline { address, place: self.cache().folder(of) });
        }
        let kind = if of.is_dataset { "datasets" } else { "models" };
        let (endpoint, revision) = (&self.environment.endpoint, encoded(&of.revision, false));
        let mut next =
            Some(format!("{endpoint}/api/{kind}/{}/tree/{revision}?recursive=true", of.repository));
        let mut files = Vec::new();
        let environment = &self.environment;
        let watch = |_: State| {};
        let mut attempts =
            Attempts { environment, address: &address, watch: &watch, stop, failed: 0 };
        for _ in 0..PAGES {
            let Some(url) = next.take() else { return Ok(files) };
            loop {
                match self.page(&url, of, &mut files) {
                    Ok(more) => break next = more,
                    Err(trouble) => attempts.again(trouble)?,
                }
            }
        }
        let message = format!("the listing has more than {PAGES} pages");
        Err(DownloadError::Refused { address, refusal: Refusal::Other { status: 200, message } })
    }

    /// Reads a page; returns the address of the next.
    fn page(
        &self,
        url: &str,
        of: &Hub,
        files: &mut Vec<Listed>,
    ) -> Result<Option<String>, RequestError> {
        let mut answer = self.transport.get(url, &[], self.environment.token_for(url))?;
        if let Some(trouble) = passing(&answer, url) {
            return Err(trouble);
        }
        // A repository that was renamed.
        let moved = header(&answer, "Location").filter(|_| answer.status().is_redirection());
        if let Some(moved) = moved.and_then(|moved| resolved(url, moved)) {
            return Ok(Some(moved));
        }
        let address = format!("hub:{}", of.repository);
        if let Some(refusal) = refusal(&answer, &self.environment.endpoint, of) {
            return Err(DownloadError::Refused { address, refusal }.into());
        }
        let next = header(&answer, "Link").and_then(next).and_then(|next| resolved(url, next));
        let text = answer.body_mut().with_config().limit(PAGE).read_to_string();
        let text = text.map_err(|error| RequestError::passing(url, error.to_string()))?;
        let Ok(Value::Array(entries)) = serde_json::from_str(&text) else {
            let status = answer.status().as_u16();
            let refusal = Refusal::Other { status, message: "what it says is no listing".into() };
            return Err(DownloadError::Refused { address, refusal }.into());
        };
        for entry in entries {
            let text = |key: &str| entry.get(key).and_then(Value::as_str);
            if let (Some("file"), Some(path)) = (text("type"), text("path")) {
                let address = Address::Hub(Hub { path: path.into(), ..of.clone() });
                let bytes = entry.get("size").and_then(Value::as_u64);
                // A path that no address may have, as one that leads out of the repository, is never fetched.
                if address.to_string().parse::<Address>().is_ok_and(|parsed| parsed == address) {
                    files.push(Listed { address, bytes });
                }
            }
        }
        Ok(next)
    }
}

/// The address in `<…>; rel="next"`.
fn next(link: &str) -> Option<&str> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    next.split_once('<')?.1.split_once('>').map(|(url, _)| url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let link =
            "<https://h.example/a?x=1>; rel=\"prev\", <https://h.example/a?x=3>; rel=\"next\"";
        assert_eq!(next(link), Some("https://h.example/a?x=3"));
        assert_eq!(next("<x>; rel=\"prev\""), None);
    }
}
