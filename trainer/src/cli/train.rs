//! `tintype train`

mod systems;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tintype::burn::tensor::Device;
use tintype::device;

use self::systems::build;
use super::face::sentence;
use super::interrupt::on_interrupt;
use super::numbers::at_least;
use super::output::check_folder;
use super::published::{DownloadArgs, FileOptions, Library};
use super::training_data;
use super::{Outcome, local_device};
use crate::launch::Launch;
use crate::rank::Rank;
use crate::train::checkpoint;
use crate::train::comm::{CommError, Group};
use crate::train::config::{Activations, Config, DitDhData, LatentData, Recipe, RunConfig};
use crate::train::critical;
use crate::train::init::Origin;
use crate::train::ranks::{check_batch, check_free, train};
use crate::train::run::{Ended, Run};
use tintype::catalogue::Role;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path of the training configuration (see trainer/configs)
    config: PathBuf,
    /// Output folder for checkpoints, log and previews; an existing run is resumed
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Devices for data parallelism: auto, cpu, cuda, wgpu or vulkan, or a list (cuda:0,cuda:1)
    #[arg(long, default_value = "auto", value_delimiter = ',')]
    device: Vec<String>,
    /// Override the number of training steps
    #[arg(long, value_parser = at_least::<u64>(1), allow_negative_numbers = true)]
    steps: Option<u64>,
    /// With several processes or GPUs: how long a rank waits for the others, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = at_least::<u64>(1), allow_negative_numbers = true)]
    timeout: u64,
    /// Disable the progress bar
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    download: DownloadArgs,
}

/// Runs the command.
///
/// # Errors
///
/// If the configuration, its files or a device is not usable, or if the training fails.
pub fn run(args: Args) -> Result<Outcome> {
    let mut config = Config::read(&args.config)?;
    if let Some(steps) = args.steps {
        config.set_steps(steps);
    }
    let rank = Rank::from_environment()?;
    let names = match (rank.world, args.device.as_slice()) {
        (1, names) => names.to_vec(),
        (_, [name]) => vec![local_device(name, rank)],
        (world, names) => bail!(
            "this is one of {world} processes, each of which trains on one device, and --device names {}",
            names.len()
        ),
    };
    let mut devices = Vec::new();
    for name in &names {
        let chosen = device::choose(name)?.found;
        check_precision(config.run(), &chosen.device)?;
        devices.push(chosen.device.autodiff());
    }
    let ranks = devices.len() * rank.world;
    check_batch(config.run(), ranks)?;
    let given = config.clone();
    let library = Library::of_process();
    let mut options = FileOptions::new(&library);
    name_files(&mut config, &args.out, &mut options)?;
    if options.has_missing() {
        ensure!(
            rank.world == 1,
            "files that {} names are not on this machine; with several processes, fetch them before by `tintype download`, or give their paths",
            args.config.display()
        );
        check_before_downloads(&given, &args.out, ranks)?;
    }
    options.resolve(args.download, false)?;
    let is_first = rank.rank == 0;
    for note in notes(&config).iter().filter(|_| is_first) {
        eprintln!("note: {note}");
    }
    let limit = Duration::from_secs(args.timeout);
    let mut group = match devices.pop() {
        Some(device) if rank.world > 1 => {
            let launch = Launch::from_environment()?.context("no launcher's variables are set")?;
            Group::of_processes(rank, &launch, device, &args.out, limit, lost)?
        }
        last => {
            devices.extend(last);
            Group::of_devices(devices, limit)?
        }
    };
    // Before, a signal ends the process, which may wait for others that do not come.
    let message = "stopping after this step, on a GPU after the next one, and writing a checkpoint; run the same command to resume";
    let run = Run {
        config: given,
        out: args.out.clone(),
        interrupted: on_interrupt(message)?,
        quiet: args.quiet || !is_first,
    };
    let origin = Origin::new(&args.out);
    let ended = train(&run, &mut group, move |comm, device| build(&config, &origin, comm, device));
    if let Err(error) = &ended {
        // From here to the end of the process, no other rank of it begins a checkpoint that would be cut.
        std::mem::forget(critical::begin());
        group.end(Some(&sentence(error)));
    } else {
        group.end(None);
    }
    match ended? {
        Ended::Interrupted => Ok(Outcome::Interrupted),
        Ended::Done => {
            if is_first {
                println!("{}: {}", args.out.display(), done(&run)?);
            }
            Ok(Outcome::Done)
        }
    }
}

