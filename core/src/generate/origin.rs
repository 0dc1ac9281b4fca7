//! Generation metadata embedded in the PNG.

use serde::{Deserialize, Serialize};

use super::file_stem::file_stem;
use super::load::Parts;
use super::request::ImageSpec;
use crate::image::{PngError, Rgb, png_text};
use crate::precision::Precision;
use crate::settings::Settings;
use crate::weights::{Part, Weights};

/// Key of the text in a PNG that says how it was made.
const PNG_KEY: &str = "tintype";

/// How a picture was made: enough to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program that made it.
    pub version: String,
    /// The weights that made it.
    #[serde(flatten)]
    pub weights: Fingerprints,
    /// The class by name.
    pub class_name: String,
    /// Class, seed and blend.
    #[serde(flatten)]
    pub spec: ImageSpec,
    /// How it was sampled.
    pub settings: Settings,
    /// Dtype of the network.
    pub precision: Precision,
    /// The device that computed it, as it calls itself.
    pub device: String,
}

/// Fingerprints of the files that a picture was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Of the network.
    pub model: String,
    /// Of the autoencoder; `None` without one, and in pictures of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<String>,
    /// Of the statistics of the latents; `None` without a file of them, and in pictures of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// Of the network of autoguidance; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<String>,
}

impl Fingerprints {
    /// Fingerprints of opened files.
    pub fn of(parts: Parts<'_>) -> Self {
        Self {
            model: parts.model.fingerprint(),
            autoencoder: parts.vae.map(Weights::fingerprint),
            statistics: parts.stats.map(Weights::fingerprint),
            guide: parts.guide.map(Weights::fingerprint),
        }
    }

    /// The part that is not the one of these fingerprints, if one is known to be another. A guide that is missing
    /// here or there is another, too: earlier versions had none.
    pub fn other_part(&self, now: &Self) -> Option<Part> {
        let is_other = |then: &Option<String>, now: &Option<String>| then.is_some() && then != now;
        if self.model != now.model {
            Some(Part::Network)
        } else if is_other(&self.autoencoder, &now.autoencoder) {
            Some(Part::Autoencoder)
        } else if is_other(&self.statistics, &now.statistics) {
            Some(Part::Statistics)
        } else {
            (self.guide != now.guide).then_some(Part::Guide)
        }
    }
}

