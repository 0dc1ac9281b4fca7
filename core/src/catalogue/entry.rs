//! What the catalogue says of a model.

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::file_names::is_file_name;
use crate::preset::Preset;
use crate::settings::{Setting, Settings};

/// The identifier of a licence that could not be read.
const UNKNOWN: &str = "unknown";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A network that generates.
    Network,
    /// An autoencoder of images.
    Autoencoder,
    /// A network that evaluation or training compares features with.
    FeatureExtractor,
    /// Images or statistics that samples are compared with.
    Reference,
    /// Data to train on.
    Dataset,
}

impl Kind {
    /// What the field calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Autoencoder => "autoencoder",
            Self::FeatureExtractor => "feature extractor",
            Self::Reference => "reference",
            Self::Dataset => "data set",
        }
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Weights of the generating network.
    Network,
    /// Its configuration.
    Config,
    /// Weights of an autoencoder.
    Autoencoder,
    /// The configuration of an autoencoder of diffusers, which is read from beside its weights.
    AutoencoderConfig,
    /// Statistics of latents.
    Statistics,
    /// The smaller network of autoguidance.
    Guide,
    /// Weights of an autoencoder's discriminator.
    Discriminator,
    /// FID's Inception-v3.
    Inception,
    /// VGG16.
    Vgg,
    /// The linear layers of LPIPS.
    Lpips,
    /// ConvNeXt V2.
    #[serde(rename = "convnext")]
    ConvNext,
    /// DINOv2.
    #[serde(rename = "dinov2")]
    DinoV2,
    /// A reference of evaluation.
    Reference,
}

impl Role {
    /// Whether images are made with it, as against those that train or evaluate.
    pub const fn is_for_generating(self) -> bool {
        matches!(
            self,
            Self::Network
                | Self::Config
                | Self::Autoencoder
                | Self::AutoencoderConfig
                | Self::Statistics
                | Self::Guide
        )
    }

    /// Whether only training needs it, beside an entry's other files.
    pub const fn is_for_training(self) -> bool {
        matches!(self, Self::Discriminator)
    }
}

/// A licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX identifier where there is one; `unknown` where the licence could not be read.
    pub id: String,
    /// Whether it allows commercial use, where that is known.
    #[serde(default)]
    pub commercial: Option<bool>,
    /// Where it was read; `None` where it has not been.
    #[serde(default)]
    pub source: Option<String>,
}

/// A file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is for.
    pub role: Role,
    /// Where it lies.
    pub address: Address,
    /// Its size.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Its size within a few per cent, where it is not known exactly.
    #[serde(default)]
    pub about_bytes: Option<u64>,
    /// SHA-256 of its content, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The name under which it is kept, where the address does not end in one.
    #[serde(default)]
    pub file_name: Option<String>,
    /// Where these facts were read.
    #[serde(default)]
    pub sources: Sources,
}

/// Where facts of a file were read; `None` for what has not been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Its address and name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its size.
    #[serde(default)]
    pub bytes: Option<String>,
    /// Its digest.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// A number that the authors published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// FID on 50,000 samples.
    pub fid: f64,
    /// With guidance; without where `false`.
    pub guided: bool,
    /// What else differs from the settings of the entry.
    #[serde(default)]
    pub note: Option<String>,
}

/// A model of the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name that commands take: lower case, digits and `-`.
    pub name: String,
    /// The name that people read.
    pub title: String,
    /// What it is.
    pub kind: Kind,
    /// The network's name, as [`Architecture`](crate::model::Architecture) has it.
    #[serde(default)]
    pub architecture: Option<String>,
    /// The [preset](crate::preset) of the network.
    #[serde(default)]
    pub preset: Option<String>,
    /// Parameters of the network as published, where there is no preset of it.
    #[serde(default)]
    pub parameters: Option<usize>,
    /// Width and height of its images.
    #[serde(default)]
    pub image_size: Option<usize>,
    /// Number of its classes; 1000 are ImageNet's.
    #[serde(default)]
    pub classes: Option<usize>,
    /// The licence of its files.
    pub licence: Licence,
    /// The page that describes it.
    #[serde(default)]
    pub page: Option<String>,
    /// Its files; none where their names are not known.
    #[serde(default)]
    pub files: Vec<File>,
    /// Entries whose files it needs besides, by name.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The authors' settings for the guided results.
    #[serde(default)]
    pub sampling: Option<Settings>,
    /// What the authors measured.
    #[serde(default)]
    pub results: Vec<Outcome>,
    /// What else there is to know.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Licence {
    /// The licence in a few words: what it forbids, and whether it has been verified.
    pub fn summary(&self) -> String {
        let id = &self.id;
        match (self.commercial, &self.source) {
            (Some(false), _) => format!("{id}, no commercial use"),
            (None, _) if id == UNKNOWN => id.clone(),
            (_, Some(_)) => id.clone(),
            (_, None) => format!("{id} (not verified)"),
        }
    }

    /// What is to be said before a download: that commercial use is forbidden, or that it is not known what is allowed.
    pub fn warning(&self) -> Option<String> {
        let id = &self.id;
        match self.commercial {
            Some(false) => Some(format!("licence {id}: no commercial use")),
            None if id == UNKNOWN => {
                Some("its licence is not known; see the model's page before you use it".into())
            }
            None => Some(format!("licence {id}; see the model's page before you use it")),
            Some(true) => None,
        }
    }
}