/// Ends this process where the other ranks are lost: what it computes for them cannot be finished.
fn lost(error: CommError) -> ! {
    eprintln!("error: {error}");
    let _whole = critical::begin();
    end_process()
}

/// Ends this process at once: what runs at its usual end, of CUDA and MPI, may wait for threads that wait for other ranks.
fn end_process() -> ! {
    #[cfg(unix)]
    // SAFETY: it does not return, and standard error has no buffer.
    unsafe {
        libc::_exit(1)
    }
    // Windows still tells its libraries of the end; that is accepted, since NCCL, which would wait, does not exist there.
    #[cfg(not(unix))]
    std::process::exit(1)
}

/// What can be refused before gigabytes are fetched: a folder that cannot be written, is in use or has a run of other
/// settings, and data that does not fit the network.
fn check_before_downloads(config: &Config, out: &Path, devices: usize) -> Result<()> {
    check_batch(config.run(), devices)?;
    check_folder("--out", out, out)?;
    check_free(out)?;
    if let Some((path, found)) = checkpoint::latest(out)? {
        checkpoint::check_settings(&found, config, &path)?;
    }
    training_data::check(config)
}

/// Files of a configuration that are named, and not given as paths.
fn name_files<'a>(config: &'a mut Config, out: &Path, options: &mut FileOptions<'a>) -> Result<()> {
    match config {
        Config::HiDiT(recipe) => {
            let data = name_shared_files(recipe, Role::Network, out, options)?;
            options.file("data.stats", Role::Statistics, &mut data.stats)?;
            options.file("data.teacher", Role::DinoV2, &mut data.teacher)
        }
        // It has no teacher, and says so.
        Config::LightningDiT(recipe) => {
            let data = name_shared_files(recipe, Role::Network, out, options)?;
            options.file("data.stats", Role::Statistics, &mut data.stats)
        }
        Config::HDiT(recipe) => name_shared_files(recipe, Role::Network, out, options).map(|_| ()),
        Config::Jit(recipe) => name_shared_files(recipe, Role::Network, out, options).map(|_| ()),
        Config::DitDh(recipe) => match name_shared_files(recipe, Role::Network, out, options)? {
            DitDhData::Cached(data) => {
                options.file("data.stats", Role::Statistics, &mut data.stats)
            }
            DitDhData::Encoded(data) => {
                options.needed("data.encoder", Role::DinoV2, &mut data.encoder)?;
                options.needed("data.stats", Role::Statistics, &mut data.stats)
            }
        },
        Config::MeanFlow(recipe) => {
            let data = name_shared_files(recipe, Role::Network, out, options)?;
            options.file("data.stats", Role::Statistics, &mut data.stats)
        }
        Config::Pmf(recipe) => {
            let data = name_shared_files(recipe, Role::Network, out, options)?;
            options.file("data.vgg", Role::Vgg, &mut data.vgg)?;
            options.file("data.lpips", Role::Lpips, &mut data.lpips)?;
            options.file("data.convnext", Role::ConvNext, &mut data.convnext)
        }
        Config::Vae(recipe) => {
            let data = name_shared_files(recipe, Role::Autoencoder, out, options)?;
            options.file("data.vgg", Role::Vgg, &mut data.vgg)?;
            options.file("data.lpips", Role::Lpips, &mut data.lpips)?;
            options.file("data.teacher", Role::DinoV2, &mut data.teacher)
        }
        Config::RaeDecoder(recipe) => {
            let data = name_shared_files(recipe, Role::Autoencoder, out, options)?;
            options.needed("data.encoder", Role::DinoV2, &mut data.encoder)?;
            options.file("data.vgg", Role::Vgg, &mut data.vgg)?;
            options.file("data.lpips", Role::Lpips, &mut data.lpips)
        }
    }
}

