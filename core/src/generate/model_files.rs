//! A model as people have it: a file or several, or the one inside the program.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::guide::guide_of;
use super::load::{LoadError, Parts, check_parts, image_size, statistics};
use super::pipeline::Pipeline;
use crate::device::Found;
use crate::files::read_text;
use crate::labels::Labels;
use crate::model::{Architecture, autoencoder_config, detect, notes};
use crate::precision::Precision;
use crate::weights::{
    Rename, Report, Weights, WeightsError, autoencoder_in, compare, open, open_autoencoder,
    open_average, renamed,
};

/// The folders of networks in a whole pipeline's.
const PARTS_OF_NETWORKS: [&str; 2] = ["transformer", "unet"];

/// The folder of a part in a folder of a whole pipeline, as diffusers writes it; else the path itself.
fn part_of_pipeline(path: &Path, names: &[&str]) -> PathBuf {
    let mut folders = names.iter().map(|name| path.join(name));
    folders.find(|folder| folder.is_dir()).unwrap_or_else(|| path.to_path_buf())
}

fn text_of(path: &Path) -> Result<String, WeightsError> {
    read_text(path).map_err(|source| WeightsError::Io { path: path.display().to_string(), source })
}

/// Where a model is. Without a network's file it is the emoji model inside the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelPaths {
    /// Weights of the network: .safetensors, .pt, .ckpt, a shard index or a folder.
    pub model: Option<PathBuf>,
    /// Which of the averages that they hold, counted from 1; what sampling takes where absent.
    pub average: Option<usize>,
    /// Configuration of the network, where the weights do not hold it.
    pub config: Option<PathBuf>,
    /// The autoencoder of a latent model, in place of one in the network's own file.
    pub vae: Option<PathBuf>,
    /// Configuration of the autoencoder, in place of what its weights and the `config.json` beside them say.
    pub vae_config: Option<PathBuf>,
    /// Statistics of the latents.
    pub stats: Option<PathBuf>,
    /// Weights of the network of autoguidance.
    pub guide: Option<PathBuf>,
    /// A table of names for the tensors of networks and autoencoder ([`Rename`]).
    pub names: Option<PathBuf>,
}

/// A network's weights and what goes with them, opened and not yet loaded.
#[derive(Debug)]
pub struct ModelFiles {
    /// The network.
    pub model: Weights,
    /// The autoencoder.
    pub vae: Option<Weights>,
    /// Statistics of the latents.
    pub stats: Option<Weights>,
    /// The network of autoguidance.
    pub guide: Option<Weights>,
    /// What there is to say of the table of names, in sentences.
    pub notes: Vec<String>,
}

/// What the files of a model hold.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The network.
    pub architecture: Architecture,
    /// Its classes.
    pub labels: Labels,
    /// Width and height of its pictures.
    pub image_size: [usize; 2],
    /// How each file fits, by file name.
    pub reports: Vec<(String, Report)>,
    /// What else there is to say of the network's file and the table of names, in sentences.
    pub notes: Vec<String>,
}

