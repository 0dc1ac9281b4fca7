//! What can be set about a sampling run: names, ranges and meaning in one place, for the command line, the
//! window and the page alike.

use std::fmt;

/// Something that a person sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Classes of the images.
    Class,
    /// Images of each class, 1 to 1 000 000.
    Count,
    /// The sampler.
    Sampler,
    /// Sampling steps, 1 to 10 000.
    Steps,
    /// Scale of classifier-free guidance, 0 or more; 1 is none, 0 leaves the class out. Of iMF and pMF 1 or more.
    GuidanceScale,
    /// Interval in which guidance acts: times in 0…1 (1 is noise, 0 is data), or noise levels σ of a
    /// denoiser.
    GuidanceInterval,
    /// Leading channels that guidance acts on, 1 or more.
    GuidanceChannels,
    /// Time shift of a flow (LightningDiT, DiT-DH), 0 or more: below 1, more of the steps at high noise; 0 is none.
    TimeShift,
    /// Time in 0…1 (1 is noise) below which Hi-DiT's pixel stream is active, τ in the paper.
    GateTime,
    /// Dtype of the network.
    Precision,
    /// Grid of a flow's times.
    Times,
    /// Cosine, 0 to 1, of the two predictions at which guidance ends.
    GuidanceAgreement,
    /// Share of the SDE's noise, 0 to 1.
    Eta,
    /// Factor on added noise, 0 or more.
    NoiseScale,
    /// EDM's churn, 0 or more.
    Churn,
    /// Lowest noise level with churn, 0 or more.
    ChurnMin,
    /// Highest noise level with churn, 0 or more.
    ChurnMax,
    /// ρ of Karras et al.'s noise levels, 0.1 to 100.
    Rho,
    /// Lowest noise level, 0.0001 or more.
    SigmaMin,
    /// Highest noise level, 0.0001 or more.
    SigmaMax,
    /// Interpolation from an image's seed, 0, to another, 1.
    Blend,
}

/// Values that a setting may have, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest value.
    pub min: f64,
    /// Largest value; infinite where there is none.
    pub max: f64,
}

impl Range {
    /// Whether a value lies in it; NaN lies in none, and infinity is no value.
    pub fn contains(self, value: f64) -> bool {
        value.is_finite() && self.min <= value && value <= self.max
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max.is_finite() {
            true => write!(f, "between {} and {}", self.min, self.max),
            false => write!(f, "{} or more", self.min),
        }
    }
}

impl Setting {
    /// Every setting.
    pub const ALL: [Self; 21] = [
        Self::Class,
        Self::Count,
        Self::Sampler,
        Self::Steps,
        Self::GuidanceScale,
        Self::GuidanceInterval,
        Self::GuidanceChannels,
        Self::TimeShift,
        Self::GateTime,
        Self::Precision,
        Self::Times,
        Self::GuidanceAgreement,
        Self::Eta,
        Self::NoiseScale,
        Self::Churn,
        Self::ChurnMin,
        Self::ChurnMax,
        Self::Rho,
        Self::SigmaMin,
        Self::SigmaMax,
        Self::Blend,
    ];

