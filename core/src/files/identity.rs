//! What an output was made from, recorded beside it, so that two makings are never mixed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{WriteError, write_new};

/// The settings, weights and data that an output depends on, by name. Two outputs of one identity are equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(Map<String, Value>);

impl Identity {
    /// Adds what `key` names.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Where a recorded identity differs, in the order of the keys; keys of one of them alone count.
    pub fn differences(&self, recorded: &Self) -> Vec<Difference> {
        let added = recorded.0.keys().filter(|key| !self.0.contains_key(*key));
        self.0
            .keys()
            .chain(added)
            .map(|key| Difference {
                key: key.clone(),
                wanted: self.0.get(key).cloned(),
                recorded: recorded.0.get(key).cloned(),
            })
            .filter(|difference| difference.wanted != difference.recorded)
            .collect()
    }

    /// Takes an output for this identity: writes the record, or compares with the one that is there.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Mismatch`] if the output was begun with another identity; else the record cannot be
    /// read or written.
    pub fn claim(&self, record: &Path) -> Result<(), IdentityError> {
        let path = || record.to_path_buf();
        // Of several processes that begin one output together, one writes and the others compare.
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| IdentityError::Format { path: path(), source })?;
        if !record.exists() && write_new(record, &text)? {
            return Ok(());
        }
        let text =
            std::fs::read(record).map_err(|source| IdentityError::Read { path: path(), source })?;
        let recorded = serde_json::from_slice(&text)
            .map_err(|source| IdentityError::Format { path: path(), source })?;
        match self.differences(&recorded) {
            none if none.is_empty() => Ok(()),
            differences => Err(IdentityError::Mismatch { path: path(), differences }),
        }
    }
}

/// One value that two identities do not share.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What it is.
    pub key: String,
    /// Its value now; `None` if it is not a part of the identity now.
    pub wanted: Option<Value>,
    /// Its recorded value; `None` if it was not recorded.
    pub recorded: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
        write!(f, "{} was {}, not {}", self.key, text(&self.recorded), text(&self.wanted))
    }
}

/// Why an output cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It was made from something else.
    #[error("{} was made differently: {}", .path.display(), list(.differences))]
    Mismatch {
        /// The record.
        path: PathBuf,
        /// Each value that differs.
        differences: Vec<Difference>,
    },
    /// The record is not one.
    #[error("{} is not a record of how an output was made", .path.display())]
    Format {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The record cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn list(differences: &[Difference]) -> String {
    let each: Vec<String> = differences.iter().map(Difference::to_string).collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_identity_is_refused_with_both_values() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = folder.path().join("identity.json");
        let made = Identity::default().with("seed", 1).with("vae", "a0b1");
        made.claim(&record).expect("it is free");
        made.claim(&record).expect("the same may go on");
        let bytes = std::fs::read(&record).expect("a record");

        let other = Identity::default().with("seed", 2).with("steps", 50);
        let error = other.claim(&record).expect_err("another seed");
        let text = error.to_string();
        assert!(
            text.ends_with(
                "identity.json was made differently: seed was 1, not 2; steps was nothing, not 50; \
             vae was \"a0b1\", not nothing"
            ),
            "{text}"
        );
        assert_eq!(std::fs::read(&record).expect("a record"), bytes, "it was not touched");
    }

    #[test]
    fn a_damaged_record_is_an_error_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = folder.path().join("identity.json");
        std::fs::write(&record, "{\"seed\": 1").expect("it writes");
        let error = Identity::default().with("seed", 1).claim(&record).expect_err("half a record");
        assert!(matches!(error, IdentityError::Format { .. }), "{error}");
        assert_eq!(std::fs::read(&record).expect("a record"), b"{\"seed\": 1");
    }
}
