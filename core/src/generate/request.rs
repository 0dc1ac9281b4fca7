//! What somebody asks for; serialises into every picture.

use serde::{Deserialize, Serialize};

use crate::diffusion::guidance::Guidance;
use crate::model::{Architecture, Process};
use crate::noise::Blend;
use crate::settings::{InvalidSetting, Problem, Range, Setting, Settings, TimeGrid};

/// One picture of a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The class, counted from 0; absent for none (the null class, or a model without classes). A network
    /// that was trained without class dropout needs one.
    pub class: Option<usize>,
    /// The seed.
    pub seed: u64,
    /// The number of the picture under this seed, counted from 0.
    #[serde(default)]
    pub index: u64,
    /// Interpolation towards another seed's noise; absent for the picture of one seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blend: Option<Blend>,
}

impl ImageSpec {
    /// A picture of one seed.
    pub const fn new(class: Option<usize>, seed: u64, index: u64) -> Self {
        Self { class, seed, index, blend: None }
    }
}

/// Pictures that are made together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// How.
    pub settings: Settings,
    /// Which.
    pub images: Vec<ImageSpec>,
}

impl Settings {
    /// Checks the settings against a network.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] with the first setting that is out of range or does not apply to the network:
    /// [`Problem::OutOfRange`], [`Problem::TooFewSteps`], [`Problem::Classless`],
    /// [`Problem::NoUnconditional`], [`Problem::NotAnInterval`], [`Problem::NotOf`], [`Problem::NotOfSampler`],
    /// [`Problem::NotOfTimes`] or [`Problem::Unfit`].
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidSetting> {
        self.validate_with(architecture, None)
    }

    /// Checks the settings against a network and its guide, which lets networks be guided that have no unconditional
    /// prediction.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn validate_with(
        &self,
        architecture: &Architecture,
        guide: Option<&Architecture>,
    ) -> Result<(), InvalidSetting> {
        let Guidance { scale, low, high, channels } = self.guidance;
        Setting::Steps.check(self.steps as f64)?;
        let sampler = self.sampler.name();
        if self.steps < self.sampler.least_steps() {
            let (steps, least) = (self.steps, self.sampler.least_steps());
            return Err(Setting::Steps.invalid(Problem::TooFewSteps { steps, sampler, least }));
        }
        Setting::GuidanceScale.check(scale)?;
        if scale != 1.0 && guide.is_none() && architecture.null_class().is_none() {
            let network = architecture.name();
            return Err(Setting::GuidanceScale.invalid(match architecture.needs_class() {
                true => Problem::NoUnconditional { scale },
                false => Problem::Classless { scale, network },
            }));
        }
        if low.is_nan() || high.is_nan() || low > high {
            return Err(Setting::GuidanceInterval.invalid(Problem::NotAnInterval { low, high }));
        }
        if let Some(channels) = channels {
            Setting::GuidanceChannels.check(channels as f64)?;
        }
        Setting::TimeShift.check(self.shift)?;
        if let Process::MeanFlow = architecture.process() {
            self.validate_mean_flow(architecture)?;
        }
        if let Some(tau) = self.tau {
            Setting::GateTime.check(tau)?;
            if architecture.process().gate().is_none() {
                let network = architecture.name();
                return Err(Setting::GateTime.invalid(Problem::NotOf { network }));
            }
        }
        if let Some(agreement) = self.agreement {
            Setting::GuidanceAgreement.check(agreement)?;
        }
        self.validate_times(architecture.process(), architecture.name())?;
        let fitting = architecture.samplers();
        if !fitting.contains(&self.sampler) {
            return Err(Setting::Sampler.invalid(Problem::Unfit {
                sampler,
                network: architecture.name(),
                fitting: fitting.iter().map(|s| s.name()).collect(),
            }));
        }
        let (process, network) = (architecture.process(), architecture.name());
        self.karras.validate(process, network, self.sampler, self.times)
    }

    /// Checks what says where a flow's steps lie.
    fn validate_times(
        &self,
        process: Process,
        network: &'static str,
    ) -> Result<(), InvalidSetting> {
        let denoises = matches!(process, Process::Denoiser { .. });
        if self.shift > 0.0 && denoises {
            return Err(Setting::TimeShift.invalid(Problem::NotOf { network }));
        }
        let chosen = self.times != TimeGrid::Uniform;
        if chosen && denoises {
            return Err(Setting::Times.invalid(Problem::NotOf { network }));
        }
        if chosen && !self.sampler.takes_times() {
            let sampler = self.sampler.name();
            return Err(Setting::Times.invalid(Problem::NotOfSampler { sampler }));
        }
        Ok(())
    }

    /// Guidance is an input of such a network, within what it was trained with; there is nothing else to set.
    fn validate_mean_flow(&self, architecture: &Architecture) -> Result<(), InvalidSetting> {
        let Guidance { scale, low, high, channels } = self.guidance;
        let within = |setting: Setting, value: f64, range: Range| match range.contains(value) {
            true => Ok(()),
            false => Err(setting.invalid(Problem::OutOfRange { value, range })),
        };
        let least = architecture.process().least_guidance();
        within(Setting::GuidanceScale, scale, Range { min: least, max: f64::INFINITY })?;
        for end in [low, high] {
            within(Setting::GuidanceInterval, end, Range { min: 0.0, max: 1.0 })?;
        }
        let network = architecture.name();
        if channels.is_some() {
            return Err(Setting::GuidanceChannels.invalid(Problem::NotOf { network }));
        }
        let of_others = [
            (Setting::TimeShift, self.shift > 0.0),
            (Setting::Times, self.times != TimeGrid::Uniform),
            (Setting::GuidanceAgreement, self.agreement.is_some()),
        ];
        match of_others.into_iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) => Err(setting.invalid(Problem::NotOf { network })),
            None => Ok(()),
        }
    }
}

