//! The `tintype` program, one file per command.

// Its macros hold in what is declared behind it.
#[macro_use]
mod terminal;

mod bench;
mod classes;
mod compare;
mod completions;
mod convert;
mod download;
mod encode;
mod evaluate;
mod events;
mod face;
mod force;
mod gather;
mod generate;
mod info;
mod interrupt;
mod man;
mod metrics;
mod model;
mod models;
mod numbers;
mod output;
mod panics;
mod prepare;
mod proposal;
mod published;
mod sample;
mod sampling;
mod train;
mod training_data;
mod watchers;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

/// Class-conditional image diffusion
#[derive(Debug, Parser)]
#[command(name = "tintype", version, about, propagate_version = true)]
#[command(long_version = VERSION.as_str())]
struct Args {
    /// Use the reference implementation instead of the optimized kernels (for debugging)
    #[arg(long, global = true)]
    plain: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate images of given classes
    Generate(Box<generate::Args>),
    /// Compare models: their images in one picture, with seconds, evaluations and memory
    Compare(Box<compare::Args>),
    /// List the classes of a model
    Classes(classes::Args),
    /// List published models: what there is, what is on this machine, what has been verified
    Models(models::Args),
    /// Download published models
    Download(download::Args),
    /// Show a checkpoint's architecture and the available devices
    Info(info::Args),
    /// Convert a checkpoint to safetensors
    Convert(convert::Args),
    /// Prepare a dataset: crop and resize images into an image store
    Prepare(prepare::Args),
    /// Generate samples for evaluation
    Sample(Box<sample::Args>),
    /// Evaluate samples (FID, sFID, Inception Score, precision, recall, KID, FD-DINOv2) or an
    /// autoencoder's reconstructions (PSNR, SSIM, LPIPS, rFID)
    Evaluate(Box<evaluate::Args>),
    /// Train a model
    Train(train::Args),
    /// Encode an image store into latents
    Encode(encode::Args),
    /// Benchmark a model on this machine
    Bench(bench::Args),
    /// Print a script that completes commands and options in a shell
    Completions(completions::Args),
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man(man::Args),
}

/// What `--version` prints after the name. MPI is a feature of this program alone.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let own: &[&str] = if cfg!(feature = "mpi") { &["mpi"] } else { &[] };
    tintype::version::long(own)
});

/// Exit code after SIGINT: 128 + 2.
const INTERRUPTED: u8 = 130;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    tintype::memory::keep_freed_memory();
    run(std::env::args_os())
}

/// Runs the program; errors are printed on one line. A binary with its own architectures calls this
/// after [`tintype::model::register`].
///
/// * `arguments`: the program's name and its arguments
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    std::panic::set_hook(Box::new(panics::report));
    interrupt::ignore_file_limits();
    let args = Args::parse_from(arguments);
    tintype::shaders::keep_compiled_kernels();
    tintype::shaders::use_plain(args.plain);
    let result = std::panic::catch_unwind(|| match args.command {
        Command::Generate(args) => generate::run(*args),
        Command::Compare(args) => compare::run(*args),
        Command::Classes(args) => classes::run(args).map(|()| Outcome::Done),
        Command::Models(args) => models::run(args).map(|()| Outcome::Done),
        Command::Download(args) => download::run(args),
        Command::Info(args) => info::run(args).map(|()| Outcome::Done),
        Command::Convert(args) => convert::run(args).map(|()| Outcome::Done),
        Command::Prepare(args) => prepare::run(args),
        Command::Encode(args) => encode::run(args),
        Command::Evaluate(args) => evaluate::run(*args),
        Command::Bench(args) => bench::run(args).map(|()| Outcome::Done),
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(*args),
        Command::Completions(args) => completions::run(args).map(|()| Outcome::Done),
        Command::Man(args) => man::run(args).map(|()| Outcome::Done),
    });
    match result {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Interrupted)) => ExitCode::from(INTERRUPTED),
        Ok(Err(error)) if reader_is_gone(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) if was_stopped(&error) => ExitCode::from(INTERRUPTED),
        Ok(Err(error)) => {
            eprintln!("error: {}", face::sentence(&error));
            ExitCode::FAILURE
        }
        Err(_panic) => ExitCode::FAILURE,
    }
}

/// Whether the error is a download that a signal has stopped.
fn was_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(tintype_download::DownloadError::Stopped))
}

/// Whether the error is a closed pipe on standard output.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Interrupted by a signal; finished work is kept.
    Interrupted,
}

/// The device of a rank: `auto` and `cuda` select the GPU of its local rank, or the only one that the launcher lets it
/// see.
fn local_device(asked: &str, rank: crate::rank::Rank) -> String {
    let several = rank.world > 1 && cfg!(feature = "cuda") && ["auto", "cuda"].contains(&asked);
    let gpus = || tintype::device::list().iter().filter(|d| d.id.starts_with("cuda")).count();
    let chosen_by_launcher = std::env::var_os("CUDA_VISIBLE_DEVICES").is_some();
    match if several { gpus() } else { 0 } {
        0 => asked.into(),
        1 if chosen_by_launcher => "cuda:0".into(),
        _ => format!("cuda:{}", rank.local),
    }
}
