//! What is in the files that people bring: read in a thread of its own, without loading weights, so
//! that classes and settings are there at once, whatever the engine is busy with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use eframe::egui;
use tintype::burn::tensor::Device;
use tintype::generate::{Inspection, LatentStats, ModelFiles, ModelPaths, Origin, Settings};
use tintype::model::{Architecture, Process, autoencoder_config, detect, rae};
use tintype::settings::InvalidSetting;
use tintype::weights::{WeightsError, is_autoencoder_config, open, open_autoencoder};

use crate::average::{Average, averages};
use crate::browser::{Library, published_settings};
use crate::face;
use crate::maker::maker;

/// What people call the model inside the program.
pub const EMBEDDED: &str = "Emoji (built in)";

/// A model that would load.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its files.
    pub paths: ModelPaths,
    /// Tells its weights from others.
    pub fingerprint: String,
    /// What people call it.
    pub name: String,
    /// Averages of the weights that its network's file holds, where there are several.
    pub averages: Vec<Average>,
    /// Values in its network's file.
    pub values: usize,
    /// What it is.
    pub inspection: Inspection,
    /// What it is guided by, where that is another network.
    pub guide: Option<Guide>,
    /// What its authors sample with.
    pub defaults: Settings,
}

/// The network of autoguidance.
#[derive(Clone, Debug)]
pub struct Guide {
    /// What it is.
    pub architecture: Architecture,
    /// Tells its weights from others.
    pub fingerprint: String,
}

impl Model {
    /// Checks settings against the network and its guide.
    ///
    /// # Errors
    ///
    /// As [`Settings::validate_with`].
    pub fn check(&self, settings: &Settings) -> Result<(), InvalidSetting> {
        let guide = self.guide.as_ref().map(|guide| &guide.architecture);
        settings.validate_with(&self.inspection.architecture, guide)
    }

    /// Whether there is a second prediction to guide by: that of no class, or a guide's.
    pub fn is_guidable(&self) -> bool {
        self.guide.is_some() || self.inspection.architecture.null_class().is_some()
    }

    /// Whether another network can guide it: not where guidance is an input.
    pub fn takes_guide(&self) -> bool {
        !matches!(self.inspection.architecture.process(), Process::MeanFlow)
    }

    /// Whether a picture was made with the guide that is here, or with none where there is none. At scale 1 a guide
    /// does nothing.
    pub fn has_guide_of(&self, origin: &Origin) -> bool {
        let own = self.guide.as_ref().map(|guide| &guide.fingerprint);
        origin.settings.guidance.scale == 1.0 || origin.weights.guide.as_ref() == own
    }

    /// The time below which pixels take part, in networks that have such a gate.
    pub fn gate(&self) -> Option<f64> {
        self.inspection.architecture.process().gate()
    }

    /// Whether it makes pictures of classes.
    pub fn has_classes(&self) -> bool {
        !self.inspection.labels.is_empty()
    }
}

/// What is wanted of files.
#[derive(Debug)]
enum Question {
    Model(ModelPaths),
    Sort { files: Vec<PathBuf>, present: ModelPaths, is_chosen: bool },
}

/// What is in files.
#[derive(Debug)]
pub enum Answer {
    /// A model that would load.
    Model(Box<Model>),
    /// One that would not, and why.
    Trouble(ModelPaths, String),
    /// The model that dropped files make with the present ones.
    Paths(ModelPaths),
    /// How a picture was made, and the model that made it, where that is here.
    Picture(Box<Origin>, Option<ModelPaths>),
    /// A file that is of no use, and why.
    Useless(String),
}

/// The thread's other end.
#[derive(Debug)]
pub struct Inspector {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
}

impl Inspector {
    /// Starts the thread. Published models are known by the library.
    pub fn start(ctx: egui::Context, library: Arc<Library>) -> Self {
        let (questions, inbox) = channel();
        let (outbox, answers) = channel();
        std::thread::spawn(move || {
            for question in inbox {
                for answer in answer(question, &library) {
                    let _ = outbox.send(answer);
                }
                ctx.request_repaint();
            }
        });
        Self { questions, answers }
    }

