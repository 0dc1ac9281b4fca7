//! A model that was looked into and not yet loaded: what it is, and that it can do what is asked of it.

use anyhow::{Result, bail};
use tintype::device::Found;
use tintype::generate::{Fingerprints, ImageSpec, Inspection, ModelFiles, Origin, Settings, bytes};
use tintype::labels::{Labels, printable};
use tintype::model::{Architecture, detect};
use tintype::precision::Precision;
use tintype::settings::{Setting, TimeGrid};

use super::spec::Spec;
use crate::cli::face::key;

/// What is asked of every model.
pub struct Asked<'a> {
    /// Classes as they were written.
    pub classes: &'a [String],
    /// The seed of the first image of each class.
    pub seed: u64,
    /// Images of each class.
    pub count: usize,
    /// Dtype of the networks.
    pub precision: Precision,
    /// Where they compute.
    pub found: &'a Found,
}

/// What there is to say of a model.
#[derive(Debug)]
pub struct Model {
    /// What its row is called.
    pub name: String,
    /// The published name or the name of its file, whatever its row is called.
    pub file: String,
    /// The network.
    pub architecture: Architecture,
    /// Parameters of the network as the papers count them.
    pub parameters: usize,
    /// Width and height of its images.
    pub image_size: [usize; 2],
    /// How it samples.
    pub settings: Settings,
    /// Bytes of its weights on the device and of what decoding one image takes, not measured
    /// ([`ModelFiles::needed`]).
    pub memory: u64,
    /// Its classes.
    pub labels: Labels,
    /// The asked ones by number; `[None]` of a network without classes.
    pub classes: Vec<Option<usize>>,
    fingerprints: Fingerprints,
}

/// A model with its files open.
pub struct Candidate {
    pub model: Model,
    pub files: ModelFiles,
}

impl Candidate {
    /// Opens a model's files and checks everything that can be checked without reading its weights.
    ///
    /// * `published`: the settings that its name brings
    ///
    /// # Errors
    ///
    /// If the files are no model of this program's, the settings do not fit it, it does not know a class, or the
    /// device's memory cannot hold it.
    pub fn open(spec: &Spec, published: Option<Settings>, asked: &Asked<'_>) -> Result<Self> {
        let mut files = ModelFiles::open(&spec.parts.paths())?;
        let device = &asked.found.device;
        let Inspection { architecture, labels, image_size, notes, .. } = files.inspect(device)?;
        for note in notes {
            eprintln!("note: {note}");
        }
        let settings = spec.settings(&architecture, published)?;
        let guide = files.guide.as_ref().map(detect).transpose()?;
        settings.validate_with(&architecture, guide.as_ref())?;
        if files.guide.is_some() && settings.guidance.scale == 1.0 {
            let name = printable(&spec.name);
            eprintln!("note: {name}: its guide is not used: guidance is off at cfg 1");
            files.guide = None;
        }
        for (given, what) in [(&spec.parts.vae, "vae"), (&spec.parts.stats, "stats")] {
            if given.is_some() && architecture.latent_space().is_none() {
                let (name, network) = (printable(&spec.name), architecture.name());
                eprintln!("note: {name}: {what} is not used: {network} makes pixels");
            }
        }
        files.check_memory(asked.precision, asked.found)?;
        let model = Model {
            name: spec.name.clone(),
            file: spec.model.clone(),
            parameters: architecture.untrained(device)?.parameter_count(),
            image_size,
            settings,
            memory: files.needed(asked.precision, device)?,
            classes: classes(asked.classes, &labels)?,
            labels,
            fingerprints: Fingerprints::of(files.parts()),
            architecture,
        };
        Ok(Self { model, files })
    }
}

impl Model {
    /// Its images in the order of the columns: every seed of a class, and then the next class.
    pub fn images(&self, asked: &Asked<'_>) -> Vec<ImageSpec> {
        let (first, count) = (asked.seed, asked.count as u64);
        let of_class =
            |class| (0..count).map(move |k| ImageSpec::new(class, first.wrapping_add(k), 0));
        self.classes.iter().copied().flat_map(of_class).collect()
    }