/// Why a PNG does not say how it was made.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// It is no PNG.
    #[error(transparent)]
    Png(#[from] PngError),
    /// Another program made it.
    #[error("it carries no settings of this program")]
    None,
    /// It was made by a version that wrote something else.
    #[error("it carries settings of another version")]
    Version(#[from] serde_json::Error),
}

impl Origin {
    /// What a PNG carries.
    ///
    /// # Errors
    ///
    /// * [`OriginError::Png`] where the bytes are no PNG, or damaged
    /// * [`OriginError::None`] where it carries nothing of this program
    /// * [`OriginError::Version`] where another version wrote something else
    pub fn read(png: &[u8]) -> Result<Self, OriginError> {
        let text = png_text(png, PNG_KEY)?.ok_or(OriginError::None)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// A PNG of the picture that carries this.
    ///
    /// # Errors
    ///
    /// * [`OriginError::Png`] where the picture cannot be encoded
    /// * [`OriginError::Version`] where the settings cannot be written
    pub fn to_png(&self, picture: &Rgb) -> Result<Vec<u8>, OriginError> {
        Ok(picture.to_png(&[(PNG_KEY, &serde_json::to_string(self)?)])?)
    }

    /// A file name without extension: first synonym and number of the class, and the seed; `crane-134-7`, or
    /// `crane-134-7-to-8-0.25` between two seeds. What a system refuses in names is replaced, and the synonym is cut
    /// where there would be over 100 bytes.
    pub fn file_stem(&self) -> String {
        file_stem(&self.class_name, self.spec)
    }
}

#[cfg(test)]
mod tests {
    use png::text_metadata::{EncodableTextChunk, TEXtChunk, ZTXtChunk};

    use super::*;
    use crate::diffusion::guidance::Guidance;
    use crate::noise::Blend;
    use crate::settings::Sampler;

    fn origin(class_name: &str) -> Origin {
        Origin {
            version: "0.1.0".into(),
            weights: Fingerprints {
                model: "a8454562b8209a49".into(),
                autoencoder: None,
                statistics: None,
                guide: None,
            },
            class_name: class_name.into(),
            spec: ImageSpec::new(Some(3), 7, 0),
            settings: Settings::new(Sampler::Euler, 4, Guidance::NONE),
            precision: Precision::F32,
            device: "cpu".into(),
        }
    }

    /// A picture with this chunk.
    fn picture(chunk: &impl EncodableTextChunk) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = png::Encoder::new(&mut bytes, 1, 1).write_header().expect("a header");
        writer.write_text_chunk(chunk).expect("a text");
        writer.write_image_data(&[0]).expect("a pixel");
        writer.finish().expect("an end");
        bytes
    }

    #[test]
    fn a_picture_whose_chunks_were_rewritten_still_says_it() {
        let origin = origin("café, coffee house");
        let text = serde_json::to_string(&origin).expect("it serialises");
        let latin1 = picture(&TEXtChunk::new(PNG_KEY, text.clone()));
        let compressed = picture(&ZTXtChunk::new(PNG_KEY, text.clone()));
        let ours = origin.to_png(&Rgb::white(1, 1)).expect("a PNG");
        for png in [latin1, compressed, ours] {
            assert_eq!(Origin::read(&png).expect("it says it"), origin);
        }
        let other = picture(&TEXtChunk::new("Software", text));
        assert!(matches!(Origin::read(&other), Err(OriginError::None)));
        let older = picture(&TEXtChunk::new(PNG_KEY, "class 3"));
        assert!(matches!(Origin::read(&older), Err(OriginError::Version(_))));
    }

    #[test]
    fn a_blend_is_read_as_it_was_written() {
        let plain = origin("fruit");
        let text = serde_json::to_string(&plain).expect("JSON");
        assert!(text.contains(r#""class":3,"seed":7,"index":0,"settings""#), "{text}");
        for amount in [0.25, 1.0 / 3.0, 1.0 / 6.0, 1.0, 5e-324] {
            let blend = Some(Blend { seed: u64::MAX, amount });
            let origin = Origin { spec: ImageSpec { blend, ..plain.spec }, ..plain.clone() };
            let png = origin.to_png(&Rgb::white(1, 1)).expect("a PNG");
            assert_eq!(Origin::read(&png).expect("it says it"), origin);
        }
    }

    #[test]
    fn another_part_is_found_where_it_was_recorded() {
        let of = |model: &str, autoencoder: Option<&str>, statistics: Option<&str>| Fingerprints {
            model: model.into(),
            autoencoder: autoencoder.map(String::from),
            statistics: statistics.map(String::from),
            guide: None,
        };
        let now = of("a", Some("b"), Some("c"));
        assert_eq!(now.other_part(&now), None);
        assert_eq!(of("x", Some("b"), Some("c")).other_part(&now), Some(Part::Network));
        assert_eq!(of("a", Some("x"), Some("c")).other_part(&now), Some(Part::Autoencoder));
        assert_eq!(of("a", Some("b"), Some("x")).other_part(&now), Some(Part::Statistics));
        // Earlier versions recorded the network alone.
        assert_eq!(of("a", None, None).other_part(&now), None);
        // They had no guide, so that one is another wherever it is.
        let guided = Fingerprints { guide: Some("d".into()), ..now.clone() };
        let otherwise = Fingerprints { guide: Some("e".into()), ..now.clone() };
        assert_eq!(guided.other_part(&guided), None);
        for (then, now) in [(&guided, &now), (&now, &guided), (&guided, &otherwise)] {
            assert_eq!(then.other_part(now), Some(Part::Guide));
        }
        let text = serde_json::to_string(&origin("fruit")).expect("JSON");
        assert!(text.contains("\"model\":\"a8454562b8209a49\"") && !text.contains("autoencoder"));
        assert!(!text.contains("guide\""));
        assert_eq!(serde_json::from_str::<Origin>(&text).expect("an origin"), origin("fruit"));
    }
}
