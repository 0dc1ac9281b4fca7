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
        self.compare(&Self::read(record)?, record)
    }

    /// Compares what is known before all of an identity is with the record of an output, if there is one. Keys that
    /// are in the record alone do not count.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Mismatch`] if the output was begun with another identity; else the record cannot be read.
    pub fn check_known(&self, record: &Path) -> Result<(), IdentityError> {
        if !record.exists() {
            return Ok(());
        }
        let mut recorded = Self::read(record)?;
        recorded.0.retain(|key, _| self.0.contains_key(key));
        self.compare(&recorded, record)
    }

    fn read(record: &Path) -> Result<Self, IdentityError> {
        let path = || record.to_path_buf();
        let text =
            std::fs::read(record).map_err(|source| IdentityError::Read { path: path(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| IdentityError::Format { path: path(), source })
    }

    /// Compares with what an output says of itself: its identity as [`text`](Self::text), or nothing.
    ///
    /// # Errors
    ///
    /// * [`IdentityError::Mismatch`] if the output has another identity
    /// * [`IdentityError::Unrecorded`] if it has none, as those of earlier versions
    pub fn check(&self, output: &Path, recorded: Option<&str>) -> Result<(), IdentityError> {
        match recorded.and_then(|text| serde_json::from_str(text).ok()) {
            Some(recorded) => self.compare(&recorded, output),
            None => Err(IdentityError::Unrecorded { path: output.into() }),
        }
    }

    /// [`check`](Self::check) before all of an identity is known: keys that the output has alone do not count.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_part(&self, output: &Path, recorded: Option<&str>) -> Result<(), IdentityError> {
        let recorded = recorded.and_then(|text| serde_json::from_str::<Self>(text).ok());
        let Some(mut recorded) = recorded else {
            return Err(IdentityError::Unrecorded { path: output.into() });
        };
        recorded.0.retain(|key, _| self.0.contains_key(key));
        self.compare(&recorded, output)
    }

    /// The identity as JSON on one line, as an output carries it.
    pub fn text(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    fn compare(&self, recorded: &Self, path: &Path) -> Result<(), IdentityError> {
        match self.differences(recorded) {
            none if none.is_empty() => Ok(()),
            differences => Err(IdentityError::Mismatch { path: path.into(), differences }),
        }
    }
}

impl IdentityError {
    /// Whether there is an output of another making, as opposed to a record that cannot be used.
    pub fn is_other_making(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Unrecorded { .. })
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
    /// It does not say what it was made from.
    #[error("{} was made by an earlier version, which did not record from what", .path.display())]
    Unrecorded {
        /// The output.
        path: PathBuf,
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
        let known = |key: &str, value: i32| {
            Identity::default().with(key, value).check_known(&record).map_err(|e| e.to_string())
        };
        assert_eq!(known("seed", 1), Ok(()), "the rest is not known yet");
        let error = known("seed", 2).expect_err("another seed");
        assert!(error.ends_with("was made differently: seed was 1, not 2"), "{error}");
        assert!(known("steps", 50).is_err(), "it was not recorded");
        assert!(other.check_known(&folder.path().join("none.json")).is_ok());
        assert_eq!(std::fs::read(&record).expect("a record"), bytes, "it was not touched");
    }

    #[test]
    fn an_output_may_carry_its_identity_in_itself() {
        let made = Identity::default().with("seed", 1).with("store", "a0b1");
        let file = Path::new("x.h5");
        assert!(made.check(file, Some(&made.text())).is_ok());
        let error = made.check(file, Some(r#"{"seed":2,"store":"a0b1"}"#)).expect_err("another");
        assert!(error.to_string().ends_with("x.h5 was made differently: seed was 2, not 1"));
        let seed = |seed: i32| Identity::default().with("seed", seed);
        assert!(seed(1).check_part(file, Some(&made.text())).is_ok(), "the rest is not known yet");
        assert!(seed(2).check_part(file, Some(&made.text())).is_err());
        assert!(seed(1).check_part(file, None).is_err());
        for none in [None, Some("a0b1-3509-0")] {
            let error = made.check(file, none).expect_err("nothing is recorded");
            assert!(error.is_other_making() && error.to_string().contains("earlier version"));
        }
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
