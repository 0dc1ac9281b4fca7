//! The configuration files of LightningDiT's authors.

use serde::Deserialize;

use super::LightningDiTConfig;
use super::config::default_in_channels;
use crate::model::{InvalidConfig, ensure};

/// The sections that describe a network.
#[derive(Deserialize)]
pub(super) struct Published {
    #[serde(default)]
    data: Data,
    #[serde(default)]
    vae: Vae,
    model: Model,
}

#[derive(Deserialize)]
#[serde(default)]
struct Data {
    image_size: usize,
    num_classes: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self { image_size: 256, num_classes: 1000 }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Vae {
    downsample_ratio: usize,
}

impl Default for Vae {
    fn default() -> Self {
        Self { downsample_ratio: 16 }
    }
}

#[derive(Deserialize)]
struct Model {
    model_type: String,
    #[serde(default = "default_in_channels")]
    in_chans: usize,
    #[serde(default)]
    use_qknorm: bool,
    #[serde(default)]
    use_swiglu: bool,
    #[serde(default)]
    use_rope: bool,
    #[serde(default)]
    use_rmsnorm: bool,
    #[serde(default)]
    wo_shift: bool,
    #[serde(default)]
    learn_sigma: bool,
}

impl Published {
    /// The network.
    pub(super) fn config(self) -> Result<LightningDiTConfig, InvalidConfig> {
        let m = self.model;
        let base = LightningDiTConfig::variant(&m.model_type).ok_or_else(|| {
            InvalidConfig(format!(
                "unknown model_type {:?}; known are LightningDiT-{{B,L,XL,1p0B,1p6B}}/{{1,2}}",
                m.model_type
            ))
        })?;
        ensure!(self.vae.downsample_ratio > 0, "downsample_ratio must be positive");
        let config = LightningDiTConfig {
            input_size: self.data.image_size / self.vae.downsample_ratio,
            num_classes: self.data.num_classes,
            in_channels: m.in_chans,
            use_qknorm: m.use_qknorm,
            use_swiglu: m.use_swiglu,
            use_rope: m.use_rope,
            use_rmsnorm: m.use_rmsnorm,
            wo_shift: m.wo_shift,
            learn_sigma: m.learn_sigma,
            ..base
        };
        config.validate()?;
        Ok(config)
    }
}

impl LightningDiTConfig {
    /// Reads the `model`, `data` and `vae` sections of LightningDiT's training YAML.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the text is no such YAML, names an unknown variant, or its numbers
    /// describe no network.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidConfig> {
        serde_saphyr::from_str::<Published>(text)
            .map_err(|e| InvalidConfig(format!("YAML: {e}")))?
            .config()
    }
}