impl ModelFiles {
    /// Opens the named files, and the embedded model where none is named. Without a file of its own, the
    /// autoencoder of a latent model is the one in the network's file, where that holds one: joint training saves
    /// both in one.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Weights`] where a file cannot be read or is no checkpoint, the network's has no such average,
    ///   or the table of names is none for them
    /// * [`LoadError::NotEmbedded`] where no network is named and the program has none inside
    pub fn open(paths: &ModelPaths) -> Result<Self, LoadError> {
        let mut names = match &paths.names {
            Some(path) => Rename::open(path).map_err(WeightsError::from)?,
            None => Rename::default(),
        };
        let model = paths.model.as_ref();
        let model = model.map(|path| part_of_pipeline(path, &PARTS_OF_NETWORKS));
        let mut files = match &model {
            None => Self::embedded_of(paths.average)?,
            Some(path) => {
                let opened = match paths.average {
                    Some(number) => open_average(path, number)?,
                    None => open(path)?,
                };
                let model = renamed(opened, &mut names)?;
                Self { model, vae: None, stats: None, guide: None, notes: Vec::new() }
            }
        };
        if let Some(path) = &paths.config {
            files.model.metadata.insert("config".into(), text_of(path)?);
        }
        match (&paths.vae, &model) {
            (Some(path), _) => {
                let vae = open_autoencoder(&part_of_pipeline(path, &["vae"]))?;
                files.vae = Some(renamed(vae, &mut names)?);
            }
            (None, Some(path)) if files.works_on_latents() => {
                let own = autoencoder_in(path)?;
                files.vae = own.map(|vae| renamed(vae, &mut names)).transpose()?;
            }
            _ => {}
        }
        if let (Some(path), Some(vae)) = (&paths.vae_config, &mut files.vae) {
            vae.set_config(&text_of(path)?);
        }
        if let Some(path) = &paths.stats {
            files.stats = Some(open(path)?);
        }
        if let Some(path) = &paths.guide {
            let guide = open(&part_of_pipeline(path, &PARTS_OF_NETWORKS))?;
            files.guide = Some(files.configured(renamed(guide, &mut names)?));
        }
        files.notes.extend(names.note());
        Ok(files)
    }

    /// The model inside the program, which is one set of weights.
    fn embedded_of(average: Option<usize>) -> Result<Self, LoadError> {
        let files = Self::embedded()?;
        match average {
            None => Ok(files),
            Some(_) => {
                let file = files.model.file;
                let problem = "it holds no averages to choose from".into();
                Err(WeightsError::Format { file, problem }.into())
            }
        }
    }

    /// A guide that does not hold the configuration which it needs has the network's: an earlier checkpoint of it.
    fn configured(&self, mut guide: Weights) -> Weights {
        let config = self.model.metadata.get("config");
        if let (Some(config), Err(WeightsError::NeedsConfiguration { .. })) =
            (config, detect(&guide))
        {
            guide.metadata.insert("config".into(), config.clone());
        }
        guide
    }

