//! What a page asks for.

use serde::Deserialize;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{ImageSpec, Request, Sampler, Settings};
use tintype::labels::{LabelError, Labels};
use tintype::model::Architecture;
use tintype::settings::{InvalidSetting, KarrasOptions, Problem, Range, Setting, TimeGrid};

/// Options of `generate`, as the command line has them; what is absent is the model's default.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ask {
    /// The class; the null class of a model with classes where absent.
    pub class: Option<Class>,
    /// Seed of the first picture.
    #[serde(deserialize_with = "tintype::settings::seed::deserialize")]
    pub seed: u64,
    /// Number of the picture under this seed.
    pub index: u64,
    /// How many pictures, of consecutive seeds.
    pub count: u64,
    /// Steps of the sampler.
    pub steps: Option<usize>,
    /// The sampler, by the command line's name.
    pub sampler: Option<String>,
    /// Guidance scale; 1 is off, 0 leaves the class out.
    pub cfg: Option<f64>,
    /// The times that guidance acts in, 1 is noise.
    pub cfg_interval: Option<[f64; 2]>,
    /// How many channels guidance acts on.
    pub cfg_channels: Option<usize>,
    /// LightningDiT's time shift.
    pub shift: Option<f64>,
    /// Grid of a flow's times, by the command line's name.
    pub times: Option<String>,
    /// Cosine of the two predictions at which guidance ends.
    pub cfg_adaptive: Option<f64>,
    /// Options of k-diffusion's samplers.
    pub karras: KarrasOptions,
    /// The time below which a Hi-DiT's pixels take part.
    pub tau: Option<f64>,
    /// Whether a Hi-DiT also decodes its latent.
    pub compare: bool,
    /// Whether steps show the picture so far.
    pub preview: bool,
}

/// A class by its place in the list, counted from 0, or by what a person types: name, synonym, part of a name or
/// number.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
#[allow(missing_docs)] // the documentation of the type says it
pub enum Class {
    Number(usize),
    Name(String),
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)] // the errors say it
pub enum AskError {
    #[error(transparent)]
    Class(#[from] LabelError),
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
}

impl AskError {
    /// The library's error.
    pub fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::Class(error) => error,
            Self::Setting(error) => error,
        }
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            class: None,
            seed: 0,
            index: 0,
            count: 1,
            steps: None,
            sampler: None,
            cfg: None,
            cfg_interval: None,
            cfg_channels: None,
            shift: None,
            times: None,
            cfg_adaptive: None,
            karras: KarrasOptions::NONE,
            tau: None,
            compare: false,
            preview: true,
        }
    }
}

/// Images of one request: more than anybody waits for.
const COUNT: Range = Range { min: 1.0, max: 10_000.0 };

impl Ask {
    /// The request that the command line would make of the same options.
    ///
    /// # Errors
    ///
    /// * [`AskError::Class`]: the model has no such class.
    /// * [`AskError::Setting`]: a setting is unknown, out of range, or does not apply to the
    ///   network.
    pub fn request(
        &self,
        architecture: &Architecture,
        labels: &Labels,
    ) -> Result<Request, AskError> {
        let class = match &self.class {
            None => None,
            Some(Class::Number(place)) => Some(labels.at(*place)?),
            Some(Class::Name(name)) => Some(labels.find(name)?),
        };
        let count = self.count as f64;
        if !COUNT.contains(count) {
            let problem = Problem::OutOfRange { value: count, range: COUNT };
            return Err(Setting::Count.invalid(problem).into());
        }
        let defaults = architecture.default_settings();
        let sampler = match &self.sampler {
            None => defaults.sampler,
            Some(name) => Sampler::from_name(name)?,
        };
        let times = match &self.times {
            None => defaults.times,
            Some(name) => TimeGrid::from_name(name)?,
        };
        let [low, high] =
            self.cfg_interval.unwrap_or([defaults.guidance.low, defaults.guidance.high]);
        let settings = Settings {
            sampler,
            steps: self.steps.unwrap_or(defaults.steps),
            guidance: Guidance {
                scale: self.cfg.unwrap_or(defaults.guidance.scale),
                low,
                high,
                channels: self.cfg_channels.or(defaults.guidance.channels),
            },
            shift: self.shift.unwrap_or(defaults.shift),
            times,
            agreement: self.cfg_adaptive.or(defaults.agreement),
            karras: self.karras.or(defaults.karras),
            tau: self.tau,
            keep_latent: self.compare,
        };
        let spec = |k| ImageSpec::new(class, self.seed.wrapping_add(k), self.index);
        let request = Request { settings, images: (0..self.count).map(spec).collect() };
        request.validate(architecture)?;
        Ok(request)
    }
}
