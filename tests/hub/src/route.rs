//! What a request is answered, if nothing goes wrong.

use crate::content::{Content, Stored};
use crate::http::{Answer, Headers, Host, Request, decoded, encoded, headers};
use crate::listing;

/// A request and what it takes to answer it.
pub(crate) struct Route<'a> {
    pub(crate) content: &'a Content,
    pub(crate) request: &'a Request,
    /// The content network's address.
    pub(crate) cdn: &'a str,
    /// What a signed address is signed with; another one for each.
    pub(crate) signature: usize,
    /// Entries of a page of a listing.
    pub(crate) page: usize,
}

impl Route<'_> {
    pub(crate) fn answer(&self) -> Answer {
        if let Some(plain) = self.content.plain.get(&self.request.path()) {
            return file(self.request, &plain.bytes, plain.headers.clone());
        }
        let path = self.request.target.split('?').next().unwrap_or_default();
        // Decoded after they are told apart: `refs%2Fpr%2F1` is one part.
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (self.request.host, parts.as_slice()) {
            (Host::Hub, ["api", "resolve-cache", kind, owner, name, commit, path @ ..]) => {
                self.small(&repository(kind, owner, name), commit, &path.join("/"))
            }
            (Host::Hub, ["api", kind, owner, name, "tree", revision]) => {
                self.list(&repository(kind, owner, name), revision)
            }
            (Host::Hub, ["datasets", owner, name, "resolve", revision, path @ ..]) => {
                self.resolve(&repository("datasets", owner, name), revision, &path.join("/"))
            }
            (Host::Hub, [owner, name, "resolve", revision, path @ ..]) => {
                self.resolve(&repository("models", owner, name), revision, &path.join("/"))
            }
            (Host::Cdn, ["signed", kind, owner, name, commit, path @ ..]) => {
                self.large(&repository(kind, owner, name), commit, &path.join("/"))
            }
            _ => Answer::new(404, &[], "There is no such page."),
        }
    }

    /// What a file is, and where its bytes are.
    fn resolve(&self, repository: &str, revision: &str, path: &str) -> Answer {
        let Some(known) = self.content.repositories.get(repository) else {
            return self.no_repository();
        };
        let Some(commit) = known.commit(revision) else {
            return refused(404, "RevisionNotFound", "Invalid rev id");
        };
        let Some(file) = known.files(commit).and_then(|files| files.get(path)) else {
            let mut answer = refused(404, "EntryNotFound", "Entry not found");
            answer.set("X-Repo-Commit", commit);
            return answer;
        };
        let (kind, name) = match repository.strip_prefix("datasets/") {
            Some(name) => ("datasets", name),
            None => ("models", repository),
        };
        let place = format!("{kind}/{name}/{commit}/{}", encoded(path));
        if !file.is_large {
            let location = format!("/api/resolve-cache/{place}");
            let with: [(&str, &str); 2] = [("X-Repo-Commit", commit), ("Location", &location)];
            return Answer::new(307, &with, &format!("Redirecting to {location}"));
        }
        let location = format!("{}/signed/{place}?signature={}", self.cdn, self.signature);
        let (etag, size) = (format!("\"{}\"", file.id), file.bytes.len().to_string());
        let with: [(&str, &str); 6] = [
            ("X-Repo-Commit", commit),
            ("X-Linked-Etag", &etag),
            ("X-Linked-Size", &size),
            ("X-Xet-Hash", "not-a-digest-of-the-content"),
            ("Link", "<https://cas.invalid/auth>; rel=\"xet-auth\""),
            ("Location", &location),
        ];
        Answer::new(302, &with, &format!("Found. Redirecting to {location}"))
    }

    /// A small file, which the Hub sends itself.
    fn small(&self, repository: &str, commit: &str, path: &str) -> Answer {
        let Some(stored) = self.stored(repository, commit, path) else {
            return refused(404, "EntryNotFound", "Entry not found");
        };
        let etag = format!("\"{}\"", stored.id);
        file(self.request, &stored.bytes, headers(&[("X-Repo-Commit", commit), ("ETag", &etag)]))
    }

    /// A large file, whose `ETag` here is not the Hub's.
    fn large(&self, repository: &str, commit: &str, path: &str) -> Answer {
        let Some(stored) = self.stored(repository, commit, path) else {
            return Answer::new(403, &[], "<Error><Code>AccessDenied</Code></Error>");
        };
        let etag = format!("\"xet-{}\"", &stored.id[..16]);
        let kind = ("Content-Type", "application/octet-stream");
        file(self.request, &stored.bytes, headers(&[("ETag", &etag), kind]))
    }

    fn stored(&self, repository: &str, commit: &str, path: &str) -> Option<&Stored> {
        self.content.repositories.get(repository)?.files(commit)?.get(path)
    }

    fn list(&self, repository: &str, revision: &str) -> Answer {
        let Some(known) = self.content.repositories.get(repository) else {
            return self.no_repository();
        };
        match known.commit(revision).and_then(|commit| known.files(commit)) {
            Some(files) => listing::page(self.request, files, self.page),
            None => refused(404, "RevisionNotFound", "Invalid rev id"),
        }
    }

    /// Strangers are not told whether a repository is private or does not exist.
    fn no_repository(&self) -> Answer {
        match self.request.header("Authorization") {
            Some(_) => refused(404, "RepoNotFound", "Repository not found"),
            None => Answer::new(401, &[("X-Error-Message", "Invalid username or password.")], ""),
        }
    }
}

/// A repository's name among the others.
fn repository(kind: &str, owner: &str, name: &str) -> String {
    let kind = if kind == "datasets" { "datasets/" } else { "" };
    format!("{kind}{owner}/{name}")
}

fn refused(status: u16, code: &str, message: &str) -> Answer {
    Answer::new(status, &[("X-Error-Code", code), ("X-Error-Message", message)], message)
}

/// A content, or the range of it that is asked for.
fn file(request: &Request, bytes: &[u8], mut headers: Headers) -> Answer {
    headers.push(("Accept-Ranges".into(), "bytes".into()));
    let total = bytes.len();
    match request.start().filter(|_| is_current(request, &headers)) {
        None => Answer { status: 200, headers, body: bytes.into() },
        Some(start) if start >= total => {
            headers.push(("Content-Range".into(), format!("bytes */{total}")));
            Answer { status: 416, headers, body: Vec::new() }
        }
        Some(start) => {
            let range = format!("bytes {start}-{}/{total}", total - 1);
            headers.push(("Content-Range".into(), range));
            Answer { status: 206, headers, body: bytes[start..].into() }
        }
    }
}

/// Whether `If-Range` names this version of a file; a weak `ETag` names none.
fn is_current(request: &Request, headers: &[(String, String)]) -> bool {
    let Some(wanted) = request.header("If-Range") else { return true };
    headers.iter().any(|(name, value)| {
        let is_strong = name.eq_ignore_ascii_case("ETag") && !value.starts_with("W/");
        (is_strong || name.eq_ignore_ascii_case("Last-Modified")) && value == wanted
    })
}