    /// What the field calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Count => "count",
            Self::Sampler => "sampler",
            Self::Steps => "steps",
            Self::GuidanceScale => "guidance scale",
            Self::GuidanceInterval => "guidance interval",
            Self::GuidanceChannels => "guidance channels",
            Self::TimeShift => "time shift",
            Self::GateTime => "gate time τ",
            Self::Precision => "precision",
            Self::Times => "times",
            Self::GuidanceAgreement => "guidance agreement",
            Self::Eta => "η",
            Self::NoiseScale => "noise scale",
            Self::Churn => "churn",
            Self::ChurnMin => "churn's lowest σ",
            Self::ChurnMax => "churn's highest σ",
            Self::Rho => "ρ",
            Self::SigmaMin => "σ_min",
            Self::SigmaMax => "σ_max",
            Self::Blend => "blend",
        }
    }

    /// What it does, in a line for help and tooltips.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Class => "Classes by name, part of a name or number",
            Self::Count => "Images of each class, of consecutive seeds",
            Self::Sampler => "Sampler that integrates from noise to the image",
            Self::Steps => "Sampling steps",
            Self::GuidanceScale => {
                "Guidance scale of classifier-free guidance; 1 is off, 0 leaves the class out"
            }
            Self::GuidanceInterval => {
                "Apply guidance only between these times (1 is noise, 0 is data) or, for HDiT, noise levels"
            }
            Self::GuidanceChannels => {
                "Apply guidance only to the first channels (LightningDiT's published FIDs use 3)"
            }
            Self::TimeShift => {
                "Time shift of a flow: below 1, more of the steps at high noise; 0 is off"
            }
            Self::GateTime => "Time below which Hi-DiT's pixel stream is active",
            Self::Precision => "Dtype of the network; the autoencoder always computes in f32",
            Self::Times => {
                "Times of a flow's steps: uniform, logit-normal (short in the middle) or karras (short at the ends)"
            }
            Self::GuidanceAgreement => {
                "End guidance for an image once its two predictions agree to this cosine, such as 0.999"
            }
            Self::Eta => {
                "Share of the noise of ancestral and SDE samplers: 0 is deterministic, 1 all"
            }
            Self::NoiseScale => "Factor on the noise that a sampler adds",
            Self::Churn => "EDM's churn of euler, heun and dpm-2; 0 is none",
            Self::ChurnMin => "Lowest noise level with churn",
            Self::ChurnMax => "Highest noise level with churn",
            Self::Rho => "Spacing ρ of Karras noise levels: larger ones make more of them low",
            Self::SigmaMin => "Lowest of the Karras noise levels",
            Self::SigmaMax => "Highest of the Karras noise levels",
            Self::Blend => "Interpolation from one seed's noise, 0, to another's, 1",
        }
    }

    /// The values that it may have, for settings that are numbers.
    pub const fn range(self) -> Option<Range> {
        let (min, max) = match self {
            Self::Count => (1.0, 1_000_000.0),
            Self::Steps => (1.0, 10_000.0),
            Self::GuidanceScale | Self::GuidanceInterval | Self::TimeShift => (0.0, f64::INFINITY),
            Self::NoiseScale | Self::Churn | Self::ChurnMin | Self::ChurnMax => {
                (0.0, f64::INFINITY)
            }
            Self::GuidanceChannels => (1.0, f64::INFINITY),
            Self::GateTime | Self::GuidanceAgreement | Self::Eta | Self::Blend => (0.0, 1.0),
            Self::Rho => (0.1, 100.0),
            Self::SigmaMin | Self::SigmaMax => (0.0001, f64::INFINITY),
            Self::Class | Self::Sampler | Self::Precision | Self::Times => return None,
        };
        Some(Range { min, max })
    }

    /// The part of [`range`](Self::range) that is useful, for a slider.
    pub const fn slider(self) -> Option<Range> {
        let (min, max) = match self {
            Self::Count => (1.0, 64.0),
            Self::Steps => (1.0, 500.0),
            Self::GuidanceScale => (1.0, 12.0),
            Self::TimeShift => (0.0, 2.0),
            Self::GateTime => (0.0, 1.0),
            _ => return None,
        };
        Some(Range { min, max })
    }

    /// Checks a number against [`range`](Self::range).
    ///
    /// # Errors
    ///
    /// [`Problem::OutOfRange`] where the value is outside, infinite or NaN. Settings without a range take
    /// all.
    pub fn check(self, value: f64) -> Result<(), InvalidSetting> {
        match self.range() {
            Some(range) if !range.contains(value) => {
                Err(self.invalid(Problem::OutOfRange { value, range }))
            }
            _ => Ok(()),
        }
    }

    /// The error of this setting.
    pub fn invalid(self, problem: Problem) -> InvalidSetting {
        InvalidSetting { setting: self, problem }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A setting that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} {problem}")]
