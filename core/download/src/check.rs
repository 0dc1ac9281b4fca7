//! What a file's content must be, and what it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::part::CHUNK;

/// Digests that a content must have. Empty where none is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// SHA-256, in hexadecimal digits.
    pub(crate) sha256: Option<String>,
    /// Git's SHA-1 of a blob, and its length.
    pub(crate) git: Option<(String, u64)>,
    /// The beginning of the SHA-256, as PyTorch's names of files have it.
    pub(crate) beginning: Option<String>,
}

/// Digests of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) sha256: String,
    git: Option<String>,
}

/// Digests of a content that is still coming.
#[derive(Clone)]
pub(crate) struct Hashes {
    sha256: Sha256,
    git: Option<Sha1>,
}

/// A digest that is another: how it was computed, what it should be, what it is.
pub(crate) type Difference = (&'static str, String, String);

impl Expected {
    /// By the id of a content on a Hub: 64 digits are SHA-256, 40 are git's; other ids tell nothing.
    pub(crate) fn of_id(id: &str, size: u64) -> Self {
        let is_hex = id.bytes().all(|b| b.is_ascii_hexdigit());
        match id.len() {
            64 if is_hex => Self { sha256: Some(id.to_lowercase()), ..Self::default() },
            40 if is_hex => Self { git: Some((id.to_lowercase(), size)), ..Self::default() },
            _ => Self::default(),
        }
    }

    /// By the name of a file, as `vgg16-397923af.pth`.
    pub(crate) fn beginning_in(name: &str) -> Option<String> {
        let (_, digits) = name.split_once('.').map_or(name, |(stem, _)| stem).rsplit_once('-')?;
        let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (digits.len() == 8 && is_hex).then(|| digits.into())
    }

    /// Whether the content would be told from another by more than its length.
    pub(crate) fn is_known(&self) -> bool {
        self.sha256.is_some() || self.git.is_some()
    }

    /// The first digest that is another.
    pub(crate) fn difference(&self, found: &Found) -> Option<Difference> {
        let sha256 = (&self.sha256, Some(&found.sha256), "SHA-256");
        let git =
            (&self.git.as_ref().map(|(digest, _)| digest.clone()), found.git.as_ref(), "git SHA-1");
        for (expected, found, algorithm) in [sha256, git] {
            if let (Some(expected), Some(found)) = (expected, found)
                && expected != found
            {
                return Some((algorithm, expected.clone(), found.clone()));
            }
        }
        let beginning =
            self.beginning.as_ref().filter(|b| !found.sha256.starts_with(b.as_str()))?;
        Some(("SHA-256", beginning.clone(), found.sha256.clone()))
    }

    /// Whether these digests are among those that were found.
    pub(crate) fn is_judged_by(&self, found: &Found) -> bool {
        self.git.is_none() || found.git.is_some()
    }

    /// The digests of a file; `None` where that was stopped.
    ///
    /// * `checked`: told how many bytes have been read
    pub(crate) fn of_file(
        &self,
        path: &Path,
        stop: &AtomicBool,
        checked: &dyn Fn(u64),
    ) -> io::Result<Option<Found>> {
        let (mut file, mut hashes) = (File::open(path)?, self.hashes());
        let (mut buffer, mut done) = (vec![0; CHUNK], 0);
        while !stop.load(Ordering::Relaxed) {
            match file.read(&mut buffer)? {
                0 => return Ok(Some(hashes.finish())),
                n => {
                    hashes.update(&buffer[..n]);
                    done += n as u64;
                    checked(done);
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn hashes(&self) -> Hashes {
        let git = self.git.as_ref().map(|(_, size)| {
            let mut git = Sha1::new();
            git.update(format!("blob {size}\0"));
            git
        });
        Hashes { sha256: Sha256::new(), git }
    }
}

impl Hashes {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> Found {
        let git = self.git.map(|git| hex(&git.finalize()));
        Found { sha256: hex(&self.sha256.finalize()), git }
    }
}

/// SHA-256 of a text, in hexadecimal digits.
pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum_and_git() {
        let expected = Expected::of_id("ce013625030ba8dba906f756967f9e9ca394464a", 6);
        let mut hashes = expected.hashes();
        hashes.update(b"hel");
        hashes.update(b"lo\n");
        let found = hashes.finish();
        assert_eq!(
            found.sha256,
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
        assert_eq!(expected.difference(&found), None);
        let other = Expected::of_id(&"0".repeat(64), 6);
        assert_eq!(other.difference(&found).expect("it differs").0, "SHA-256");
        assert!(!Expected::of_id("\"odd\"", 6).is_known());
    }

    #[test]
    fn pytorchs_names_have_the_beginning() {
        let of = |name| Expected::beginning_in(name);
        assert_eq!(of("vgg16-397923af.pth").as_deref(), Some("397923af"));
        assert_eq!(of("pt_inception-2015-12-05-6726825d.pth").as_deref(), Some("6726825d"));
        assert_eq!(of("vae-f16d32.pt"), None);
        assert_eq!(of("model-20240101x.pt"), None);
    }
}
