//! The number format that a network computes in.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device, FloatDType};
use serde::{Deserialize, Serialize};

/// Number format of a network; autoencoders always run in float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit
    #[default]
    F32,
    /// 16-bit, for GPUs that have it
    F16,
    /// 16-bit with the range of 32, for GPUs that have it
    Bf16,
}

/// A format that a device does not compute in, or that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrecisionError {
    /// The device lacks it.
    #[error("--precision {0} is not supported by this device; use f32")]
    Unsupported(Precision),
    /// Not a name of a format.
    #[error("{0:?} is not f32, f16 or bf16")]
    Unknown(String),
}

impl Precision {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The type, if the device has it.
    pub fn on(self, device: &Device) -> Result<FloatDType, PrecisionError> {
        let dtype = self.dtype();
        match device.supports_dtype(DType::from(dtype)) {
            true => Ok(dtype),
            false => Err(PrecisionError::Unsupported(self)),
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
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(text: &str) -> Result<Self, PrecisionError> {
        let known = Self::ALL.into_iter().find(|p| p.to_string() == text);
        known.ok_or_else(|| PrecisionError::Unknown(text.into()))
    }
}
