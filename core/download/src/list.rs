//! What files a repository has.

use std::sync::atomic::AtomicBool;

use serde_json::Value;
use tintype::catalogue::{Address, Hub};

use crate::downloader::{Downloader, State};
use crate::error::{DownloadError, Refusal};
use crate::hub::{encoded, refusal};
use crate::retry::{Attempts, passing};
use crate::transport::{Answer, Chain, RequestError, header};

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

/// The files of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those that can be fetched, in the Hub's order.
    pub files: Vec<Listed>,
    /// How many others there are, whose paths no address may have.
    pub left_out: usize,
}

impl Downloader {
    /// The files of a repository, at a revision.
    ///
    /// * `of`: any file of the repository; its path does not matter
    ///
    /// # Errors
    ///
    /// [`DownloadError`] where the Hub cannot be asked or refuses.
    pub fn list(&self, of: &Hub, stop: &AtomicBool) -> Result<Listing, DownloadError> {
        let address = format!("hub:{}", of.repository);
        if self.environment.offline {
            return Err(DownloadError::Offline { address, place: self.cache().folder(of) });
        }
        self.environment.check_token()?;
        let kind = if of.is_dataset { "datasets" } else { "models" };
        let (endpoint, revision) = (&self.environment.endpoint, encoded(&of.revision, false));
        let mut next =
            Some(format!("{endpoint}/api/{kind}/{}/tree/{revision}?recursive=true", of.repository));
        let mut listing = Listing::default();
        let (environment, mut chain) = (&self.environment, Chain::of(&[endpoint]));
        let watch = |_: State| {};
        let mut attempts =
            Attempts { environment, address: &address, watch: &watch, stop, failed: 0 };
        for _ in 0..PAGES {
            let Some(url) = next.take() else { return Ok(listing) };
            loop {
                let read = |answer| self.read(answer, &url, of, &mut chain, &mut listing);
                match self.page(&url).and_then(read) {
                    Ok(more) => break next = more,
                    Err(trouble) => attempts.again(trouble)?,
                }
            }
        }
        let message = format!("the listing has more than {PAGES} pages");
        Err(DownloadError::Refused { address, refusal: Refusal::Other { status: 200, message } })
    }

    /// Asks for a page.
    fn page(&self, url: &str) -> Result<Answer, RequestError> {
        let answer = self.transport.get(url, &[], self.environment.token_for(url))?;
        match passing(&answer, url) {
            Some(trouble) => Err(trouble),
            None => Ok(answer),
        }
    }

    /// Reads a page; returns the address of the next.
    fn read(
        &self,
        mut answer: Answer,
        url: &str,
        of: &Hub,
        chain: &mut Chain,
        listing: &mut Listing,
    ) -> Result<Option<String>, RequestError> {
        let address = format!("hub:{}", of.repository);
        // A repository that was renamed.
        let moved = header(&answer, "Location").filter(|_| answer.status().is_redirection());
        if let Some(moved) = moved
            && let Some(moved) = chain.next(url, moved, &address)?
        {
            return Ok(Some(moved));
        }
        if let Some(refusal) = refusal(&answer, &self.environment.endpoint, of) {
            return Err(DownloadError::Refused { address, refusal }.into());
        }
        let next = match header(&answer, "Link").and_then(next) {
            Some(next) => chain.next(url, next, &address)?,
            None => None,
        };
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
                // One that no address may have, as `../x` or `con.pt`, is never fetched.
                match address.to_string().parse::<Address>().is_ok_and(|parsed| parsed == address) {
                    true => listing.files.push(Listed { address, bytes }),
                    false => listing.left_out += 1,
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
    use ureq::http::Response;

    use super::*;
    use crate::environment::Environment;

    #[test]
    fn the_next_page_is_found() {
        let link =
            "<https://h.example/a?x=1>; rel=\"prev\", <https://h.example/a?x=3>; rel=\"next\"";
        assert_eq!(next(link), Some("https://h.example/a?x=3"));
        assert_eq!(next("<x>; rel=\"prev\""), None);
    }

    #[test]
    fn a_listing_over_https_goes_on_over_https() {
        let endpoint = "https://hub.example";
        let environment = Environment::of(|name| (name == "HF_ENDPOINT").then(|| endpoint.into()));
        let downloader = Downloader::new(environment);
        let Ok(Address::Hub(of)) = "hub:maker/model/x".parse::<Address>() else {
            panic!("a Hub's")
        };
        let next = |status: u16, name: &str, value: &str| {
            let answer = Response::builder().status(status).header(name, value);
            let answer = answer.body(ureq::Body::builder().data("[]")).expect("an answer");
            let (mut chain, mut listing) = (Chain::of(&[endpoint]), Listing::default());
            downloader.read(answer, &format!("{endpoint}/a"), &of, &mut chain, &mut listing)
        };
        let is_refused = |next: Result<Option<String>, RequestError>| match next {
            Err(RequestError::Final(DownloadError::Downgrade { host, .. })) => host == "b.example",
            _ => false,
        };
        assert!(is_refused(next(307, "Location", "http://b.example/x")));
        assert!(is_refused(next(200, "Link", "<http://b.example/x>; rel=\"next\"")));
        let there = "https://b.example/x";
        for (status, name, value) in
            [(307, "Location", there), (200, "Link", "<https://b.example/x>; rel=\"next\"")]
        {
            assert_eq!(next(status, name, value).expect("it goes on").as_deref(), Some(there));
        }
    }
}
