//! How a face (command line, window, page) tells an error of this library in its own words.
//!
//! Errors carry settings, files and devices as data. What those are called, and what a person can do about
//! it, is the face's: `--vae` here, a button there.

use std::error::Error;

use crate::device::DeviceError;
use crate::generate::{GenerateError, LoadError};
use crate::labels::LabelError;
use crate::precision::Precision;
use crate::settings::{InvalidSetting, Setting};
use crate::weights::{Part, WeightsError};

/// What a person can do about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Hand over a file.
    Give(Part),
    /// Build the program with a cargo feature.
    Rebuild {
        /// The feature.
        feature: String,
    },
    /// Let the program choose a device.
    ChooseDevice,
    /// Look at the list of classes.
    ListClasses,
    /// Compute in one of these dtypes; there is at least one.
    ComputeIn(Vec<Precision>),
}

impl Remedy {
    /// Dtypes in a sentence: "bf16 or f32".
    pub fn either(precisions: &[Precision]) -> String {
        let names: Vec<&str> = precisions.iter().map(|precision| precision.name()).collect();
        names.join(" or ")
    }
}

/// The words of a face.
pub trait Face {
    /// What it calls a setting, before the value: `--steps`, "Steps".
    fn setting(&self, setting: Setting) -> &'static str;

    /// What it advises: "pass it with --vae". `None` where it has nothing to say.
    fn advice(&self, remedy: &Remedy) -> Option<String>;
}

/// The sentence of one error (without its sources) in the words of a face.
pub fn sentence(error: &(dyn Error + 'static), face: &dyn Face) -> String {
    let error = innermost(error);
    if let Some(InvalidSetting { setting, problem }) = error.downcast_ref() {
        return format!("{} {problem}", face.setting(*setting));
    }
    match remedy(error).and_then(|remedy| face.advice(&remedy)) {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    }
}

/// The error that an enum of errors passes on unchanged.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let inner: Option<&(dyn Error + 'static)> =
        if let Some(error) = error.downcast_ref::<LoadError>() {
            match error {
                LoadError::Weights(error) => Some(error),
                LoadError::Setting(error) => Some(error),
                _ => None,
            }
        } else if let Some(GenerateError::Request(error)) = error.downcast_ref() {
            Some(error)
        } else {
            None
        };
    inner.unwrap_or(error)
}

/// What can be done about an error.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<Remedy> {
    if let Some(error) = error.downcast_ref::<LoadError>() {
        return error.part().map(Remedy::Give);
    }
    if let Some(error) = error.downcast_ref::<WeightsError>() {
        return error.part().map(Remedy::Give);
    }
    if let Some(GenerateError::NotFinite { instead, .. }) = error.downcast_ref() {
        return Some(Remedy::ComputeIn(instead.clone())).filter(|_| !instead.is_empty());
    }
    if let Some(error) = error.downcast_ref::<DeviceError>() {
        return match error {
            DeviceError::NotBuilt(feature) => Some(Remedy::Rebuild { feature: feature.clone() }),
            DeviceError::Missing(..) => Some(Remedy::ChooseDevice),
            DeviceError::Unknown(_) => None,
        };
    }
    match error.downcast_ref() {
        Some(LabelError::Unknown { near, .. }) if near.is_empty() => Some(Remedy::ListClasses),
        _ => None,
    }
}
