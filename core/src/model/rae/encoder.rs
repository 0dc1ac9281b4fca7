//! RAE's encoder: DINOv2 with registers, always frozen.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::checkpoint::encoder_part;
use crate::image::imagenet_statistics;
use crate::model::dinov2::{DinoV2, Interpolation, Tokens};
use crate::model::{InvalidConfig, ensure};
use crate::resize::{Method, resize_tensor};
use crate::weights::{Weights, WeightsError};

/// Image → tokens, without their statistics.
#[derive(Module, Debug)]
pub struct RaeEncoder {
    network: DinoV2,
    input_size: usize,
}

impl RaeEncoder {
    /// The encoder of a DINOv2 with registers under the names of its authors, transformers or timm, or of a checkpoint
    /// of RAE's training. The final norm has neither weight nor bias: a file's are not read.
    ///
    /// * `input_size`: the side in pixels to which images are resized, a multiple of the patch's: 224 for images of 256
    ///   pixels, 448 for 512
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`] where the weights are not a DINOv2's, it has no registers, its width does not divide
    ///   into heads of 64, or `input_size` into patches
    /// * [`WeightsError::Mismatch`] where a tensor is missing or has another shape
    /// * [`WeightsError::NotFinite`] where a weight is not finite
    pub fn from_weights(
        weights: Weights,
        input_size: usize,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let file = weights.file.clone();
        let network = DinoV2::without_final_affine(encoder_part(weights), None, device)?;
        Self::new(network, input_size)
            .map_err(|InvalidConfig(problem)| WeightsError::Format { file, problem })
    }

    /// The encoder of a loaded network, of which the final norm has neither weight nor bias.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] where the network has no registers, or `input_size` is not a multiple of its patches'.
    pub fn new(network: DinoV2, input_size: usize) -> Result<Self, InvalidConfig> {
        let patch = network.patch();
        ensure!(
            network.registers() > 0,
            "it is a DINOv2 without registers, and RAE's latents are those of one with registers"
        );
        ensure!(
            input_size > 0 && input_size.is_multiple_of(patch),
            "an input of {input_size} pixels does not split into patches of {patch}"
        );
        // The authors' class is transformers'; with registers, all tools resample the table in one way.
        let network = network.with_grid([input_size / patch; 2], Interpolation::Transformers);
        Ok(Self { network, input_size })
    }

    /// Side of a patch of its input, in pixels.
    pub fn patch(&self) -> usize {
        self.network.patch()
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        self.network.width()
    }

    /// What the network is given: images in 0…1 resized bicubically without antialias or clamp, and normalised with
    /// ImageNet's statistics.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, H, W]`
    /// * returns `[B, 3, input_size, input_size]`
    ///
    /// # Panics
    ///
    /// If the images do not have three channels, or none of their pixels is there.
    pub fn input(&self, images: Tensor<4>) -> Tensor<4> {
        let ([_, _, h, w], size) = (images.dims(), [self.input_size; 2]);
        let images = match [h, w] == size {
            true => images,
            false => resize_tensor(images, size, Method::Bicubic),
        };
        let [mean, std] = imagenet_statistics(&images);
        (images - mean) / std
    }

    /// The tokens of images in 0…1, each normalised over its channels.
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, H, W]`
    /// * returns `[B, C, h, w]`
    ///
    /// # Panics
    ///
    /// If the images do not have three channels, or none of their pixels is there.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let tokens = self.tokens_observed(images, &mut |_, _| ()).patches;
        let ([b, n, c], side) = (tokens.dims(), self.input_size / self.patch());
        debug_assert_eq!(n, side * side, "tokens");
        tokens.swap_dims(1, 2).reshape([b, c, side, side]) // [B, C, h, w]
    }

    /// All tokens, those of which latents are made and the others, showing what enters and leaves the blocks
    /// ([`DinoV2::forward_observed`]).
    ///
    /// # Shapes
    ///
    /// * `images`: `[B, 3, H, W]`
    /// * `observe`: is given `[B, 1 + R + N, C]`
    /// * returns the shapes that [`Tokens`] states
    ///
    /// # Panics
    ///
    /// If the images do not have three channels, or none of their pixels is there.
    pub fn tokens_observed(
        &self,
        images: Tensor<4>,
        observe: &mut dyn FnMut(usize, &Tensor<3>),
    ) -> Tokens {
        self.network.forward_observed(self.input(images), observe)
    }
}

/// `tokens + τ·u·ε`, on which a decoder is trained: `u` is uniform in 0…1, one for each image, and `ε` standard normal.
///
/// # Shapes
///
/// * `tokens`, `eps`: `[B, C, h, w]`, before their normalisation
/// * `u`: `[B]`
/// * returns `[B, C, h, w]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn noised(tokens: Tensor<4>, tau: f64, u: Tensor<1>, eps: Tensor<4>) -> Tensor<4> {
    let b = tokens.dims()[0];
    tokens + eps * (u * tau).reshape([b, 1, 1, 1])
}
