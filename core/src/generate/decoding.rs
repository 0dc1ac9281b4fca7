//! Decoding as many images at once as every device takes. A decoder's activations are by far the largest tensors of
//! a run: 32 MiB for an image of 256 by 256 pixels, 512 MiB for one of 1024 by 1024.

use burn::tensor::Tensor;

use crate::model::{Autoencoder, Decoder};

/// Bytes of the largest activation: WebGPU binds so much of a buffer on every device.
const LARGEST_ACTIVATION: usize = 128 << 20;

/// Images of latents of `h` by `w` that are decoded at once. One may be larger than what every device takes; it
/// cannot be split.
fn at_once(config: &Autoencoder, latents: [usize; 2]) -> usize {
    let image = config.largest_activation(latents).saturating_mul(size_of::<f32>());
    (LARGEST_ACTIVATION / image.max(1)).max(1)
}

/// `[B, C, h, w]` → `[B, 3, H, W]`
pub(super) fn decode(config: &Autoencoder, decoder: &Decoder, z: Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = z.dims();
    in_parts(decoder, z, at_once(config, [h, w]))
}

/// Every operation of a decoder is an image's own, its norms included, so that parts make the same images.
fn in_parts(decoder: &Decoder, z: Tensor<4>, most: usize) -> Tensor<4> {
    let batch = z.dims()[0];
    if batch <= most {
        return decoder.decode(z);
    }
    let part = |first: usize| z.clone().narrow(0, first, most.min(batch - first));
    let images = (0..batch).step_by(most).map(|first| decoder.decode(part(first)));
    Tensor::cat(images.collect(), 0)
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::model::vavae::VaeConfig;

    #[test]
    fn activations_stay_below_what_every_device_binds() {
        let config = Autoencoder::Vae(VaeConfig::f16d32());
        let images = |side: usize| at_once(&config, [side, side]);
        assert_eq!([images(16), images(32), images(64)], [4, 1, 1]);
        assert_eq!(at_once(&config, [0, 0]), LARGEST_ACTIVATION);
    }

    #[test]
    fn parts_make_the_same_images() {
        let device = Device::flex();
        let config = VaeConfig {
            ch: 8,
            ch_mult: vec![1, 2],
            num_res_blocks: 1,
            z_channels: 4,
            num_groups: 4,
            ..VaeConfig::f16d32()
        };
        let config = Autoencoder::Vae(config);
        let decoder = config.init_decoder(&device).expect("valid");
        let z = Tensor::<4>::random([5, 4, 6, 7], Distribution::Default, &device);
        let whole = decode(&config, &decoder, z.clone());
        assert_eq!(whole.dims(), [5, 3, 12, 14]);
        for most in [1, 2, 5] {
            let parts = in_parts(&decoder, z.clone(), most);
            parts.into_data().assert_eq(&whole.clone().into_data(), true);
        }
    }
}
