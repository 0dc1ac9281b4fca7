//! Where a file lies, as it is written in the catalogue and on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::file_names::is_file_name;

/// Where a file lies.
///
/// * `hub:OWNER/REPO/PATH[@REVISION]`, `hub:datasets/OWNER/REPO/PATH[@REVISION]`: of a Hugging Face Hub; the
///   revision is what follows the last `@`, `main` without one
/// * `https://…`: a plain address, whose file can be continued
/// * `link:https://…`: a link of a sharing service, which may answer with a page instead of the file
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// A file of a Hugging Face Hub.
    Hub(Hub),
    /// A plain address.
    Url(String),
    /// A link of a sharing service.
    Link(String),
}

/// A file of a Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hub {
    /// `OWNER/NAME`.
    pub repository: String,
    /// Whether the repository is a data set's.
    pub is_dataset: bool,
    /// Branch, tag, commit (40 hexadecimal digits) or `refs/pr/N`.
    pub revision: String,
    /// The file's path in the repository.
    pub path: String,
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is no address: {problem}")]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong.
    pub problem: &'static str,
}

/// The revision where none is named.
const MAIN: &str = "main";

impl Hub {
    /// Whether the revision is a commit, whose files never change.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The address as people write it in a browser: `https://huggingface.co/…`.
    pub fn page(&self) -> String {
        let kind = if self.is_dataset { "datasets/" } else { "" };
        format!("https://huggingface.co/{kind}{}", self.repository)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (is_dataset, rest) = match text.strip_prefix("datasets/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (rest, revision) = rest.rsplit_once('@').unwrap_or((rest, MAIN));
        let mut parts = rest.splitn(3, '/');
        let (Some(owner), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("expected hub:OWNER/REPO/PATH[@REVISION]");
        };
        let is_name = |name: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty()
                && !name.contains("--")
                && name.chars().all(known)
                && !name.starts_with('.')
                && !name.contains("..")
        };
        if !is_name(owner) || !is_name(name) {
            return Err("owner and repository have letters, digits, '-', '_' and '.'");
        }
        if !is_relative(path) {
            return Err("a part of the path is no name of a file on every system");
        }
        if !is_relative(revision) {
            return Err("the revision is none");
        }
        Ok(Self {
            repository: format!("{owner}/{name}"),
            is_dataset,
            revision: revision.into(),
            path: path.into(),
        })
    }
}

/// Whether a revision is a commit.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a path stays below a folder on every system: each part is the name of a file there.
fn is_relative(path: &str) -> bool {
    path.split(['/', '\\']).all(is_file_name)
}

impl Address {
    /// Whether a text is meant as an address, and not as a path or a name.
    pub fn is_meant(text: &str) -> bool {
        ["hub:", "link:", "https://", "http://"].iter().any(|start| text.starts_with(start))
    }

    /// The file's name: what follows the last `/`, without a query.
    pub fn file_name(&self) -> &str {
        let path = match self {
            Self::Hub(hub) => &hub.path,
            Self::Url(url) | Self::Link(url) => url.split(['?', '#']).next().unwrap_or(url),
        };
        path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let problem = |problem| AddressError { address: text.into(), problem };
        if let Some(hub) = text.strip_prefix("hub:") {
            return Hub::parse(hub).map(Self::Hub).map_err(problem);
        }
        let (url, is_link) = match text.strip_prefix("link:") {
            Some(url) => (url, true),
            None => (text, false),
        };
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = host.ok_or_else(|| problem("it begins neither with hub: nor with https://"))?;
        let is_text = |c: char| c.is_ascii_graphic();
        if host.split('/').next().is_none_or(str::is_empty) || !url.chars().all(is_text) {
            return Err(problem("it has no host, or a character that an address has as %XX"));
        }
        if host.split('/').next().is_some_and(|host| host.contains('@')) {
            return Err(problem("a password does not belong into an address"));
        }
        let address = if is_link { Self::Link(url.into()) } else { Self::Url(url.into()) };
        let name = address.file_name();
        if is_file_name(name) {
            return Ok(address);
        }
        let path = host.split(['?', '#']).next().unwrap_or(host);
        let has_name = path.trim_end_matches('/').contains('/') && ![".", ".."].contains(&name);
        Err(problem(match has_name {
            true => "its file's name is not allowed on every system",
            false => "it does not end in the name of a file",
        }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(Hub { repository, is_dataset, revision, path }) => {
                let kind = if *is_dataset { "datasets/" } else { "" };
                write!(f, "hub:{kind}{repository}/{path}")?;
                if revision == MAIN && !path.contains('@') {
                    Ok(())
                } else {
                    write!(f, "@{revision}")
                }
            }
            Self::Url(url) => f.write_str(url),
            Self::Link(url) => write!(f, "link:{url}"),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        for text in [
            "hub:hustvl/a.b-c/latents stats [1] and %.pt",
            "hub:datasets/a/b/splits/split_aa@refs/pr/1",
            "hub:a/b/c@d.pt@main",
            "https://example.org/a/b.pth?x=1",
            "link:https://example.org/f/1/?dl=1",
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        let Ok(Address::Hub(hub)) = "hub:a/b/c/d.pt@refs/pr/1".parse() else { panic!("a hub's") };
        assert_eq!((hub.path.as_str(), hub.revision.as_str()), ("c/d.pt", "refs/pr/1"));
        let name = |text: &str| text.parse::<Address>().expect(text).file_name().to_string();
        assert_eq!(name("https://example.org/a/b.pth?x=/1"), "b.pth");
        assert_eq!(name("hub:a/b/c/d.pt"), "d.pt");
    }

    #[test]
    fn paths_stay_in_their_repository() {
        for text in [
            "hub:a/b",
            "hub:a/b/",
            "hub:a/b/../c",
            "hub:a/b//c",
            "hub:a/b/c\\..\\d",
            "hub:a/b/C:/d",
            "hub:a/b/what?.pt",
            "hub:a/b/a*/d",
            "hub:a/b/<c>|d",
            "hub:a/b/c\"d",
            "hub:a/b/c\td",
            "hub:a/b/c./d",
            "hub:a/b/c /d",
            "hub:a/b/nul.pt",
            "hub:a/b/Com1/d",
            "hub:a/b/c@aux",
            "hub:../b/c",
            "hub:a/./c",
            "hub:a/b/c@../x",
            "hub:a/b/c@",
            "hub:a b/c/d",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://h/a/..",
            "https://h/..\\..\\x.exe",
            "https://h/C:x",
            "https://h/con.pt",
            "https://h/a*",
            "https://me:secret@example.org/x",
            "https://example.org/a b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_not_allowed_everywhere_is_told_from_none() {
        let refused = |text: &str| text.parse::<Address>().expect_err(text).problem;
        for text in ["https://h/con.pt", "https://h:8080/a*?x=1", "link:https://h/C:x/"] {
            assert_eq!(refused(text), "its file's name is not allowed on every system", "{text}");
        }
        for text in ["https://h/a/..", "https://h:8080/", "https://h:8080?x=/1"] {
            assert_eq!(refused(text), "it does not end in the name of a file", "{text}");
        }
    }
}