    /// Steps of all of its images.
    pub fn all_steps(&self, asked: &Asked<'_>) -> u64 {
        (self.classes.len() * asked.count * self.settings.steps) as u64
    }

    /// How one of its images is made, as `generate` writes it into pictures.
    pub fn origin(&self, spec: ImageSpec, asked: &Asked<'_>) -> Origin {
        Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            weights: self.fingerprints.clone(),
            class_name: spec.class.map_or("none".into(), |class| self.labels.name(class)),
            spec,
            settings: self.settings,
            precision: asked.precision,
            device: asked.found.id.clone(),
        }
    }

    /// Parameters in millions, or thousands of a small network.
    pub fn parameters(&self) -> String {
        match self.parameters {
            n if n >= 100_000 => format!("{:.1} M", n as f64 / 1e6),
            n => format!("{:.1} K", n as f64 / 1e3),
        }
    }

    /// Width and height: "256x256".
    pub fn size(&self) -> String {
        let [width, height] = self.image_size;
        format!("{width}x{height}")
    }

    /// Steps; those of an adaptive sampler are its own.
    pub fn steps(&self) -> String {
        match self.settings.sampler.is_adaptive() {
            true => "adaptive".into(),
            false => self.settings.steps.to_string(),
        }
    }

    /// The guidance scale and, where guidance does not act all the time, its interval: "2.4 in 0-0.73".
    pub fn guidance(&self) -> String {
        let guidance = self.settings.guidance;
        let start = self.architecture.process().start();
        // As float32 they have the digits that somebody wrote.
        let [scale, low, high] = [guidance.scale, guidance.low, guidance.high.min(start)];
        let [scale, low, high] = [scale, low, high].map(|number| number as f32);
        match scale == 1.0 || low <= 0.0 && guidance.high >= start {
            true => scale.to_string(),
            false => format!("{scale} in {low}-{high}"),
        }
    }

    /// What else is set of its sampling, by key: "cfg-channels 3, shift 0.3"; empty where nothing is.
    pub fn others(&self) -> String {
        let Settings { guidance, shift, times, agreement, karras, tau, .. } = self.settings;
        let numbers = [
            (Setting::GuidanceChannels, guidance.channels.map(|channels| channels as f64)),
            (Setting::GuidanceAgreement, agreement),
            (Setting::TimeShift, Some(shift).filter(|shift| *shift != 0.0)),
            (Setting::GateTime, tau),
        ];
        let numbers = numbers.into_iter().filter_map(|(setting, value)| Some((setting, value?)));
        let numbers = numbers
            .chain(karras.given())
            .map(|(setting, value)| format!("{} {}", key(setting), (value * 1e4).round() / 1e4));
        let times = (times != TimeGrid::Uniform).then(|| format!("times {}", times.name()));
        times.into_iter().chain(numbers).collect::<Vec<_>>().join(", ")
    }

    /// Memory in words.
    pub fn memory(&self) -> String {
        bytes(self.memory)
    }
}