impl Request {
    /// Checks the request against a network.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] as [`Settings::validate`], and
    ///
    /// * [`Problem::OutOfRange`] of [`Setting::Count`] where there are no images or too many
    /// * [`Problem::NoSuchClass`] where a class is beyond the null class, or beyond the last where there
    ///   is none
    /// * [`Problem::NeedsClass`] where an image is of no class and the network was trained without class
    ///   dropout
    /// * [`Problem::OutOfRange`] of [`Setting::Blend`] where an image's amount is not between 0 and 1
    pub fn validate(&self, architecture: &Architecture) -> Result<(), InvalidSetting> {
        self.validate_with(architecture, None)
    }

    /// Checks the request against a network and its guide, of which both have to know the classes.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate) and [`Settings::validate_with`].
    pub fn validate_with(
        &self,
        architecture: &Architecture,
        guide: Option<&Architecture>,
    ) -> Result<(), InvalidSetting> {
        self.settings.validate_with(architecture, guide)?;
        Setting::Count.check(self.images.len() as f64)?;
        for blend in self.images.iter().filter_map(|image| image.blend) {
            Setting::Blend.check(blend.amount)?;
        }
        let count = architecture.num_classes();
        let has_own_null = |guide: &Architecture| guide.null_class() != architecture.null_class();
        let needs_class = architecture.needs_class() || guide.is_some_and(has_own_null);
        if needs_class && self.images.iter().any(|image| image.class.is_none()) {
            return Err(Setting::Class.invalid(Problem::NeedsClass));
        }
        let last = if needs_class { count - 1 } else { count };
        match self.images.iter().filter_map(|i| i.class).find(|&class| class > last) {
            Some(class) => Err(Setting::Class.invalid(Problem::NoSuchClass { class, count })),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures of earlier versions stay readable, and those of one seed say what they said.
    #[test]
    fn a_blend_is_left_out_where_there_is_none() {
        let blend = |amount| Some(Blend { seed: u64::MAX, amount });
        let plain = ImageSpec::new(Some(3), 7, 2);
        let third = r#""blend":{"seed":18446744073709551615,"amount":0.3333333333333333}"#;
        for (spec, more) in [
            (plain, String::new()),
            (ImageSpec { blend: blend(1.0 / 3.0), ..plain }, format!(",{third}")),
        ] {
            let text = serde_json::to_string(&spec).expect("JSON");
            assert_eq!(text, format!(r#"{{"class":3,"seed":7,"index":2{more}}}"#));
            assert_eq!(serde_json::from_str::<ImageSpec>(&text).expect("a picture"), spec);
        }
        // The first pictures had no number under their seed.
        let first = serde_json::from_str::<ImageSpec>(r#"{"class":null,"seed":7}"#);
        assert_eq!(first.expect("a picture"), ImageSpec::new(None, 7, 0));
    }
}