pub struct InvalidSetting {
    /// The setting.
    pub setting: Setting,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a setting; reads on after its name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A number outside of the setting's range.
    #[error("{value} is not {range}")]
    OutOfRange {
        /// The number.
        value: f64,
        /// What it may be.
        range: Range,
    },
    /// A sampler that needs more steps.
    #[error("{steps} is too few for {sampler}, which takes {least} or more")]
    TooFewSteps {
        /// The steps.
        steps: usize,
        /// The sampler.
        sampler: &'static str,
        /// What it takes.
        least: usize,
    },
    /// Ends in the wrong order, or no numbers.
    #[error("{low} {high} is not an interval")]
    NotAnInterval {
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// The network has nothing that could be set.
    #[error("does not apply to {network}")]
    NotOf {
        /// The network.
        network: &'static str,
    },
    /// The sampler has no use for it.
    #[error("does not apply to {sampler}")]
    NotOfSampler {
        /// The sampler.
        sampler: &'static str,
    },
    /// The grid of times has no use for it.
    #[error("does not apply to {times} times")]
    NotOfTimes {
        /// The grid.
        times: &'static str,
    },
    /// Guidance without anything to guide by.
    #[error("{scale} needs classes, which this {network} does not have; only 1 (off) fits")]
    Classless {
        /// The guidance scale.
        scale: f64,
        /// The network.
        network: &'static str,
    },
    /// There is no such sampler, or no such grid.
    #[error("{given:?} is unknown; use {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        given: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The sampler is one of other networks.
    #[error("{sampler} does not fit {network}; use {}", .fitting.join(", "))]
    Unfit {
        /// The sampler.
        sampler: &'static str,
        /// The network.
        network: &'static str,
        /// The network's samplers.
        fitting: Vec<&'static str>,
    },
    /// A class beyond the last.
    #[error("{class} does not exist; {}", classes(*.count))]
    NoSuchClass {
        /// The class.
        class: usize,
        /// How many there are.
        count: usize,
    },
    /// Guidance of a network without a null class.
    #[error(
        "{scale} is not possible: the network was trained without class dropout, so it has no unconditional prediction; 1 is off"
    )]
    NoUnconditional {
        /// The scale.
        scale: f64,
    },
    /// No class, of a network without a null class.
    #[error(
        "is needed: the network was trained without class dropout, so it has no unconditional prediction"
    )]
    NeedsClass,
    /// The device does not compute in this dtype.
    #[error("{dtype} is not supported by this device; use f32")]
    Unsupported {
        /// The dtype.
        dtype: &'static str,
    },
}

fn classes(count: usize) -> String {
    match count.checked_sub(1) {
        Some(last) => format!("they run from 0 to {last}"),
        None => "the model has no classes".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked_against_their_range() {
        assert_eq!(Setting::Steps.check(1.0), Ok(()));
        let message = |setting: Setting, value| setting.check(value).unwrap_err().to_string();
        assert_eq!(message(Setting::Steps, 0.0), "steps 0 is not between 1 and 10000");
        assert_eq!(message(Setting::GuidanceScale, -0.5), "guidance scale -0.5 is not 0 or more");
        assert_eq!(message(Setting::GateTime, 1.5), "gate time τ 1.5 is not between 0 and 1");
        assert_eq!(message(Setting::Blend, f64::NAN), "blend NaN is not between 0 and 1");
        for value in [f64::NAN, f64::INFINITY] {
            assert!(Setting::GuidanceScale.check(value).is_err());
        }
        assert_eq!(Setting::Sampler.check(f64::NAN), Ok(()));
    }

    #[test]
    fn sliders_stay_in_range() {
        for setting in Setting::ALL {
            if let Some(slider) = setting.slider() {
                let range = setting.range().expect("only numbers have sliders");
                assert!(range.contains(slider.min) && range.contains(slider.max), "{setting}");
            }
        }
    }
}
