//! What a picture says about itself.

use serde::{Deserialize, Serialize};

use super::file_stem::file_stem;
use super::request::ImageSpec;
use crate::image::{PngError, Rgb, png_text};
use crate::precision::Precision;
use crate::settings::Settings;

/// Key of the text in a PNG that says how it was made.
const PNG_KEY: &str = "tintype";

/// How a picture was made: enough to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program that made it.
    pub version: String,
    /// Fingerprint of the network's weights.
    pub model: String,
    /// The class by name.
    pub class_name: String,
    /// Class and seed.
    #[serde(flatten)]
    pub spec: ImageSpec,
    /// How it was sampled.
    pub settings: Settings,
    /// Dtype of the network.
    pub precision: Precision,
    /// The device that computed it, as it calls itself.
    pub device: String,
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
    #[error("it carries settings of another version ({0})")]
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

    /// A file name without extension: first synonym and number of the class, and the seed; `crane-134-7`. What
    /// a system refuses in names is replaced, and over 100 bytes are cut.
    pub fn file_stem(&self) -> String {
        file_stem(&self.class_name, self.spec)
    }
}

#[cfg(test)]
mod tests {
    use png::text_metadata::{EncodableTextChunk, TEXtChunk, ZTXtChunk};

    use super::*;
    use crate::diffusion::guidance::Guidance;
    use crate::settings::Sampler;

    fn origin(class_name: &str) -> Origin {
        Origin {
            version: "0.1.0".into(),
            model: "a8454562b8209a49".into(),
            class_name: class_name.into(),
            spec: ImageSpec { class: Some(3), seed: 7, index: 0 },
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
}
