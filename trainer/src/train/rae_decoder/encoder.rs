//! The frozen encoder, of the decoder's training and of networks' on its latents.

use std::path::Path;

use anyhow::Result;
use tintype::burn::tensor::{Device, Tensor};
use tintype::model::rae::RaeEncoder;
use tintype::weights::open;

/// Side in pixels of a patch of every published DINOv2.
const PATCH: usize = 14;

/// RAE's encoder, off the graph.
pub struct FrozenEncoder {
    network: RaeEncoder,
    /// Shape `[C, h, w]` of a latent.
    pub shape: [usize; 3],
    /// Of its weights, which a run keeps.
    pub fingerprint: String,
}

impl FrozenEncoder {
    /// Loads a published DINOv2 with registers, in float32. Images are resized for it to `input_size` pixels a side;
    /// without one, so that there are `grid²` tokens.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not such a DINOv2's, or `input_size` is not a multiple of its patches'.
    pub fn open(
        path: &Path,
        grid: usize,
        input_size: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let weights = open(path)?;
        let fingerprint = weights.fingerprint();
        let side = input_size.unwrap_or(PATCH * grid);
        let network = RaeEncoder::from_weights(weights, side, device)?;
        let tokens = side / network.patch();
        let shape = [network.latent_channels(), tokens, tokens];
        Ok(Self { network, shape, fingerprint })
    }

    /// The latents of images in 0…1, without noise.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, H, W]`, off the graph
    /// * returns `[B, C, h, w]`
    ///
    /// # Panics
    ///
    /// If `images` have another number of channels.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<4> {
        self.network.forward(images)
    }
}
