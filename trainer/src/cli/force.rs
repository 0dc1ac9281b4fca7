//! `--force`: outputs of another making are refused, or replaced if asked.

use anyhow::{Result, anyhow};
use tintype::files::IdentityError;

use crate::data::made::Other;

/// What `--force` does with an output of another making.
pub fn other(force: bool) -> Other {
    if force { Other::Remove } else { Other::Refuse }
}

/// Adds to the refusal of an output of another making what would replace it.
///
/// # Errors
///
/// That of `result`.
pub fn offered<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let refusal = error.downcast_ref::<IdentityError>().filter(|e| e.is_other_making());
        match refusal.map(|refusal| refusal.to_string()) {
            Some(refusal) => anyhow!("{refusal}; --force replaces it"),
            None => error,
        }
    })
}
