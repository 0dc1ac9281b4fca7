//! Opens published weights, says which network they are and how they fit, tensor by tensor, and loads them.
//!
//!     cargo run --release --locked --example published_weights -- lightningdit.pt --vae vavae.pt --stats latents_stats.pt
//!
//! Without a path it does so with the model inside the library.

use std::error::Error;

use tintype::Precision;
use tintype::burn::tensor::Device;
use tintype::device;
use tintype::generate::{ModelFiles, ModelPaths, bytes};

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = ModelPaths::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut path = || arguments.next().map(Into::into).ok_or("a path is missing");
        match argument.as_str() {
            "--vae" => paths.vae = Some(path()?),
            "--stats" => paths.stats = Some(path()?),
            "--config" => paths.config = Some(path()?),
            _ => paths.model = Some(argument.into()),
        }
    }

    let files = ModelFiles::open(&paths)?;
    // Reads names and shapes only; a checkpoint of gigabytes takes milliseconds.
    let inspection = files.inspect(&Device::flex())?;
    let architecture = &inspection.architecture;
    println!("network     {}: {}", architecture.name(), architecture.config());
    println!("parameters  {}", architecture.untrained(&Device::flex())?.parameter_count());
    println!("classes     {}", inspection.labels.len());
    println!("images      {:?}", inspection.image_size);
    println!("sampling    {:?}", architecture.default_settings());
    for (file, report) in &inspection.reports {
        println!("{file}: {report}");
    }

    let device = device::choose("auto")?.found;
    let free = device.free_memory().map_or("an unknown amount".into(), bytes);
    let pipeline = files.load(Precision::F32, &device)?;
    println!("loaded on {} ({free} of memory free): {:?}", device.id, pipeline.image_size());
    Ok(())
}
