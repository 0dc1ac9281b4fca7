//! A loaded model that makes pictures.

use std::collections::BTreeMap;

use serde::Serialize;
use tintype::device::{Found, Kind};
use tintype::generate::{
    Event, Fingerprints, GenerateError, Half, HalfError, LatentMap, LoadError, Origin, Parts,
    Picture, Pipeline, Previewer, Rows, SecondHalf, Settings,
};
use tintype::image::Rgb;
use tintype::model::Process;
use tintype::precision::Precision;
use tintype::sampler::Stop;
use tintype::settings::{Quality, Setting};
use tintype::weights::{Dtype, Weights};

use crate::ask::{Ask, AskError};
use crate::face::field;
use crate::fields::{Field, fields};

/// Pictures made together on a GPU; a processor is as fast with one, and shows it sooner.
const GPU_BATCH: usize = 4;

/// A model on a device.
#[derive(Debug)]
pub struct Session {
    pipeline: Pipeline,
    fingerprints: Fingerprints,
    device: String,
    precision: Precision,
    batch: usize,
    map: LatentMap,
    averages: Vec<String>,
    unused: Vec<String>,
}

/// What a page needs to know about a model.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The network: Hi-DiT, SiT, LightningDiT, DiT-DH, JiT, HDiT, iMF, pMF.
    pub architecture: &'static str,
    /// Averages that its file holds, in the order of their numbers; empty where there is nothing to choose.
    pub averages: Vec<String>,
    /// Fingerprint of its weights.
    pub fingerprint: String,
    /// The classes by name, in the order of their numbers.
    pub classes: Vec<String>,
    /// Width and height of the pictures.
    pub image_size: [usize; 2],
    /// The time below which a Hi-DiT's pixels take part.
    pub gate: Option<f64>,
    /// What the authors sample with.
    pub defaults: Defaults,
    /// Useful ranges of the settings, `[min, max]` by field.
    pub ranges: BTreeMap<&'static str, [f64; 2]>,
    /// Whether it predicts without a class, too, and so can be guided.
    pub guided: bool,
    /// The settings that only some networks and samplers have.
    pub fields: Vec<Field>,
    /// The samplers of the network.
    pub samplers: Vec<String>,
    /// Evaluations of the network that a step takes without guidance, by sampler; `None` where the sampler
    /// chooses its steps.
    pub evaluations: BTreeMap<&'static str, Option<usize>>,
    /// Steps and sampler together, the fastest first; several may be the same.
    pub qualities: Vec<Preset>,
    /// Whether it is made for one evaluation a picture, with guidance as one of its inputs: pictures can follow every
    /// change.
    pub one_step: bool,
    /// Where it computes: `webgpu` or `cpu`.
    pub device: String,
    /// Its dtype.
    pub precision: Precision,
    /// Tensors in the files that the networks have no use for.
    pub unused: Vec<String>,
}

/// What a [`Quality`] means for a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The sampler.
    pub sampler: &'static str,
    /// Its steps.
    pub steps: usize,
}

/// Settings by the names that requests use.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // see `Ask`
pub struct Defaults {
    pub sampler: String,
    pub steps: usize,
    pub cfg: f64,
    pub cfg_interval: [f64; 2],
    pub cfg_channels: Option<usize>,
    pub shift: f64,
}

/// What happens while a request is worked on.
#[derive(Debug)]
pub enum Update {
    /// A step is about to be taken.
    Step {
        /// Counted from 0.
        index: usize,
        /// How many there are; unknown to adaptive samplers.
        total: Option<usize>,
        /// Time of a flow (1 is noise), noise level of a denoiser.
        time: f64,
        /// Whether the pixel stream is at work.
        pixels: bool,
        /// The first of the pictures in hand.
        first: usize,
        /// The pictures in hand so far; empty where none were asked for.
        previews: Vec<Rgb>,
    },
    /// A picture is finished.
    Picture {
        /// Its place in the request.
        index: usize,
        /// How it was made.
        origin: Box<Origin>,
        /// The picture.
        image: Rgb,
        /// The decoded latent, where the request asked for it.
        latent: Option<Rgb>,
        /// A PNG file that carries `origin`.
        png: Vec<u8>,
    },
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the errors say it
pub enum SessionError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl SessionError {
    /// The library's error.
    pub fn cause(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Self::Ask(error) => error.cause(),
            Self::Generate(error) => error,
        }
    }
}

impl Session {
    /// Loads a model. Without a precision it is the dtype of the weights where a GPU computes in it,
    /// else float32.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the parts cannot be read, do not fit each other or the memory, or if the
    /// device does not compute in the precision.
    pub fn load(
        parts: Parts<'_>,
        wish: Option<Precision>,
        found: &Found,
    ) -> Result<Self, LoadError> {
        let precision = wish.unwrap_or_else(|| natural(parts.model, found));
        let pipeline = Pipeline::load(parts, precision.on(&found.device)?, &found.device)?;
        let unused = pipeline.reports().iter().flat_map(|(_, report)| report.unexpected.clone());
        Ok(Self {
            fingerprints: Fingerprints::of(parts),
            device: found.id.clone(),
            precision,
            batch: if found.kind == Kind::Processor { 1 } else { GPU_BATCH },
            map: LatentMap::new(pipeline.latent_channels().unwrap_or(0)),
            averages: parts.model.averages(),
            unused: unused.collect(),
            pipeline,
        })
    }

