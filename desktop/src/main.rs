//! `tintype-desktop`: pick a class and watch the picture develop.
#![recursion_limit = "256"]
#![cfg_attr(windows, windows_subsystem = "windows")]

use std::io::Write;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use tintype::generate::ModelPaths;
use tintype_desktop::start::Start;
use tintype_desktop::{console, window};

/// Pick a class and watch the picture develop
#[derive(Debug, Parser)]
#[command(name = "tintype-desktop", version, long_version = tintype::version::LONG.as_str())]
struct Args {
    /// Weights to open or pictures whose settings to use, as if dropped on the window
    files: Vec<PathBuf>,
    /// Weights of the network [default: the latest ones, at first the emoji model inside the program]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Configuration of the network, where the weights do not hold it
    #[arg(long, value_name = "FILE", requires = "model")]
    config: Option<PathBuf>,
    /// Autoencoder of a latent model
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// Statistics of the latents
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Table of names for the tensors of network and autoencoder, where they have others than here
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// auto, cpu, cuda, wgpu or vulkan, with an index like wgpu:1 [default: the latest one]
    #[arg(long)]
    device: Option<String>,
    /// Folder for pictures [default: the latest one, at first Tintype in the pictures' folder]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// File in which settings are remembered
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// The model as settings have it, in JSON, instead of the options above: for a start after a failure
    #[arg(long, hide = true, value_parser = |json: &str| serde_json::from_str::<ModelPaths>(json))]
    paths: Option<ModelPaths>,
    /// A message to begin with
    #[arg(long, hide = true)]
    notice: Option<String>,
    /// Repaint 60 times a second while pictures develop, and tell on standard error how long frames took
    #[arg(long)]
    frame_times: bool,
    /// Write the manual page to standard output and open no window: for packages
    #[arg(long, hide = true)]
    man: bool,
}

fn main() -> ExitCode {
    console::attach();
    console::shorten_panics();
    catch_unwind(run).unwrap_or_else(|panic| console::fail(&console::broke_off(&*panic)))
}

fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(answer) => return console::answer(&answer),
    };
    if args.man {
        return match write_manual_page() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => console::fail(&format!("the manual page could not be written: {error}")),
        };
    }
    tintype::memory::keep_freed_memory();
    tintype::shaders::keep_compiled_kernels();
    match window::run(&start(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => console::fail(&sentence),
    }
}

/// The same version writes the same page, whatever its features and day.
fn write_manual_page() -> std::io::Result<()> {
    // clap_mangen writes no argument for an empty date, and roff would then take the next one, the source, for it.
    let no_date = r#""""#;
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command().long_version(None::<&str>))
        .date(no_date)
        .source(concat!("tintype ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    std::io::stdout().write_all(&page)
}

/// What the command line says.
fn start(args: &Args) -> Start {
    let path = |path: &Option<PathBuf>| path.as_deref().map(whole);
    let paths = ModelPaths {
        model: path(&args.model),
        average: None,
        config: path(&args.config),
        vae: path(&args.vae),
        vae_config: None,
        stats: path(&args.stats),
        guide: None,
        names: path(&args.names),
    };
    let project = directories::ProjectDirs::from("", "", "tintype");
    let users = directories::UserDirs::new();
    let pictures = users.map_or_else(PathBuf::new, |dirs| {
        dirs.picture_dir().map_or_else(|| dirs.home_dir().join("Pictures"), Into::into)
    });
    Start {
        preferences: path(&args.settings).unwrap_or_else(|| {
            project.map_or_else(PathBuf::new, |dirs| dirs.config_dir().join("settings.json"))
        }),
        pictures: pictures.join("Tintype"),
        paths: args.paths.clone().or((paths != ModelPaths::default()).then_some(paths)),
        device: args.device.clone(),
        output: path(&args.out),
        files: args.files.iter().map(|path| whole(path)).collect(),
        environment: None,
        open: Arc::default(),
        folder: Arc::default(),
        notice: args.notice.clone(),
        frame_times: args.frame_times,
    }
}

/// A path that means the same at the next start, from wherever that is.
fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}