    /// The emoji model inside the program.
    ///
    /// # Errors
    ///
    /// [`LoadError::Weights`] where the program is damaged.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self, LoadError> {
        const MODEL: &[u8] = include_bytes!("../../../models/emoji/hidit.safetensors");
        const DECODER: &[u8] = include_bytes!("../../../models/emoji/vae-decoder.safetensors");
        Ok(Self {
            model: Weights::from_bytes(MODEL, "the embedded emoji model")?,
            vae: Some(Weights::from_bytes(DECODER, "the embedded emoji decoder")?),
            stats: None,
            guide: None,
            notes: Vec::new(),
        })
    }

    /// The emoji model inside the program, which this one was built without.
    ///
    /// # Errors
    ///
    /// [`LoadError::NotEmbedded`], always.
    #[cfg(not(feature = "embedded-model"))]
    pub fn embedded() -> Result<Self, LoadError> {
        Err(LoadError::NotEmbedded)
    }

    /// Describes the model and tells whether it would load, without reading weights. Networks are
    /// created lazily, so the device allocates nothing.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Weights`] where the network or its configuration is unknown or tensors do not
    ///   fit
    /// * [`LoadError::NoVae`] and [`LoadError::NoStats`] where a latent model lacks its autoencoder
    ///   or its statistics
    /// * [`LoadError::IncompatibleParts`] where the files are of different models, or the guide is a network of
    ///   another kind
    pub fn inspect(&self, device: &Device) -> Result<Inspection, LoadError> {
        let architecture = detect(&self.model)?;
        let invalid = |e| LoadError::Weights(WeightsError::Config(e));
        let report = architecture.untrained(device).map_err(invalid)?.compare(&self.model);
        let mut reports = vec![(self.model.file.clone(), report)];
        let autoencoder = self.vae.as_ref().map(autoencoder_config).transpose()?;
        if let (Some(config), Some(weights)) = (&autoencoder, &self.vae) {
            let decoder = config.decoder_part(weights.clone());
            let network = config.init_decoder(device).map_err(invalid)?;
            reports.push((weights.file.clone(), compare(&network, &decoder)));
        }
        if let (Some(guide), Some(weights)) = (guide_of(&architecture, self.parts())?, &self.guide)
        {
            let report = guide.untrained(device).map_err(invalid)?.compare(weights);
            reports.push((weights.file.clone(), report));
        }
        if let Some((file, report)) = reports.iter().find(|(_, report)| !report.fits()) {
            let (file, report) = (file.clone(), Box::new(report.clone()));
            return Err(WeightsError::Mismatch { file, report }.into());
        }
        let stats = statistics(&architecture, autoencoder.as_ref(), self.parts())?;
        check_parts(&architecture, autoencoder.as_ref(), stats.as_ref())?;
        Ok(Inspection {
            labels: Labels::of(&self.model, architecture.num_classes()),
            image_size: image_size(&architecture, autoencoder.as_ref()),
            architecture,
            reports,
            notes: self.notes(),
        })
    }

    /// What is worth knowing of the files, in sentences: [`notes`] of the networks', whether its autoencoder is from
    /// the same file, and what opening them had to say.
    pub fn notes(&self) -> Vec<String> {
        let of_opening = self.notes.iter().cloned();
        let of_guide = self.guide.as_ref().map(notes).unwrap_or_default();
        let notes = notes(&self.model).into_iter().chain(self.own_autoencoder_note());
        notes.chain(of_guide).chain(of_opening).collect()
    }

    fn own_autoencoder_note(&self) -> Option<String> {
        let vae = self.vae.as_ref().filter(|vae| vae.file == self.model.file)?;
        let section = vae.metadata.get("section")?;
        Some(format!("{}: its own autoencoder is used, {section:?}", vae.file))
    }

    /// Whether the network is known, and works on latents.
    fn works_on_latents(&self) -> bool {
        detect(&self.model).is_ok_and(|architecture| architecture.latent_space().is_some())
    }

    /// What a pipeline is made of.
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            model: &self.model,
            vae: self.vae.as_ref(),
            stats: self.stats.as_ref(),
            guide: self.guide.as_ref(),
        }
    }

    /// Loads the networks onto a device.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Setting`] where the device does not compute in this precision
    /// * [`LoadError::Memory`] where the device's memory cannot hold the networks and what decoding one image
    ///   takes
    /// * all of [`inspect`](Self::inspect), and [`LoadError::Weights`] where a weight is not finite
    ///   or cannot be read
    pub fn load(&self, precision: Precision, found: &Found) -> Result<Pipeline, LoadError> {
        let dtype = precision.on(&found.device)?;
        self.check_memory(precision, found)?;
        Pipeline::load(self.parts(), dtype, &found.device)
    }

    /// Refuses a model that the device's memory cannot hold, where the device tells how much it
    /// has.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Memory`] where it cannot
    /// * [`LoadError::Weights`] and [`LoadError::IncompatibleParts`] as [`inspect`](Self::inspect)
    pub fn check_memory(&self, precision: Precision, found: &Found) -> Result<(), LoadError> {
        let Some(free) = found.free_memory() else { return Ok(()) };
        let needed = self.needed(precision, &found.device)?;
        if needed > free {
            return Err(LoadError::Memory { file: self.model.file.clone(), needed, free });
        }
        Ok(())
    }

    /// Bytes that one image takes on a device ([`Parts::needed`]).
    ///
    /// # Errors
    ///
    /// As [`Parts::needed`].
    pub fn needed(&self, precision: Precision, device: &Device) -> Result<u64, LoadError> {
        self.parts().needed(precision, device)
    }
}