impl File {
    /// What has been read in another place than the download itself: `name`, `size`, `SHA-256`.
    pub fn verified(&self) -> Vec<&'static str> {
        let Sources { name, bytes, sha256 } = &self.sources;
        let parts = [(name, "name"), (bytes, "size"), (sha256, "SHA-256")];
        parts.into_iter().filter_map(|(source, what)| source.as_ref().map(|_| what)).collect()
    }

    /// Its size, exactly or about.
    pub fn size(&self) -> Option<u64> {
        self.bytes.or(self.about_bytes)
    }

    /// A file of nothing but its address.
    pub fn at(role: Role, address: Address) -> Self {
        let sources = Sources::default();
        Self {
            role,
            address,
            bytes: None,
            about_bytes: None,
            sha256: None,
            file_name: None,
            sources,
        }
    }

    /// The name under which it is kept.
    pub fn name(&self) -> &str {
        self.file_name.as_deref().unwrap_or_else(|| self.address.file_name())
    }
}

impl Entry {
    /// Its file of a role.
    pub fn file(&self, role: Role) -> Option<&File> {
        self.files.iter().find(|file| file.role == role)
    }

    /// Whether this version has the network; an autoencoder, a feature extractor and data are always supported.
    pub fn is_supported(&self) -> bool {
        let known = |name: &String| crate::model::is_known(name);
        self.kind != Kind::Network || self.architecture.as_ref().is_some_and(known)
    }

    /// Its [preset](crate::preset), which tells the network before a file of it is here.
    pub fn known_network(&self) -> Option<Preset> {
        self.preset.as_deref().and_then(crate::preset::find)
    }

    /// Parameters of the network: its preset's, else as published.
    pub fn parameters(&self) -> Option<usize> {
        self.known_network().map(|preset| preset.parameters).or(self.parameters)
    }

    /// The published result with or without guidance; that of the entry's own settings comes first.
    pub fn result(&self, guided: bool) -> Option<&Outcome> {
        let of = || self.results.iter().filter(|result| result.guided == guided);
        of().find(|result| result.note.is_none()).or_else(|| of().next())
    }

    /// The best published FID: with guidance, where it was measured with guidance.
    pub fn fid(&self) -> Option<f64> {
        self.result(true).or_else(|| self.result(false)).map(|result| result.fid)
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_name) {
            return Err("a name has small letters, digits and '-' only".into());
        }
        let texts =
            [&self.title, &self.licence.id].into_iter().chain(&self.notes).chain(&self.page);
        if texts.into_iter().any(|text| text.chars().any(char::is_control)) {
            return Err("a text of it has control characters".into());
        }
        if let (Some(preset), None) = (&self.preset, self.known_network()) {
            return Err(format!("there is no preset {preset:?}"));
        }
        if let Some(Settings { steps, guidance, .. }) = &self.sampling {
            let checked = Setting::Steps.check(*steps as f64);
            let checked = checked.and_then(|()| Setting::GuidanceScale.check(guidance.scale));
            checked.map_err(|error| format!("its sampling: {error}"))?;
            if guidance.low.partial_cmp(&guidance.high).is_none_or(|order| order.is_gt()) {
                return Err("its sampling: the guidance interval is none".into());
            }
        }
        for file in &self.files {
            let is_beside = file.role == Role::AutoencoderConfig;
            if is_beside && !matches!(file.address, Address::Hub(_)) {
                return Err(
                    "a configuration is read from beside its autoencoder only on a hub".into()
                );
            }
            let is_hex = |text: &String| {
                text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            };
            if file.sha256.as_ref().is_some_and(|digest| !is_hex(digest)) {
                return Err(format!(
                    "the SHA-256 of {} is not 64 hexadecimal digits",
                    file.address
                ));
            }
            let name = file.name();
            if !is_file_name(name) {
                return Err(format!("{name:?} is no name of a file"));
            }
            let twin = self.files.iter().filter(|other| other.role == file.role).count();
            if twin > 1 {
                return Err(format!("it has several files of one role, {:?}", file.role));
            }
        }
        Ok(())
    }

    /// The text that a search looks through, in lower case.
    pub(super) fn searched(&self) -> String {
        let size = self.image_size.map(|size| size.to_string()).unwrap_or_default();
        let architecture = self.architecture.as_deref().unwrap_or_default();
        let kind = self.kind.name();
        let classes = if self.classes == Some(1000) { "imagenet" } else { "" };
        [&self.name, &self.title, architecture, kind, &self.licence.id, &size, classes]
            .join(" ")
            .to_lowercase()
    }
}
