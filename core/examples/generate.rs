//! Generates one image of a class with the model inside the library and writes a PNG.
//!
//!     cargo run --release --locked --example generate -- "heart" heart.png

use std::error::Error;
use std::path::PathBuf;

use tintype::Precision;
use tintype::device;
use tintype::generate::{Event, ImageSpec, ModelFiles, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let class = arguments.next().unwrap_or_else(|| "heart".into());
    let out = PathBuf::from(arguments.next().unwrap_or_else(|| "heart.png".into()));

    let device = device::choose("auto")?.found;
    let pipeline = ModelFiles::embedded()?.load(Precision::F32, &device)?;
    let request = Request {
        settings: pipeline.architecture().default_settings(),
        images: vec![ImageSpec::new(Some(pipeline.labels().find(&class)?), 7, 0)],
    };

    let mut image = None;
    let mut on_event = async |event: Event<'_>| {
        if let Event::Image(picture) = event {
            image = Some(picture.image);
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut on_event))?;
    let image = image.ok_or("no image was made")?;
    std::fs::write(&out, image.to_png(&[])?)?;
    println!("{} ({}x{}) on {}", out.display(), image.width, image.height, device.id);
    Ok(())
}
