//! `tintype encode`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;
use tintype::catalogue::Role;
use tintype::device;
use tintype::weights::open_autoencoder;

use super::Outcome;
use super::events::Reporter;
use super::force;
use super::interrupt::on_interrupt;
use super::model::NamesArgs;
use super::numbers::{at_least, seed};
use super::output::{check_file, check_folder};
use super::published::{DownloadArgs, FileOptions, Library};
use super::training_data::image_store;
use crate::data::encode::{
    Encoder, Outcome as Encoded, Plan, no_moments, to_hdf5, to_shards, write_statistics,
};
use crate::data::encoder::{ImageEncoder, is_rae};
use crate::data::prepare::Progress;
use crate::rank::Rank;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path of the image store
    store: PathBuf,
    /// Autoencoder: a published one's name, an address, or the path of its checkpoint or of a folder with it; for the
    /// latents of RAE `rae` or its encoder, DINOv2 with registers
    #[arg(long, value_name = "NAME|FILE")]
    vae: PathBuf,
    #[command(flatten)]
    names: NamesArgs,
    /// Output: a folder for LightningDiT's latent shards (posterior samples or a RAE's tokens, with horizontal flips),
    /// or an .h5 file for the posterior moments that REPA-E and Hi-DiT read
    #[arg(long)]
    out: PathBuf,
    /// Batch size [default: 4 on the CPU, 32 on a GPU]
    #[arg(long, value_parser = at_least::<usize>(1), allow_negative_numbers = true)]
    batch: Option<usize>,
    /// Random seed of the posterior samples
    #[arg(long, default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    seed: u64,
    /// Device: auto, cpu, cuda, wgpu or vulkan, optionally with an index (cuda:1)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Replace latents of another store, autoencoder, seed or number of processes; only their own files are removed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If the store, the autoencoder or the device is not usable, or the latents cannot be written.
pub fn run(mut args: Args) -> Result<Outcome> {
    let rank = Rank::from_environment()?;
    let store = image_store(&args.store)?;
    if store.is_empty() {
        bail!("{} has no images", args.store.display());
    }
    let chosen = device::choose(&super::local_device(&args.device, rank))?;
    let library = Library::of_process();
    let mut options = FileOptions::new(&library);
    options.local("--names", args.names.names.as_deref());
    let hdf5 = args.out.extension().is_some_and(|e| e == "h5");
    let role = options.encoder("--vae", &mut args.vae)?;
    if hdf5 && role == Role::DinoV2 {
        return Err(no_moments(&args.out));
    }
    match hdf5 {
        true => check_file("--out", &args.out)?,
        false => check_folder("--out", &args.out, &args.out)?,
    }
    options.resolve(args.download, args.json)?;
    let started = Instant::now();
    let weights = args.names.apply(open_autoencoder(&args.vae)?)?;
    if hdf5 && is_rae(&weights) {
        return Err(no_moments(&args.out));
    }
    let encoder = Encoder {
        network: ImageEncoder::load(&weights, store.side(), &chosen.found.device)?,
        fingerprint: weights.fingerprint(),
        device: chosen.found.device.clone(),
    };
    let batch = args.batch.unwrap_or(if chosen.found.id == "cpu" { 4 } else { 32 }).max(1);
    let other = force::other(args.force);
    let free_space = library.downloader.environment().free_space;
    let free = std::path::absolute(&args.out).ok().and_then(|out| free_space(&out));
    let plan = Plan { out: args.out.clone(), batch, seed: args.seed, rank, free, other };
    let interrupted =
        on_interrupt("stopping; finished shards are kept, run the same command to resume")?;
    let reporter = Reporter::counting(store.len() as u64, "images", args.json);
    reporter.message(format!("encoding on {}", chosen.found.id));
    let progress = Progress::default();
    let work = || -> Result<Encoded> {
        if hdf5 {
            return to_hdf5(&store, &encoder, &plan, &progress);
        }
        let outcome = to_shards(&store, &encoder, &plan, &progress)?;
        if outcome == Encoded::Done {
            reporter.message("statistics of the latents".into());
            write_statistics(&plan.out, &encoder.network)?;
        }
        Ok(outcome)
    };
    let outcome = force::offered(reporter.watch(&progress, &interrupted, work))?;
    let seconds = started.elapsed().as_secs_f64();
    let made = progress.made();
    let rate = made as f64 / seconds;
    match outcome {
        Encoded::Stopped => return Ok(Outcome::Interrupted),
        Encoded::Partial => {
            reporter.line("the shards of this process are done; those of other processes are not")
        }
        Encoded::Done => {
            let images = store.len();
            reporter.event("done", json!({"images": images, "made": made, "seconds": seconds}));
            let new =
                if made < images as u64 { format!("({made} of them new) ") } else { "".into() };
            reporter.line(&format!(
                "{}: latents of {images} images {new}in {seconds:.1} s ({rate:.1} images/s) on {}",
                args.out.display(),
                chosen.found.id
            ));
        }
    }
    Ok(Outcome::Done)
}
