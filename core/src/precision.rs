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

    /// That of Burn's name; everything wider than 16 bits counts as 32-bit float.
    pub(crate) fn of(dtype: FloatDType) -> Self {
        match dtype {
            FloatDType::F16 => Self::F16,
            FloatDType::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// What to compute in where values leave the range of this one, the narrowest first: float16 ends at
    /// 65 504, bfloat16 at 99.6 % of where float32 does.
    pub const fn wider(self) -> &'static [Self] {
        match self {
            Self::F16 => &[Self::Bf16, Self::F32],
            Self::Bf16 => &[Self::F32],
            Self::F32 => &[],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_instead_is_another() {
        for precision in Precision::ALL {
            assert!(!precision.wider().contains(&precision));
            assert_eq!(Precision::of(precision.dtype()), precision);
        }
        assert_eq!(Precision::F16.wider(), [Precision::Bf16, Precision::F32]);
        assert_eq!(Precision::of(FloatDType::F64), Precision::F32);
    }
}