    /// Looks into a model's files.
    pub fn inspect(&self, paths: ModelPaths) {
        let _ = self.questions.send(Question::Model(paths));
    }

    /// Finds out what files are that were dropped while `present` was the model. Where that `is_chosen` for them, it is
    /// also to make the pictures among them.
    pub fn sort(&self, files: Vec<PathBuf>, present: ModelPaths, is_chosen: bool) {
        let _ = self.questions.send(Question::Sort { files, present, is_chosen });
    }

    /// Answers since the last call.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.try_iter().collect()
    }
}

fn answer(question: Question, library: &Library) -> Vec<Answer> {
    match question {
        Question::Model(paths) => vec![match inspect(&paths, library) {
            Ok(model) => Answer::Model(Box::new(model)),
            Err(trouble) => Answer::Trouble(paths, trouble),
        }],
        Question::Sort { files, present, is_chosen } => sort(&files, present, is_chosen, library),
    }
}

/// A model that would load, or why it would not.
pub(crate) fn inspect(paths: &ModelPaths, library: &Library) -> Result<Model, String> {
    let files = ModelFiles::open(paths).map_err(|e| face::load_error(&e))?;
    let inspection = files.inspect(&Device::flex()).map_err(|e| face::load_error(&e))?;
    let entry = paths.model.as_deref().and_then(|path| library.entry_of(path));
    let name = match (entry, &paths.model) {
        (Some(entry), _) => entry.title.clone(),
        (None, Some(path)) => file_name(path),
        (None, None) => EMBEDDED.into(),
    };
    let guide = files.guide.as_ref().and_then(|weights| {
        Some(Guide { architecture: detect(weights).ok()?, fingerprint: weights.fingerprint() })
    });
    let guiding = guide.as_ref().map(|guide| &guide.architecture);
    let published =
        entry.and_then(|entry| published_settings(entry, &inspection.architecture, guiding));
    Ok(Model {
        paths: paths.clone(),
        fingerprint: files.model.fingerprint(),
        averages: averages(paths, &files),
        name,
        values: files.model.tensors.values().map(|tensor| tensor.len()).sum(),
        defaults: published.unwrap_or_else(|| inspection.architecture.default_settings()),
        inspection,
        guide,
    })
}

/// What one file is.
enum Kind {
    Network,
    Autoencoder,
    Statistics,
    Configuration,
    AutoencoderConfiguration,
}

fn kind(path: &Path) -> Result<Kind, String> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let is_index = path.to_string_lossy().ends_with(".index.json");
    if !is_index && ["json", "yaml", "yml"].contains(&extension.as_str()) {
        let is_of_autoencoder =
            std::fs::read_to_string(path).is_ok_and(|text| is_autoencoder_config(&text));
        return Ok(match is_of_autoencoder {
            true => Kind::AutoencoderConfiguration,
            false => Kind::Configuration,
        });
    }
    let weights = open(path).map_err(|e| face::sentence(&e))?;
    match detect(&weights) {
        Ok(_) => Ok(Kind::Network),
        Err(WeightsError::NeedsConfiguration { .. }) => Ok(Kind::Network),
        // Where one lacks its configuration, looking at the model says so.
        Err(WeightsError::Autoencoder { .. }) => Ok(Kind::Autoencoder),
        Err(_) if autoencoder_config(&weights).is_ok() => Ok(Kind::Autoencoder),
        Err(_) if LatentStats::from_weights(&weights).is_ok() => Ok(Kind::Statistics),
        Err(e) => Err(face::sentence(&e)),
    }
}

