//! What is published: repositories with their commits, and files of plain addresses.

use std::collections::BTreeMap;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::http::Headers;

/// The commit that `main` is at first.
pub const MAIN_COMMIT: &str = "1111111111111111111111111111111111111111";
/// The branch that every repository has.
const MAIN: &str = "main";

/// SHA-256, in hexadecimal digits: the id of a large file.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Git's SHA-1 of a blob, in hexadecimal digits: the id of a small file.
pub fn git_sha1(bytes: &[u8]) -> String {
    let mut git = Sha1::new();
    git.update(format!("blob {}\0", bytes.len()));
    git.update(bytes);
    hex(&git.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) id: String,
    /// Whether it lies on the content network.
    pub(crate) is_large: bool,
}

impl Stored {
    pub(crate) fn new(bytes: &[u8], is_large: bool) -> Self {
        let id = if is_large { sha256(bytes) } else { git_sha1(bytes) };
        Self { bytes: bytes.into(), id, is_large }
    }
}

/// The files of a commit, by path.
pub(crate) type Tree = BTreeMap<String, Stored>;

/// A repository.
#[derive(Debug)]
pub(crate) struct Repository {
    branches: BTreeMap<String, String>,
    commits: BTreeMap<String, Tree>,
}

impl Default for Repository {
    fn default() -> Self {
        Self {
            branches: BTreeMap::from([(MAIN.to_string(), MAIN_COMMIT.to_string())]),
            commits: BTreeMap::from([(MAIN_COMMIT.to_string(), Tree::new())]),
        }
    }
}

impl Repository {
    /// The commit that a revision is.
    pub(crate) fn commit(&self, revision: &str) -> Option<&str> {
        let branch = self.branches.get(revision).map(String::as_str);
        branch.or_else(|| self.commits.get_key_value(revision).map(|(commit, _)| commit.as_str()))
    }

    /// The files of a commit.
    pub(crate) fn files(&self, commit: &str) -> Option<&Tree> {
        self.commits.get(commit)
    }

    /// Publishes a file in the commit that `main` is.
    pub(crate) fn put(&mut self, path: &str, file: Stored) {
        let commit = self.branches[MAIN].clone();
        self.commits.entry(commit).or_default().insert(path.into(), file);
    }

    /// Lets a branch be a commit; a new one has the files of `main`.
    pub(crate) fn branch(&mut self, name: &str, commit: &str) {
        let files = self.commits.get(&self.branches[MAIN]).cloned().unwrap_or_default();
        self.commits.entry(commit.into()).or_insert(files);
        self.branches.insert(name.into(), commit.into());
    }
}

/// A file of a plain address.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: Headers,
}

/// All that is published.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// By `OWNER/NAME` or `datasets/OWNER/NAME`.
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// By path.
    pub(crate) plain: BTreeMap<String, Plain>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_git_and_sha256sum() {
        assert_eq!(git_sha1(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(sha256(b"hello\n"), digest);
    }

    #[test]
    fn a_branch_moves_and_commits_stay() {
        let mut repository = Repository::default();
        repository.put("a", Stored::new(b"old", false));
        repository.branch(MAIN, "2");
        repository.put("a", Stored::new(b"new", false));
        let bytes = |revision| {
            let commit = repository.commit(revision)?;
            Some(repository.files(commit)?.get("a")?.bytes.clone())
        };
        assert_eq!(bytes(MAIN).as_deref(), Some(&b"new"[..]));
        assert_eq!(bytes(MAIN_COMMIT).as_deref(), Some(&b"old"[..]));
        assert_eq!(bytes("3"), None);
    }
}
