//! The golden runner: recognises files of reference values by their names, computes every
//! quantity in them with Tintype, and compares.
//!
//! A file is a [`golden::Golden`]; a family of files is a function in [`family`]; what was compared
//! with what success is a [`check::Checks`].
#![recursion_limit = "256"]

pub mod check;
pub mod family;
pub mod golden;
pub mod recipe;

use std::path::{Path, PathBuf};

use tintype::burn::tensor::Device;

pub use check::Checks;

/// The kind of a path.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A file whose values depend on the device.
    OnDevice(family::OnDevice),
    /// A file or folder whose values are the same with every device.
    OnHost(family::OnHost),
    /// Documentation or a part of another entry.
    Aside,
}

/// Every entry of a folder of goldens with its kind; `None` for one of no known family.
///
/// # Errors
///
/// If the folder cannot be listed.
pub fn entries(folder: &Path) -> anyhow::Result<Vec<(PathBuf, Option<Kind>)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = family::recognise(&name, path.is_dir());
        entries.push((path, kind));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Computes an entry, on a device where it takes one, and compares every quantity in it.
///
/// # Errors
///
/// If the entry cannot be read or computed, or not every expected value was compared. A value
/// outside its tolerance is recorded in the [`Checks`], not an error.
pub fn run(path: &Path, kind: Kind, device: &Device) -> anyhow::Result<Checks> {
    let mut checks = Checks::new(path)?;
    match kind {
        Kind::OnDevice(run) => run(path, device, &mut checks)?,
        Kind::OnHost(run) => run(path, &mut checks)?,
        Kind::Aside => {}
    }
    checks.finish()?;
    Ok(checks)
}
