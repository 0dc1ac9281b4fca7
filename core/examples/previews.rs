//! Follows the steps of an image and saves what each one shows as an animated GIF.
//!
//!     cargo run --release --locked --example previews -- "fruit" fruit.gif

use std::error::Error;
use std::fs::File;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbaImage};
use tintype::Precision;
use tintype::device;
use tintype::generate::{Event, ImageSpec, LatentMap, ModelFiles, Previewer, Request, Settings};
use tintype::image::Rgb;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let class = arguments.next().unwrap_or_else(|| "fruit".into());
    let out = arguments.next().unwrap_or_else(|| "fruit.gif".into());

    let device = device::choose("auto")?.found;
    let pipeline = ModelFiles::embedded()?.load(Precision::F32, &device)?;
    let request = Request {
        settings: Settings { steps: 25, ..pipeline.architecture().default_settings() },
        images: vec![ImageSpec::new(Some(pipeline.labels().find(&class)?), 7, 0)],
    };

    // Decoding each step's latent costs more than the step; the previewer decodes some and shows the
    // others through a linear map from latents to colors.
    let mut map = LatentMap::new(pipeline.latent_channels().unwrap_or(0));
    let mut previewer = Previewer::new(&pipeline, &mut map);
    let mut frames: Vec<Rgb> = Vec::new();
    let mut on_event = async |event: Event<'_>| {
        match event {
            Event::Step { preview, .. } => {
                let images = previewer.images(preview).await?; // [1, 3, H, W] in −1…1
                frames.extend(pipeline.pictures(images).await?);
            }
            Event::Image(picture) => frames.push(picture.image),
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event))?;

    let mut gif = GifEncoder::new(File::create(&out)?);
    gif.set_repeat(Repeat::Infinite)?;
    let count = frames.len();
    for (number, frame) in frames.into_iter().enumerate() {
        let rgba = frame.pixels.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let rgba = RgbaImage::from_raw(frame.width as u32, frame.height as u32, rgba);
        let rgba = rgba.ok_or("a frame has four bytes a pixel")?;
        let last = number + 1 == count;
        let delay = Delay::from_numer_denom_ms(if last { 2000 } else { 80 }, 1);
        gif.encode_frame(Frame::from_parts(rgba, 0, 0, delay))?;
    }
    println!("{out}: {count} frames");
    Ok(())
}