/// Classes by number; `[None]` of a network without classes.
///
/// # Errors
///
/// If the network does not know one of them, or has no classes, or has some and none is named.
pub fn classes(names: &[String], labels: &Labels) -> Result<Vec<Option<usize>>> {
    match (names, labels.is_empty()) {
        ([], true) => Ok(vec![None]),
        ([], false) => bail!("its images are of classes; name one with --class"),
        (_, true) => bail!("it is unconditional and knows no class"),
        (names, false) => names.iter().map(|name| Ok(Some(labels.find(name)?))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use tintype::diffusion::guidance::Guidance;
    use tintype::preset;
    use tintype::settings::{KarrasOptions, Sampler};

    use super::*;

    fn model(preset: &str, settings: impl Fn(Settings) -> Settings) -> Model {
        let preset = preset::find(preset).expect("a preset");
        Model {
            name: "a".into(),
            text: "a.pt".into(),
            settings: settings(preset.architecture.default_settings()),
            parameters: preset.parameters,
            architecture: preset.architecture,
            image_size: [256, 256],
            memory: 3 << 30,
            labels: Labels::imagenet(),
            classes: vec![Some(1), Some(7)],
            fingerprints: Fingerprints {
                model: "a8454562b8209a49".into(),
                autoencoder: None,
                statistics: None,
                guide: None,
            },
        }
    }

    #[test]
    fn a_model_is_described_as_the_papers_do() {
        let sit = model("sit-xl-1", |usual| usual);
        assert_eq!([sit.parameters(), sit.size()], ["675.1 M", "256x256"]);
        assert_eq!([sit.steps(), sit.guidance()], ["250", "2.4 in 0-0.73"]);
        assert_eq!([sit.memory(), sit.others()], ["3.0 GiB", ""]);
        let published = model("lightningdit-xl-1", |usual| usual);
        assert_eq!(published.others(), "cfg-channels 3, shift 0.3");
        let adaptive = model("sit-xl-1", |usual| Settings { sampler: Sampler::Dopri5, ..usual });
        assert_eq!(adaptive.steps(), "adaptive");
        let all = model("sit-xl-1", |usual| Settings { guidance: Guidance::new(4.0), ..usual });
        assert_eq!(all.guidance(), "4");
        // A denoiser begins at a noise level; without guidance there is no interval.
        let hdit = model("hdit-imagenet-256", |usual| usual);
        assert_eq!(hdit.guidance(), "1.3");
        let low = Guidance { low: 0.2, high: 3.5, ..Guidance::new(1.3) };
        let hdit = model("hdit-imagenet-256", |usual| Settings { guidance: low, ..usual });
        assert_eq!(hdit.guidance(), "1.3 in 0.2-3.5");
        let off = Guidance { scale: 1.0, ..low };
        let hdit = model("hdit-imagenet-256", |usual| Settings { guidance: off, ..usual });
        assert_eq!(hdit.guidance(), "1");
        let karras = KarrasOptions { eta: Some(0.5), rho: Some(5.0), ..KarrasOptions::NONE };
        let hdit = model("hdit-imagenet-256", |usual| Settings { karras, ..usual });
        assert_eq!(hdit.others(), "eta 0.5, rho 5");
        let karras = KarrasOptions { sigma_max: Some(60.0), ..KarrasOptions::NONE };
        let times = TimeGrid::Karras;
        let spaced = model("sit-xl-1", |usual| Settings { times, karras, ..usual });
        assert_eq!(spaced.others(), "times karras, sigma-max 60");
        let small = Model { parameters: 59_432, ..hdit };
        assert_eq!(small.parameters(), "59.4 K");
    }

    #[test]
    fn images_are_in_the_order_of_the_columns() {
        let found = tintype::device::choose("cpu").expect("a processor").found;
        let asked =
            Asked { classes: &[], seed: 4, count: 2, precision: Precision::F32, found: &found };
        let model = model("sit-xl-1", |usual| usual);
        let images = model.images(&asked);
        let expected = [(1, 4), (1, 5), (7, 4), (7, 5)];
        assert_eq!(images, expected.map(|(class, seed)| ImageSpec::new(Some(class), seed, 0)));
        let origin = model.origin(images[2], &asked);
        assert_eq!(origin.class_name, model.labels.name(7));
        assert_eq!((origin.settings, origin.spec), (model.settings, images[2]));
    }

    #[test]
    fn every_model_has_to_know_the_classes() {
        let names = ["tench".to_string(), "1".to_string()];
        let found = classes(&names, &Labels::imagenet()).expect("it knows them");
        assert_eq!(found, [Some(0), Some(1)]);
        assert_eq!(classes(&[], &Labels::default()).expect("it has none"), [None]);
        let none: [String; 0] = [];
        for (names, labels) in [
            (&names[..], Labels::numbered(3)),
            (&names[..], Labels::default()),
            (&none[..], Labels::imagenet()),
        ] {
            assert!(classes(names, &labels).is_err());
        }
    }
}
