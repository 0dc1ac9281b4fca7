//! The bytes of a file, through whatever happens on the way.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tintype::catalogue::{Address, File};
use tintype::files::write_whole;

use crate::check::{Expected, Found};
use crate::downloader::{State, Watch};
use crate::environment::Environment;
use crate::error::{DownloadError, Refusal};
use crate::hub;
use crate::part::{CHUNK, Part, VALIDATOR, with_end};
use crate::promise::{Promise, Promised};
use crate::retry::{Attempts, passing};
use crate::transport::{
    Answer, Chain, Origin, RequestError, Transport, header, host_of, is_chunked, number,
};

/// Redirects before an address is given up.
const REDIRECTS: usize = 10;
/// Bytes at the beginning of a file that tell what it is.
const BEGINNING: usize = 16;

/// What fetching takes, besides what is fetched.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) transport: &'a Transport,
    pub(crate) promised: &'a Promised,
    pub(crate) watch: Watch<'a>,
    pub(crate) stop: &'a AtomicBool,
}

/// A file that is to be fetched.
pub(crate) struct Wanted<'a> {
    pub(crate) file: &'a File,
    /// Bytes, where they are known.
    pub(crate) size: Option<u64>,
    pub(crate) expected: Expected,
    /// Whether the name of the part tells its content, so that any server's bytes continue it.
    pub(crate) is_named_by_content: bool,
}

/// Fetches a file to its final name.
///
/// * `location`: where the bytes are, asked again when the address has expired
pub(crate) fn receive(
    context: Context<'_>,
    wanted: &Wanted<'_>,
    whole: &Path,
    mut location: String,
    again: &dyn Fn() -> Result<String, DownloadError>,
) -> Result<(Found, u64), DownloadError> {
    let address = wanted.file.address.to_string();
    let (watch, stop) = (context.watch, context.stop);
    let checked = |done| watch(State::Checking { done });
    let part = Part::open(whole, wanted.expected.clone(), stop, &checked)?;
    let mut attempts =
        Attempts { environment: context.environment, address: &address, watch, stop, failed: 0 };
    let mut receiver = Receiver {
        context,
        wanted,
        whole,
        address: &address,
        part,
        size: wanted.size,
        may_be_cut: false,
        promise: None,
    };
    let mut furthest = receiver.part.done();
    loop {
        match receiver.attempt(&location) {
            Ok(()) => break,
            Err(trouble) => {
                // Bytes that come again after a restart are no progress, or it might never end.
                if receiver.part.done() > furthest {
                    furthest = receiver.part.done();
                    attempts.progressed();
                }
                let has_expired = matches!(trouble, RequestError::Expired { .. });
                attempts.again(trouble)?;
                if has_expired {
                    location = again()?;
                }
            }
        }
    }
    receiver.finish()
}

/// A download that is on its way.
struct Receiver<'a> {
    context: Context<'a>,
    wanted: &'a Wanted<'a>,
    whole: &'a Path,
    address: &'a str,
    part: Part,
    size: Option<u64>,
    /// Whether only the end of the connection told that of the content.
    may_be_cut: bool,
    promise: Option<Promise<'a>>,
}