/// Those of the tables that all recipes share; returns the table of the data.
fn name_shared_files<'a, M, L, D>(
    recipe: &'a mut Recipe<M, L, D>,
    network: Role,
    out: &Path,
    options: &mut FileOptions<'a>,
) -> Result<&'a mut D> {
    // A run that goes on has weights of its own.
    if recipe.init.from.is_some() && checkpoint::latest(out)?.is_none() {
        options.local("init.names", recipe.init.names.as_deref());
        options.file("init.from", network, &mut recipe.init.from)?;
    }
    if let Some(preview) = &mut recipe.preview {
        options.file("preview.vae", Role::Autoencoder, &mut preview.vae)?;
    }
    if let Some(evaluate) = &mut recipe.evaluate {
        options.needed("evaluate.reference", Role::Reference, &mut evaluate.reference)?;
        options.file("evaluate.inception", Role::Inception, &mut evaluate.inception)?;
        options.file("evaluate.dinov2", Role::DinoV2, &mut evaluate.dinov2)?;
        options.local("evaluate.clip", evaluate.clip.as_deref());
        options.file("evaluate.vae", Role::Autoencoder, &mut evaluate.vae)?;
    }
    Ok(&mut recipe.data)
}

/// What a run that is done has done.
fn done(run: &Run) -> Result<String> {
    let asked = run.config.run().steps;
    let state = checkpoint::latest(&run.out)?.map(|(_, state)| state);
    let (steps, skipped) = state.map_or((asked, 0), |state| (state.step, state.skipped));
    let more = match skipped {
        0 => String::new(),
        n => format!(", {n} of them skipped"),
    };
    let number = format!("{steps} step{}", if steps == 1 { "" } else { "s" });
    Ok(match steps > asked {
        true => format!("the run already has {number}{more}; {asked} were asked for"),
        false => format!("{number} done{more}"),
    })
}

fn check_precision(run: &RunConfig, device: &Device) -> Result<()> {
    let supported = match run.precision {
        Activations::F32 => true,
        Activations::Bf16 => device.supports_dtype(tintype::burn::tensor::DType::BF16),
    };
    ensure!(supported, "run.precision = \"bf16\" is not supported by this device; use f32");
    Ok(())
}

const NO_FLIPS: &str = "an .h5 file has no latents of flipped images: loss.flips has no effect";

fn has_no_flips(data: &LatentData) -> bool {
    data.latents.extension().is_some_and(|e| e == "h5")
}

/// Notes about parts that a configuration disables.
fn notes(config: &Config) -> Vec<&'static str> {
    let mut notes = Vec::new();
    match config {
        Config::HiDiT(r) => {
            if r.data.teacher.is_none() {
                notes.push("no data.teacher: training without alignment to DINOv2 (REPA)");
            }
            if r.preview.as_ref().is_some_and(|p| p.vae.is_none()) {
                notes.push("no preview.vae: no previews are drawn");
            }
        }
        Config::LightningDiT(r) => {
            if r.loss.flips && has_no_flips(&r.data) {
                notes.push(NO_FLIPS);
            }
            if r.preview.as_ref().is_some_and(|p| p.vae.is_none()) {
                notes.push("no preview.vae: no previews are drawn");
            }
        }
        Config::DitDh(r) => {
            let cannot_flip = matches!(&r.data, DitDhData::Cached(data) if has_no_flips(data));
            if r.loss.flips && cannot_flip {
                notes.push(NO_FLIPS);
            }
            if r.preview.as_ref().is_some_and(|p| p.vae.is_none()) {
                notes.push("no preview.vae: no previews are drawn");
            }
        }
        Config::HDiT(_) | Config::Jit(_) => {}
        Config::MeanFlow(r) => {
            if r.preview.as_ref().is_some_and(|p| p.vae.is_none()) {
                notes.push("no preview.vae: no previews are drawn");
            }
        }
        Config::Pmf(r) => {
            if r.data.lpips.is_none() {
                notes.push("no data.vgg and data.lpips: training without LPIPS");
            }
            if r.data.convnext.is_none() {
                notes.push("no data.convnext: training without the distance of ConvNeXt V2");
            }
        }
        Config::Vae(r) => {
            if r.data.vgg.is_none() || r.data.lpips.is_none() {
                notes.push("no data.vgg and data.lpips: the reconstruction loss is L1 alone");
            }
            if r.data.teacher.is_none() {
                notes.push("no data.teacher: latents are not aligned with DINOv2 (VF loss)");
            }
            if r.loss.disc_weight == 0.0 {
                notes.push("loss.disc_weight is 0: no discriminator");
            }
        }
        Config::RaeDecoder(r) => {
            if r.data.lpips.is_none() {
                notes.push("no data.vgg and data.lpips: the reconstruction loss is L1 alone");
            }
            if r.loss.disc_weight == 0.0 {
                notes.push("loss.disc_weight is 0: no discriminator");
            }
        }
    }
    notes
}
