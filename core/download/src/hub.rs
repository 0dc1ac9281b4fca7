//! What a Hub says of a file before it is fetched.

use tintype::catalogue::Hub;

use crate::environment::Environment;
use crate::error::{DownloadError, Refusal};
use crate::retry::passing;
use crate::transport::{
    Answer, Chain, RequestError, Transport, header, host_of, is_absolute, number, public,
};

/// Redirects within a host before a request is given up.
const REDIRECTS: usize = 10;

/// What a Hub says of a file.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The commit that the revision is now.
    pub(crate) commit: String,
    /// The id of the content, which names its blob.
    pub(crate) id: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Where the bytes are; signed, and not valid for long.
    pub(crate) location: String,
}

/// The address of a file on an endpoint.
pub(crate) fn address(endpoint: &str, hub: &Hub) -> String {
    let kind = if hub.is_dataset { "datasets/" } else { "" };
    let (revision, path) = (encoded(&hub.revision, false), encoded(&hub.path, true));
    format!("{endpoint}/{kind}{}/resolve/{revision}/{path}", hub.repository)
}

/// The page of a repository on an endpoint.
fn page(endpoint: &str, hub: &Hub) -> String {
    let kind = if hub.is_dataset { "datasets/" } else { "" };
    format!("{}/{kind}{}", public(endpoint), hub.repository)
}

/// Text with `%XX` for all that may not stand in an address.
pub(crate) fn encoded(text: &str, slashes: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(byte.into())
            }
            b'/' if slashes => encoded.push('/'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// Asks a Hub for a file. An answer of `Ok(Err)` is the commit of a revision that has no such file.
pub(crate) fn ask(
    transport: &Transport,
    environment: &Environment,
    hub: &Hub,
) -> Result<Result<Facts, String>, RequestError> {
    let mut url = address(&environment.endpoint, hub);
    let (mut left, mut chain, name) = (REDIRECTS, Chain::of(&[&url]), address_of(hub));
    let answer = loop {
        let answer = transport.head(&url, environment.token_for(&url))?;
        let location = header(&answer, "Location").filter(|_| answer.status().is_redirection());
        match location.filter(|location| !is_absolute(location)) {
            Some(location) if left > 0 => {
                left -= 1;
                url = chain.next(&url, location, &name)?.unwrap_or(url);
            }
            Some(_) => return Err(RequestError::passing(&url, "it redirects without an end")),
            None => break answer,
        }
    };
    if let Some(trouble) = passing(&answer, &url) {
        return Err(trouble);
    }
    let commit = header(&answer, "X-Repo-Commit").filter(|commit| is_commit(commit));
    let commit = commit.filter(|commit| !hub.is_pinned() || **commit == hub.revision);
    let commit = commit.map(String::from);
    if let Some(refusal) = refusal(&answer, &environment.endpoint, hub) {
        return match (refusal, commit) {
            (Refusal::Entry { .. }, Some(commit)) => Ok(Err(commit)),
            (refusal, _) => Err(DownloadError::Refused { address: name, refusal }.into()),
        };
    }
    let is_redirect = answer.status().is_redirection();
    let id = header(&answer, "X-Linked-Etag").or_else(|| header(&answer, "ETag")).and_then(id);
    let size = number(&answer, "X-Linked-Size")
        .or_else(|| number(&answer, "Content-Length").filter(|_| !is_redirect));
    let Some(commit) = commit else {
        return Err(DownloadError::NotAHub { address: name, host: host_of(&url) }.into());
    };
    let (Some(id), Some(size)) = (id, size) else {
        return Err(RequestError::passing(&url, "the answer has no size or no ETag"));
    };
    let location = header(&answer, "Location").filter(|_| is_redirect);
    let location = match location {
        Some(location) => chain.next(&url, location, &name)?,
        None => None,
    };
    let location = location.unwrap_or(url);
    Ok(Ok(Facts { commit, id, size, location }))
}

/// Whether a text is a commit, which names a folder.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn address_of(hub: &Hub) -> String {
    tintype::catalogue::Address::Hub(hub.clone()).to_string()
}

/// The id in an `ETag`; `None` where it could not name a file.
fn id(etag: &str) -> Option<String> {
    let id = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(is_name)).then(|| id.into())
}

/// What the Hub says where it refuses.
pub(crate) fn refusal(answer: &Answer, endpoint: &str, hub: &Hub) -> Option<Refusal> {
    let status = answer.status().as_u16();
    if status < 400 {
        return None;
    }
    let code = header(answer, "X-Error-Code").unwrap_or_default();
    let message = header(answer, "X-Error-Message").unwrap_or_default();
    let (page, repository) = (page(endpoint, hub), hub.repository.clone());
    let (revision, path) = (hub.revision.clone(), hub.path.clone());
    Some(match (status, code) {
        (401, "GatedRepo") => Refusal::Gated { page },
        (403, "GatedRepo") => Refusal::NotGranted { page },
        (401, _) if message.contains("Invalid credentials") => Refusal::Token,
        (401, _) | (404, "RepoNotFound") => Refusal::Repository { repository },
        (404, "RevisionNotFound") => Refusal::Revision { repository, revision },
        (404, "EntryNotFound") => Refusal::Entry { repository, revision, path },
        _ => Refusal::Other { status, message: message.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded_once() {
        let hub = |text: &str| match text.parse() {
            Ok(tintype::catalogue::Address::Hub(hub)) => hub,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            address(
                "https://h.example",
                &hub("hub:a/b/file name with [brackets] and %.pt@refs/pr/1")
            ),
            "https://h.example/a/b/resolve/refs%2Fpr%2F1/file%20name%20with%20%5Bbrackets%5D%20and%20%25.pt"
        );
        assert_eq!(
            address("https://h.example", &hub("hub:datasets/a/b/c/ä.txt")),
            "https://h.example/datasets/a/b/resolve/main/c/%C3%A4.txt"
        );
    }

    #[test]
    fn ids_name_files() {
        assert_eq!(id("W/\"abc-1\"").as_deref(), Some("abc-1"));
        assert_eq!(id("\"../x\""), None);
        assert_eq!(id("\"\""), None);
    }
}
