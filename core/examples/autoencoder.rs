//! Encodes an image with a VA-VAE, samples its posterior and decodes it again.
//!
//!     cargo run --release --locked --example autoencoder -- vavae.safetensors photo.png again.png
//!
//! Without arguments it uses the two halves of the emoji model's autoencoder and a drawn image.

use std::error::Error;
use std::path::{Path, PathBuf};

use image::RgbImage;
use image::imageops::FilterType;
use tintype::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use tintype::image::{Rounding, to_rgb};
use tintype::model::vae_config;
use tintype::noise::{self, ImageKey, Stream};
use tintype::weights::{Weights, load, open, open_autoencoder};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let (encoder, decoder, photo, out) = match arguments.as_slice() {
        [] => {
            let half = |name: &str| open(&emoji.join(name));
            let (encoder, decoder) =
                (half("vae-encoder.safetensors")?, half("vae-decoder.safetensors")?);
            (encoder, decoder, drawn(), PathBuf::from("again.png"))
        }
        [vae, photo, out] => {
            let vae = open_autoencoder(vae)?;
            (vae.clone(), vae, image::open(photo)?.to_rgb8(), out.clone())
        }
        _ => return Err("usage: autoencoder VAE PHOTO OUT.png".into()),
    };

    let device = Device::flex();
    let config = vae_config(&encoder)?;
    let is_encoder = |name: &str| name.starts_with("encoder.") || name.starts_with("quant_conv.");
    let filled = |weights: Weights, encodes: bool| weights.filtered(|n| is_encoder(n) == encodes);
    let f32 = FloatDType::F32;
    let encoder = load(config.init_encoder(&device)?, &filled(encoder, true), f32, &device)?;
    let decoder = load(config.init_decoder(&device)?, &filled(decoder, false), f32, &device)?;

    // Sides divisible by the downsampling factor, values in −1…1, channels first.
    let f = config.downsampling() as u32;
    let (w, h) = ((photo.width() / f).max(1) * f, (photo.height() / f).max(1) * f);
    let photo = image::imageops::resize(&photo, w, h, FilterType::Lanczos3);
    let plane = |c: usize| photo.pixels().map(move |p| p.0[c] as f32 / 127.5 - 1.0);
    let values: Vec<f32> = (0..3).flat_map(plane).collect();
    let x = TensorData::new(values, [1, 3, h as usize, w as usize]);
    let x = Tensor::<4>::from_data(x, &device); // [1, 3, H, W]

    let posterior = encoder.network.encode(x.clone());
    let [_, c, h, w] = posterior.mean.dims();
    let key = ImageKey::new(0, 0);
    let eps = noise::batch(&[key], Stream::Start, 0, [c, h, w], &device).cast(FloatDType::F32);
    let z = posterior.sample(eps); // [1, C, H/f, W/f]
    let again = decoder.network.decode(z.clone()); // [1, 3, H, W]

    let error = (again.clone() - x).square().mean().into_scalar::<f32>();
    let psnr = 10.0 * (4.0 / error).log10();
    let image = to_rgb(&again.into_data(), Rounding::Up).remove(0);
    std::fs::write(&out, image.to_png(&[])?)?;
    println!("{}: latents {:?}, PSNR {psnr:.1} dB", out.display(), z.dims());
    Ok(())
}

/// A disc before a gradient.
fn drawn() -> RgbImage {
    RgbImage::from_fn(128, 128, |x, y| {
        let inside = (x as f32 - 64.0).hypot(y as f32 - 64.0) < 40.0;
        image::Rgb(if inside { [230, 60, 60] } else { [255, 255 - x as u8 / 2, 255 - y as u8 / 2] })
    })
}