impl Receiver<'_> {
    /// Asks for what is missing and appends it.
    fn attempt(&mut self, location: &str) -> Result<(), RequestError> {
        if self.size == Some(self.part.done()) {
            return Ok(());
        }
        if self.size.is_some_and(|size| self.part.done() > size) {
            self.part.restart()?;
        }
        if let Some(size) = self.size {
            self.reserve(size)?;
        }
        let validator = self.validator();
        let may_continue = self.wanted.is_named_by_content
            || validator.is_some()
            || self.wanted.expected.is_known();
        if self.part.done() > 0 && !may_continue {
            self.part.restart()?;
        }
        let from = self.part.done();
        let mut headers = Vec::new();
        if from > 0 {
            headers.push(("Range", format!("bytes={from}-")));
            headers.extend(validator.map(|validator| ("If-Range", validator)));
        }
        let (answer, url) = self.ask(location, &headers)?;
        let encoding = header(&answer, "Content-Encoding").unwrap_or("identity");
        if !encoding.eq_ignore_ascii_case("identity") {
            let status = answer.status().as_u16();
            let message = format!("it sends the file as {encoding}, which was not asked for");
            let refusal = Refusal::Other { status, message };
            return Err(DownloadError::Refused { address: self.address.into(), refusal }.into());
        }
        match answer.status().as_u16() {
            200 => {
                // What is there is thrown away only for what can be the file, not for a portal's page.
                self.refuse_page(&answer)?;
                // A newer version of a plain address may have another size.
                self.size = self.wanted.size;
                self.expect(number(&answer, "Content-Length"), &url)?;
                if from > 0 {
                    self.part.restart()?;
                }
                self.keep_validator(&answer);
            }
            206 => match (from, content_range(&answer)) {
                (1.., Some((start, total)))
                    if start == from && self.size.is_none_or(|size| size == total) =>
                {
                    self.expect(Some(total), &url)?;
                }
                _ => {
                    self.part.restart()?;
                    return Err(RequestError::passing(
                        &url,
                        "it sends another range than the one asked for",
                    ));
                }
            },
            416 => {
                let total = header(&answer, "Content-Range")
                    .and_then(|r| r.rsplit_once('/')?.1.parse().ok());
                if from > 0 && self.size.or(total) == Some(from) {
                    self.size = Some(from);
                    return Ok(());
                }
                self.part.restart()?;
                return Err(RequestError::passing(&url, "it has no such range"));
            }
            status => {
                return Err(RequestError::passing(&url, format!("the server answers {status}")));
            }
        }
        self.read(answer, &url)
    }

    /// Sends a request and follows where it leads. The token goes to the endpoint alone.
    fn ask(
        &self,
        location: &str,
        headers: &[(&str, String)],
    ) -> Result<(Answer, String), RequestError> {
        let Context { environment, transport, .. } = self.context;
        let mut url = location.to_string();
        let first = match &self.wanted.file.address {
            Address::Hub(_) => &environment.endpoint,
            Address::Url(url) | Address::Link(url) => url,
        };
        let mut chain = Chain::of(&[first, location]);
        for _ in 0..=REDIRECTS {
            let token = match self.wanted.file.address {
                Address::Hub(_) => environment.token_for(&url),
                _ => None,
            };
            let answer = transport.get(&url, headers, token)?;
            let next = header(&answer, "Location").filter(|_| answer.status().is_redirection());
            if let Some(next) = next
                && let Some(next) = chain.next(&url, next, self.address)?
            {
                url = next;
                continue;
            }
            if let Some(trouble) = passing(&answer, &url) {
                return Err(trouble);
            }
            let status = answer.status().as_u16();
            if status < 400 || status == 416 {
                return Ok((answer, url));
            }
            return Err(match &self.wanted.file.address {
                Address::Hub(_) if Origin::of(&url) != Origin::of(&environment.endpoint) => {
                    RequestError::Expired { host: host_of(&url), status }
                }
                // A redirect of a plain address may be signed, too.
                Address::Url(_) | Address::Link(_) if status == 403 && url != location => {
                    RequestError::Expired { host: host_of(&url), status }
                }
                address => {
                    let refusal = match address {
                        Address::Hub(hub) => hub::refusal(&answer, &environment.endpoint, hub),
                        _ => None,
                    };
                    let message = answer.status().canonical_reason().unwrap_or_default().into();
                    let refusal = refusal.unwrap_or(Refusal::Other { status, message });
                    DownloadError::Refused { address: self.address.into(), refusal }.into()
                }
            });
        }
        Err(RequestError::passing(&url, "it redirects without an end"))
    }

    /// Checks the size that the server promises.
    fn expect(&mut self, size: Option<u64>, url: &str) -> Result<(), RequestError> {
        match (self.size, size) {
            (Some(known), Some(promised)) if known != promised => {
                if let Some(described) = self.wanted.file.bytes {
                    return Err(self.changed("size", described, promised).into());
                }
                let problem = format!("it sends {promised} bytes instead of {known}");
                return Err(RequestError::passing(url, problem));
            }
            (None, Some(promised)) => {
                if let Some(described) = self.wanted.file.bytes.filter(|bytes| *bytes != promised) {
                    return Err(self.changed("size", described, promised).into());
                }
                self.size = Some(promised);
                self.reserve(promised)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn changed(&self, what: &'static str, expected: u64, found: u64) -> DownloadError {
        let (address, expected, found) =
            (self.address.into(), expected.to_string(), found.to_string());
        DownloadError::Changed { address, what, expected, found }
    }

    /// Makes sure that the disk can hold what is still to come, with what other downloads are still to write.
    fn reserve(&mut self, size: u64) -> Result<(), DownloadError> {
        if self.promise.is_some() {
            return Ok(());
        }
        let missing = size.saturating_sub(self.part.done());
        let place = self.whole.parent().unwrap_or(self.whole);
        let (promise, before) = self.context.promised.promise(place, missing);
        self.promise = Some(promise);
        let needed = missing.saturating_add(before);
        match (self.context.environment.free_space)(place) {
            Some(free) if free < needed => {
                let (address, place) = (self.address.into(), place.into());
                Err(DownloadError::Space { address, place, needed, free })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a web page in place of a file.
    fn refuse_page(&self, answer: &Answer) -> Result<(), DownloadError> {
        let is_page = header(answer, "Content-Type")
            .is_some_and(|kind| kind.to_lowercase().starts_with("text/html"));
        match is_page && !self.wanted.file.name().ends_with(".html") {
            true => Err(self.page()),
            false => Ok(()),
        }
    }

    /// A page came; the address is one that a browser opens.
    fn page(&self) -> DownloadError {
        match &self.wanted.file.address {
            Address::Url(url) | Address::Link(url) => DownloadError::Page { address: url.clone() },
            Address::Hub(_) => DownloadError::Page { address: self.address.into() },
        }
    }

    fn read(&mut self, answer: Answer, url: &str) -> Result<(), RequestError> {
        self.may_be_cut = self.size.is_none() && !is_chunked(&answer);
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.context.stop.load(Ordering::Relaxed) {
                return Err(DownloadError::Stopped.into());
            }
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(error) => {
                    return Err(RequestError::passing(
                        url,
                        format!("the connection broke: {error}"),
                    ));
                }
            };
            let (done, size) = (self.part.done(), self.size);
            if n == 0 {
                return match size {
                    Some(size) if done < size => Err(RequestError::passing(
                        url,
                        format!("the connection ended after {done} of {size} bytes"),
                    )),
                    _ => Ok(()),
                };
            }
            if size.is_some_and(|size| done + n as u64 > size) {
                self.part.restart()?;
                return Err(RequestError::passing(url, "it sends more bytes than it promised"));
            }
            self.part.append(&buffer[..n])?;
            if let Some(promise) = &mut self.promise {
                promise.keep(n as u64);
            }
            (self.context.watch)(State::Receiving { done: done + n as u64, total: size });
        }
    }

    fn finish(mut self) -> Result<(Found, u64), DownloadError> {
        if matches!(self.wanted.file.address, Address::Link(_))
            && !is_weights(&self.part.beginning(BEGINNING)?)
        {
            let page = self.page();
            let _ = std::fs::remove_file(self.validator_file());
            self.part.discard()?;
            return Err(page);
        }
        self.refuse_cut()?;
        let _ = std::fs::remove_file(self.validator_file());
        let bytes = self.part.done();
        Ok((self.part.finish(self.whole, self.address)?, bytes))
    }

    /// Refuses a content that is cut, or may be, unless its digest will tell.
    fn refuse_cut(&mut self) -> Result<(), DownloadError> {
        if !self.may_be_cut || self.wanted.expected != Expected::default() {
            return Ok(());
        }
        match self.part.doubt()? {
            Some(problem) => {
                Err(DownloadError::Truncated { address: self.address.into(), problem })
            }
            None => Ok(()),
        }
    }

    /// Beside the part: one that nobody else continues has a validator of its own.
    fn validator_file(&self) -> PathBuf {
        with_end(self.part.path(), VALIDATOR)
    }

    /// What the server called this version of the file when the part was begun, for `If-Range`.
    fn validator(&self) -> Option<String> {
        if self.wanted.is_named_by_content {
            return None;
        }
        let text = std::fs::read_to_string(self.validator_file()).ok()?;
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')).then_some(text)
    }

    fn keep_validator(&self, answer: &Answer) {
        if self.wanted.is_named_by_content {
            return;
        }
        let strong = header(answer, "ETag").filter(|etag| !etag.starts_with("W/"));
        let validator = strong.or_else(|| header(answer, "Last-Modified"));
        let file = self.validator_file();
        // Without one the part begins anew the next time.
        let _ = match validator {
            Some(validator) => write_whole(&file, validator.as_bytes()).is_ok(),
            None => std::fs::remove_file(&file).is_ok(),
        };
    }
}

/// Start and total of `bytes START-END/TOTAL`.
fn content_range(answer: &Answer) -> Option<(u64, u64)> {
    let range = header(answer, "Content-Range")?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Whether a file begins like a zip archive, a pickle, a gzip archive or safetensors.
fn is_weights(beginning: &[u8]) -> bool {
    // The length of a header of less than 4 GiB, and the header.
    let is_safetensors = beginning.get(4..9) == Some(&[0, 0, 0, 0, b'{'][..]);
    beginning.starts_with(b"PK")
        || beginning.starts_with(&[0x80])
        || beginning.starts_with(&[0x1f, 0x8b])
        || is_safetensors
}
