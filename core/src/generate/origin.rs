//! What a picture says about itself.

use serde::{Deserialize, Serialize};

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

    /// A file name without extension: the first synonym of the class and the seed.
    pub fn file_stem(&self) -> String {
        let class = self.class_name.split(',').next().unwrap_or_default().trim();
        format!("{}-{}", class.replace(['/', '\\', ' '], "-"), self.spec.seed)
    }
}