    /// What a page needs to know.
    pub fn info(&self) -> Info {
        let architecture = self.pipeline.architecture();
        let settings = architecture.default_settings();
        let Settings { sampler, steps, guidance, shift, .. } = settings;
        let preset = |quality: Quality| {
            let Settings { sampler, steps, .. } = quality.apply(settings, architecture);
            Preset { name: quality.name(), sampler: sampler.name(), steps }
        };
        let samplers = architecture.samplers();
        let labels = self.pipeline.labels();
        let range = |setting: Setting| {
            let range = match setting {
                // Useful from one end to the other.
                Setting::Blend => setting.range()?,
                _ => setting.slider()?,
            };
            Some((field(setting), range))
        };
        let ranges = Setting::ALL.into_iter().filter_map(range);
        Info {
            architecture: architecture.name(),
            averages: self.averages.clone(),
            fingerprint: self.fingerprints.model.clone(),
            classes: (0..labels.len()).map(|class| labels.name(class)).collect(),
            image_size: self.pipeline.image_size(),
            gate: self.pipeline.gate(),
            defaults: Defaults {
                sampler: sampler.name().into(),
                steps,
                cfg: guidance.scale,
                cfg_interval: [guidance.low, guidance.high],
                cfg_channels: guidance.channels,
                shift,
            },
            ranges: ranges.map(|(field, range)| (field, [range.min, range.max])).collect(),
            guided: architecture.null_class().is_some(),
            fields: fields(architecture),
            samplers: samplers.iter().map(|s| s.name().into()).collect(),
            evaluations: samplers.iter().map(|s| (s.name(), s.evaluations())).collect(),
            qualities: Quality::ALL.map(preset).to_vec(),
            one_step: matches!(architecture.process(), Process::MeanFlow),
            device: self.device.clone(),
            precision: self.precision,
            unused: self.unused.clone(),
        }
    }

    /// Has the second half of guidance computed by a second worker if there is one.
    pub fn share(&mut self, second_half: SecondHalf) {
        self.pipeline.share(second_half);
    }

    /// Computes the second half of guidance for a session with the same model.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::second_half`].
    pub async fn second_half(&self, half: Half) -> Result<Vec<Rows>, HalfError> {
        self.pipeline.second_half(half).await
    }

    /// Makes what is asked for; `tell` may stop it.
    ///
    /// # Errors
    ///
    /// * [`SessionError::Ask`]: the request is invalid.
    /// * [`SessionError::Generate`]: `tell` stopped it, the device failed, or the network computed NaN.
    pub async fn generate(
        &mut self,
        ask: &Ask,
        tell: &mut impl AsyncFnMut(Update) -> Result<(), Stop>,
    ) -> Result<(), SessionError> {
        let Self { pipeline, map, .. } = self;
        let request = ask.request(pipeline.architecture(), pipeline.labels())?;
        let origin = |picture: &Picture| Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            weights: self.fingerprints.clone(),
            class_name: picture.spec.class.map_or("none".into(), |c| pipeline.labels().name(c)),
            spec: picture.spec,
            settings: Settings { keep_latent: false, ..request.settings },
            precision: self.precision,
            device: self.device.clone(),
        };
        for (number, batch) in request.images.chunks(self.batch).enumerate() {
            let first = number * self.batch;
            let request = tintype::generate::Request { images: batch.to_vec(), ..request.clone() };
            let mut previewer = Previewer::new(pipeline, map);
            let mut on_event = async |event: Event<'_>| match event {
                Event::Step { index, total, time, preview } => {
                    let pixels = preview.pixels.is_some();
                    let previews = match ask.preview {
                        false => Vec::new(),
                        true => {
                            let images = previewer.images(preview).await?;
                            pipeline.pictures(images).await?
                        }
                    };
                    tell(Update::Step { index, total, time, pixels, first, previews }).await
                }
                Event::Image(picture) => {
                    let origin = Box::new(origin(&picture));
                    let png = origin.to_png(&picture.image);
                    // 8-bit pictures always encode; should one not, the run ends with the reason.
                    let png = png.map_err(|e| Stop::Device(e.to_string()))?;
                    let Picture { index, image, latent, .. } = picture;
                    tell(Update::Picture { index: first + index, origin, image, latent, png }).await
                }
            };
            pipeline.generate(&request, &mut on_event).await?;
        }
        Ok(())
    }
}

/// The dtype of most weights, where a GPU computes in it.
fn natural(model: &Weights, found: &Found) -> Precision {
    let half = model.tensors.values().filter(|view| view.dtype == Dtype::F16).count();
    let mostly = 2 * half > model.tensors.len();
    match mostly && found.kind != Kind::Processor && Precision::F16.on(&found.device).is_ok() {
        true => Precision::F16,
        false => Precision::F32,
    }
}
