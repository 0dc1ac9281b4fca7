//! Samples of one making are never mixed with those of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tintype::files::{Identity, IdentityError};

use crate::data::made::{Other, remove};
use crate::patience::Patience;
use crate::rank::Rank;

/// How a process meets samples of another making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replace {
    /// Whether they are removed.
    pub other: Other,
    /// Whether this process is the only one that writes these samples.
    pub alone: bool,
    /// Whether it is this process that removes them; others wait for that.
    pub removes: bool,
}

impl Replace {
    /// Nothing is replaced, by the only process.
    pub const NOTHING: Self = Self { other: Other::Refuse, alone: true, removes: true };

    /// What a rank does.
    pub fn by(rank: Rank, other: Other) -> Self {
        Self { other, alone: rank.world == 1, removes: rank.rank == 0 }
    }
}

/// Takes samples for an identity; `others` are the files that a record belongs to.
pub(super) fn claim(
    identity: &Identity,
    record: &Path,
    others: &dyn Fn() -> Result<Vec<PathBuf>>,
    Replace { other, removes, .. }: Replace,
) -> Result<()> {
    let compare = || -> Result<Result<(), IdentityError>> {
        // The record is written before the first sample, so samples without one are of an earlier version.
        let unrecorded = !record.exists() && !others()?.is_empty() && !record.exists();
        Ok(match unrecorded {
            true => identity.check(record, None),
            false => identity.claim(record),
        })
    };
    if other == Other::Remove && removes {
        if compare()?.is_err_and(|e| e.is_other_making()) {
            // The record goes last: until then, the samples are of another making for every process.
            others()?.iter().try_for_each(|file| remove(file))?;
            remove(record)?;
        }
    } else if other == Other::Remove {
        let mut patience = Patience::from_environment();
        while compare()?.is_err_and(|e| e.is_other_making()) {
            let parts = || vec![(format!("the removal of {}", record.display()), 0)];
            patience.check(1, parts)?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(compare()??)
}
