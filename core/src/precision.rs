//! The dtype that a network computes in.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device, FloatDType};
use serde::{Deserialize, Serialize};

use crate::settings::{InvalidSetting, Problem, Setting};

/// Dtype of a network; autoencoders always compute in float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    #[default]
    F32,
    /// 16-bit float, for GPUs that have it.
    F16,
    /// 16-bit float with the range of 32, for GPUs that have it.
    Bf16,
}

/// Not the name of a dtype.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not f32, f16 or bf16")]
pub struct UnknownPrecision(pub String);

impl Precision {
    /// Every dtype.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The dtype, if the device computes in it.
    ///
    /// # Errors
    ///
    /// [`Problem::Unsupported`] of [`Setting::Precision`].
    pub fn on(self, device: &Device) -> Result<FloatDType, InvalidSetting> {
        let dtype = self.dtype();
        match device.supports_dtype(DType::from(dtype)) {
            true => Ok(dtype),
            false => Err(Setting::Precision.invalid(Problem::Unsupported { dtype: self.name() })),
        }
    }

    /// `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Burn's name for it.
    pub fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        let known = Self::ALL.into_iter().find(|p| p.name() == text);
        known.ok_or_else(|| UnknownPrecision(text.into()))
    }
}
