//! The `tintype` program, one file a command.

mod bench;
mod classes;
mod convert;
mod encode;
mod evaluate;
mod events;
mod face;
mod generate;
mod info;
mod interrupt;
mod judging;
mod model;
mod output;
mod prepare;
mod sample;
mod sampling;
mod train;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Class-conditional image diffusion: pictures out of noise.
#[derive(Debug, Parser)]
#[command(name = "tintype", version, about, propagate_version = true)]
struct Args {
    /// Compute without kernels, by the library's plain operations: to find out whether one is at fault
    #[arg(long, global = true)]
    plain: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make pictures of classes
    Generate(Box<generate::Args>),
    /// List the classes of a model, or those that contain a text
    Classes(classes::Args),
    /// Describe a model file and the devices of this machine
    Info(info::Args),
    /// Turn a checkpoint into safetensors
    Convert(convert::Args),
    /// Turn a folder or an archive of images into a store
    Prepare(prepare::Args),
    /// Make samples by the thousand, for evaluation
    Sample(Box<sample::Args>),
    /// Measure samples: FID, sFID, Inception Score, precision, recall, KID, FD-DINOv2; or how well an
    /// autoencoder gives images back
    Evaluate(Box<evaluate::Args>),
    /// Train a network as a configuration describes
    Train(train::Args),
    /// Encode a store's images into latents, once for all epochs
    Encode(encode::Args),
    /// Measure how fast this machine computes a network, and compare with what was measured before
    Bench(bench::Args),
}

/// Exit code after Ctrl-C, as shells expect it.
const INTERRUPTED: u8 = 130;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    tintype::memory::keep_freed_memory();
    run(std::env::args_os())
}

/// Runs the program: one sentence on the way out if something is wrong. A program of its own may call this after
/// [`tintype::model::register`].
///
/// * `arguments`: the program's name and what follows it
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // A panic below is a defect or a device that died; it, too, is told in one line.
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
            .unwrap_or_else(|| "unknown".into());
        if message.starts_with("failed printing to stdout") {
            std::process::exit(0); // the reader has seen enough, as `| head` has
        }
        eprintln!(
            "error: the computation failed ({}); try --device cpu, and report it if that works",
            message.lines().next().unwrap_or_default()
        );
    }));
    let args = Args::parse_from(arguments);
    tintype::shaders::keep_compiled_kernels();
    tintype::shaders::use_plain(args.plain);
    let result = std::panic::catch_unwind(|| match args.command {
        Command::Generate(args) => generate::run(*args),
        Command::Classes(args) => classes::run(args).map(|()| Outcome::Done),
        Command::Info(args) => info::run(args).map(|()| Outcome::Done),
        Command::Convert(args) => convert::run(args).map(|()| Outcome::Done),
        Command::Prepare(args) => prepare::run(args),
        Command::Encode(args) => encode::run(args),
        Command::Evaluate(args) => evaluate::run(*args),
        Command::Bench(args) => bench::run(args).map(|()| Outcome::Done),
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(*args),
    });
    match result {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Interrupted)) => ExitCode::from(INTERRUPTED),
        Ok(Err(error)) if reader_is_gone(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {}", face::sentence(&error));
            ExitCode::FAILURE
        }
        Err(_panic) => ExitCode::FAILURE,
    }
}

/// Whether standard output was closed by who read it.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Ctrl-C came; what was finished is kept.
    Interrupted,
}

/// The device of one of several processes on a machine: `auto` and `cuda` mean its own GPU.
fn local_device(asked: &str, rank: crate::rank::Rank) -> String {
    let several = rank.world > 1 && cfg!(feature = "cuda");
    match asked {
        "cuda" if several => format!("cuda:{}", rank.local),
        "auto" if several && tintype::device::list().iter().any(|d| d.id.starts_with("cuda")) => {
            format!("cuda:{}", rank.local)
        }
        _ => asked.into(),
    }
}