/// Why the configuration of an autoencoder is left out; `None` where the autoencoder's weights do not tell theirs.
fn left_out(config: &Path, vae: Option<&Path>) -> Option<String> {
    let config = file_name(config);
    let Some(vae) = vae else {
        return Some(format!(
            "{config} describes an autoencoder, and there is none. Drop it together with its weights."
        ));
    };
    // What cannot be opened is said when the model is looked at.
    let weights = open_autoencoder(vae).ok()?;
    let is_told = match rae::is_decoder(&weights) {
        true => autoencoder_config(&weights).is_ok(),
        false => weights.metadata.contains_key("config"),
    };
    let vae = file_name(vae);
    is_told.then(|| format!("{config} is not needed: the configuration of {vae} is known."))
}

/// Files that are taken for pictures, by the ends of their names. Only PNGs carry settings.
const PICTURES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

fn is_picture(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default();
    PICTURES.iter().any(|picture| end.eq_ignore_ascii_case(picture))
}

/// How a picture was made, or why that is not known.
fn origin_of(path: &Path) -> Result<Origin, String> {
    let name = file_name(path);
    let bytes = std::fs::read(path).map_err(|e| format!("{name} cannot be read: {e}"))?;
    Origin::read(&bytes).map_err(|e| format!("{name}: {e}"))
}

fn sort(files: &[PathBuf], present: ModelPaths, is_chosen: bool, library: &Library) -> Vec<Answer> {
    let (mut answers, mut origins) = (Vec::new(), Vec::new());
    let mut dropped = ModelPaths::default();
    for path in files {
        if is_picture(path) {
            match origin_of(path) {
                Ok(origin) => origins.push(origin),
                Err(trouble) => answers.push(Answer::Useless(trouble)),
            }
            continue;
        }
        let slot = match kind(path) {
            Ok(Kind::Network) => &mut dropped.model,
            Ok(Kind::Autoencoder) => &mut dropped.vae,
            Ok(Kind::Statistics) => &mut dropped.stats,
            Ok(Kind::Configuration) => &mut dropped.config,
            Ok(Kind::AutoencoderConfiguration) => &mut dropped.vae_config,
            Err(trouble) => {
                answers.push(Answer::Useless(trouble));
                continue;
            }
        };
        if let Some(before) = slot.replace(path.clone()) {
            let [before, path] = [&before, path].map(|path| file_name(path));
            let trouble =
                format!("{before} is left out: {path} is of the same kind. Drop one of them.");
            answers.push(Answer::Useless(trouble));
        }
    }
    if let Some(config) = dropped.vae_config.take() {
        let vae = joined(dropped.clone(), present.clone()).vae;
        match left_out(&config, vae.as_deref()) {
            Some(trouble) => answers.push(Answer::Useless(trouble)),
            None => dropped.vae_config = Some(config),
        }
    }
    // Files that came with a picture are to make it, and so is a model that was named with it.
    let is_dropped = dropped != ModelPaths::default();
    if is_dropped {
        answers.push(Answer::Paths(joined(dropped, present.clone())));
    }
    let is_given = is_chosen || is_dropped;
    answers.extend(origins.into_iter().map(|origin| {
        let maker = if is_given { None } else { maker(&origin, &present, library) };
        Answer::Picture(Box::new(origin), maker)
    }));
    answers
}

/// A new network comes with its own parts; parts that were there before a network was are for it.
pub fn joined(new: ModelPaths, present: ModelPaths) -> ModelPaths {
    let keep = new.model.is_none() || present.model.is_none();
    let present = if keep { present } else { ModelPaths::default() };
    // The configuration of another autoencoder is of no use to a new one.
    let vae_config = present.vae_config.filter(|_| new.vae.is_none());
    ModelPaths {
        model: new.model.or(present.model),
        average: new.average.or(present.average),
        config: new.config.or(present.config),
        vae: new.vae.or(present.vae),
        vae_config: new.vae_config.or(vae_config),
        stats: new.stats.or(present.stats),
        guide: new.guide.or(present.guide),
        names: new.names.or(present.names),
    }
}

