//! The cache of files that are no Hub's: a folder for each address, or for each content where it is known.

use std::path::PathBuf;

use tintype::catalogue::File;

use crate::check::sha256;
use crate::environment::Environment;

/// Digits of an address's digest that name its folder.
const KEY: usize = 32;

/// Where a file of a plain address lies.
pub(crate) fn place(environment: &Environment, file: &File) -> PathBuf {
    let key = match &file.sha256 {
        Some(digest) => digest.clone(),
        None => sha256(&file.address.to_string())[..KEY].into(),
    };
    environment.cache.join("downloads").join(key).join(file.name())
}
