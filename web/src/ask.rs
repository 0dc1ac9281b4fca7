//! What a page asks for.

use serde::Deserialize;
use tintype::diffusion::guidance::Guidance;
use tintype::generate::{ImageSpec, Request, Sampler, Settings, between};
use tintype::labels::{LabelError, Labels};
use tintype::model::Architecture;
use tintype::noise::Blend;
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
    /// Another seed whose noise has a share in that of every picture.
    pub blend: Option<Blend>,
    /// The last seed of pictures that lie evenly between two, in place of consecutive seeds; the first is `seed`.
    pub to_seed: Option<u64>,
    /// Steps of the sampler.
    pub steps: Option<usize>,
    /// The sampler, by the command line's name.
    pub sampler: Option<String>,
    /// Guidance scale; 1 is off, 0 leaves the class out.
    pub cfg: Option<f64>,
    /// The times that guidance acts in, 1 is noise; of a denoiser noise levels.
    pub cfg_interval: Option<[f64; 2]>,
    /// How many channels guidance acts on.
    pub cfg_channels: Option<usize>,
    /// Time shift of a flow, as LightningDiT's: below 1, more of the steps at high noise; 0 is none.
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
    #[error("`toSeed` is of all pictures between two seeds, `blend` of one of them; give only one")]
    BlendAndToSeed,
}

impl AskError {
    /// The library's error, where it is one.
    pub fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::Class(error) => error,
            Self::Setting(error) => error,
            Self::BlendAndToSeed => self,
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
            blend: None,
            to_seed: None,
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
    /// * [`AskError::BlendAndToSeed`]: both are given.
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
        let images = self.images(class)?;
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
            shift: defaults.shift,
            times,
            agreement: self.cfg_adaptive.or(defaults.agreement),
            karras: self.karras.or(defaults.karras),
            tau: self.tau,
            keep_latent: self.compare,
        };
        let request = Request { settings: settings.with_shift(self.shift)?, images };
        request.validate(architecture)?;
        Ok(request)
    }

    /// Pictures of consecutive seeds, or between two.
    fn images(&self, class: Option<usize>) -> Result<Vec<ImageSpec>, AskError> {
        let range = match self.to_seed {
            // Both seeds have one.
            Some(_) => Range { min: 2.0, ..COUNT },
            None => COUNT,
        };
        let count = self.count as f64;
        if !range.contains(count) {
            return Err(Setting::Count.invalid(Problem::OutOfRange { value: count, range }).into());
        }
        match (self.to_seed, self.blend) {
            (Some(_), Some(_)) => Err(AskError::BlendAndToSeed),
            (Some(to), None) => {
                Ok(between(class, [self.seed, to], self.index, self.count as usize))
            }
            (None, blend) => {
                let spec = |k| {
                    let own = ImageSpec::new(class, self.seed.wrapping_add(k), self.index);
                    ImageSpec { blend, ..own }
                };
                Ok((0..self.count).map(spec).collect())
            }
        }
    }
}