/// The last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use tintype::diffusion::guidance::Guidance;
    use tintype::generate::{Fingerprints, ImageSpec};
    use tintype::image::Rgb;
    use tintype::model::Autoencoder;
    use tintype::precision::Precision;
    use tintype::settings::Sampler;
    use tintype_test_models::{configs, rae as rae_files};

    use super::*;

    fn paths(model: Option<&str>, vae: Option<&str>) -> ModelPaths {
        ModelPaths { model: model.map(Into::into), vae: vae.map(Into::into), ..Default::default() }
    }

    #[test]
    fn a_network_takes_the_parts_that_came_for_it() {
        let emoji = paths(None, None);
        let alone = joined(paths(Some("a"), None), emoji.clone());
        assert_eq!(alone, paths(Some("a"), None));
        assert_eq!(joined(paths(None, Some("v")), alone), paths(Some("a"), Some("v")));
        // The autoencoder first, its network after it.
        let early = joined(paths(None, Some("v")), emoji);
        assert_eq!(joined(paths(Some("a"), None), early), paths(Some("a"), Some("v")));
        // Another network leaves the old one's parts behind.
        let both = paths(Some("a"), Some("v"));
        assert_eq!(joined(paths(Some("b"), None), both.clone()), paths(Some("b"), None));
        // So does another autoencoder the old one's configuration.
        let configured = ModelPaths { vae_config: Some("c".into()), ..both };
        assert_eq!(joined(paths(None, Some("w")), configured), paths(Some("a"), Some("w")));
    }

    #[test]
    fn files_are_known_by_their_content() {
        let library = crate::browser::empty();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
        let [network, vae] =
            ["hidit.safetensors", "vae-decoder.safetensors"].map(|f| models.join(f));
        let readme = models.join("README.md");
        let answers =
            sort(&[network.clone(), vae.clone(), readme], ModelPaths::default(), false, &library);
        let [Answer::Useless(trouble), Answer::Paths(found)] = answers.as_slice() else {
            panic!("{answers:?}")
        };
        assert!(trouble.contains("README.md"), "{trouble}");
        let twice = sort(
            &[network.clone(), vae.clone(), network.clone()],
            ModelPaths::default(),
            false,
            &library,
        );
        let [Answer::Useless(trouble), Answer::Paths(_)] = twice.as_slice() else {
            panic!("{twice:?}")
        };
        assert!(trouble.contains("hidit.safetensors is left out"), "{trouble}");
        let wanted = ModelPaths { model: Some(network), vae: Some(vae), ..Default::default() };
        assert_eq!(*found, wanted);
        let model = inspect(&wanted, &library).expect("it would load");
        assert_eq!((model.inspection.labels.len(), model.gate()), (41, Some(0.3)));
        let alone = ModelPaths { vae: None, ..wanted };
        let trouble = inspect(&alone, &library).expect_err("no autoencoder");
        assert!(trouble.contains("“Autoencoder…”"), "{trouble}");
    }

    #[test]
    fn the_configuration_of_an_autoencoder_is_for_it() {
        let library = crate::browser::empty();
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, content).expect("it is written");
            path
        };
        let decoder = write("decoder/model.pt", &rae_files::decoder_file());
        let config = write("elsewhere/config.json", rae_files::decoder_json().as_bytes());
        let alone = sort(std::slice::from_ref(&config), ModelPaths::default(), false, &library);
        let [Answer::Useless(trouble)] = alone.as_slice() else { panic!("{alone:?}") };
        assert!(trouble.contains("config.json describes an autoencoder"), "{trouble}");
        // Nothing else tells the number of heads.
        let both = sort(&[config, decoder.clone()], ModelPaths::default(), false, &library);
        let [Answer::Paths(found)] = both.as_slice() else { panic!("{both:?}") };
        assert!(found.config.is_none() && found.vae_config.is_some(), "{found:?}");
        let vae = ModelFiles::open(found).expect("it opens").vae.expect("an autoencoder");
        let expected = Autoencoder::Rae(configs::rae());
        assert_eq!(autoencoder_config(&vae).expect("with heads"), expected);
        // Beside the weights it is read without being named.
        let beside = write("decoder/config.json", rae_files::decoder_json().as_bytes());
        let both = sort(&[beside, decoder.clone()], ModelPaths::default(), false, &library);
        let [Answer::Useless(trouble), Answer::Paths(found)] = both.as_slice() else {
            panic!("{both:?}")
        };
        assert_eq!(trouble, "config.json is not needed: the configuration of model.pt is known.");
        assert_eq!(*found, ModelPaths { vae: Some(decoder), ..ModelPaths::default() });
    }

    /// A picture by the network of a fingerprint.
    fn picture(folder: &Path, network: &str) -> PathBuf {
        let origin = Origin {
            version: "0.1.0".into(),
            weights: Fingerprints {
                model: network.into(),
                autoencoder: None,
                statistics: None,
                guide: None,
            },
            class_name: "fruit".into(),
            spec: ImageSpec::new(Some(17), 7, 0),
            settings: Settings::new(Sampler::Euler, 5, Guidance::NONE),
            precision: Precision::F32,
            device: "cpu".into(),
        };
        let path = folder.join(format!("{network}.PNG"));
        let pixel = Rgb { width: 1, height: 1, pixels: vec![0; 3] };
        std::fs::write(&path, origin.to_png(&pixel).expect("a PNG")).expect("written");
        path
    }

    #[test]
    fn the_model_of_a_picture_is_looked_for() {
        let library = crate::browser::empty();
        let folder = tempfile::tempdir().expect("a folder");
        let emoji = ModelFiles::embedded().expect("it is inside").model.fingerprint();
        let [own, other] =
            [emoji.as_str(), "0123456789abcdef"].map(|name| picture(folder.path(), name));
        let present = paths(Some("somewhere/else.pt"), None);
        let makers = |present: &ModelPaths, is_chosen: bool, files: &[PathBuf]| {
            let answers = sort(files, present.clone(), is_chosen, &library);
            let maker = |answer: Answer| match answer {
                Answer::Picture(_, maker) => maker,
                other => panic!("{other:?}"),
            };
            answers.into_iter().map(maker).collect::<Vec<_>>()
        };
        let embedded = Some(ModelPaths::default());
        let pictures = [own.clone(), other];
        assert_eq!(makers(&present, false, &pictures), [embedded.clone(), None]);
        // A model that was chosen for them stays.
        assert_eq!(makers(&present, true, &pictures), [None, None]);
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
        let network = models.join("hidit.safetensors");
        // The same network makes none without its autoencoder, and with it those of its own.
        let mut opened = ModelPaths { model: Some(network.clone()), ..ModelPaths::default() };
        assert_eq!(makers(&opened, false, &pictures), [embedded, None]);
        opened.vae = Some(models.join("vae-decoder.safetensors"));
        assert_eq!(makers(&opened, false, &pictures), [Some(opened.clone()), None]);
        // Weights that come with a picture are to make it, and are opened first.
        let answers = sort(&[own, network.clone()], present, false, &library);
        let [Answer::Paths(found), Answer::Picture(_, None)] = answers.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!(found.model, Some(network));
    }

    #[test]
    fn a_file_that_is_no_picture_of_this_program_is_told() {
        let library = crate::browser::empty();
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let pixel = Rgb { width: 1, height: 1, pixels: vec![0; 3] };
        let files = [
            write("bare.png", &pixel.to_png(&[]).expect("a PNG")),
            write("photo.jpg", b"\xff\xd8\xff"),
            folder.path().join("gone.png"),
            write("notes.txt", b"no weights"),
        ];
        let answers = sort(&files, ModelPaths::default(), false, &library);
        let names =
            ["bare.png: it carries no settings", "photo.jpg", "gone.png cannot", "notes.txt"];
        assert_eq!(answers.len(), names.len());
        for (answer, name) in answers.iter().zip(names) {
            let Answer::Useless(trouble) = answer else { panic!("{answer:?}") };
            assert!(trouble.contains(name), "{trouble}");
        }
    }
}
