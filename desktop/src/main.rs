//! `tintype-desktop`: pick a class and watch the picture develop.
#![recursion_limit = "256"]
#![cfg_attr(windows, windows_subsystem = "windows")]

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use eframe::egui;
use eframe::egui_wgpu::{SurfaceErrorAction, WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::wgpu::CurrentSurfaceTexture;
use tintype::generate::ModelPaths;
use tintype_desktop::app::{App, Start};
use tintype_desktop::preferences::Preferences;
use tintype_desktop::{restart, text};

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
    /// A message to begin with
    #[arg(long, hide = true)]
    notice: Option<String>,
    /// Repaint 60 times a second while pictures develop, and tell on standard error how long frames took
    #[arg(long)]
    frame_times: bool,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), |place| format!(" ({place})"));
        eprintln!("error: {}{place}", text::panic_message(info.payload()));
    }));
    let args = Args::parse();
    tintype::memory::keep_freed_memory();
    tintype::shaders::keep_compiled_kernels();
    let start = start(&args);
    // A device of which everything is asked may be refused by a driver that promised it; a window
    // needs little.
    let result = match guarded(&start, true) {
        Err(refused @ eframe::Error::Wgpu(_)) => guarded(&start, false).map_err(|_| refused),
        result => result,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sentence = format!(
                "no window could be opened ({error}); a screen and a graphics driver are needed, of \
                 which Mesa's software drivers are enough (Debian: mesa-vulkan-drivers). Without \
                 either, the `tintype` program makes pictures, too."
            );
            eprintln!("error: {sentence}");
            rfd::MessageDialog::new()
                .set_level(rfd::MessageLevel::Error)
                .set_title("Tintype")
                .set_description(sentence)
                .show();
            ExitCode::FAILURE
        }
    }
}

/// A window that fails sooner would fail again.
const SOON: Duration = Duration::from_secs(5);

/// Opens the window; should it stop working later, starts the app again.
fn guarded(start: &Start, sharing: bool) -> eframe::Result {
    let opened = Instant::now();
    catch_unwind(|| window(start, sharing)).unwrap_or_else(|panic| {
        let reason = text::panic_message(&*panic);
        if opened.elapsed() > SOON {
            // What cannot draw the window any more cannot say so in it either.
            let trouble = format!("The window stopped working ({reason})");
            restart::again(start, &restart::notice(&trouble))
        }
        Err(eframe::Error::AppCreation(reason.into()))
    })
}

/// What the command line says.
fn start(args: &Args) -> Start {
    let paths = ModelPaths {
        model: args.model.clone(),
        average: None,
        config: args.config.clone(),
        vae: args.vae.clone(),
        vae_config: None,
        stats: args.stats.clone(),
        guide: None,
        names: args.names.clone(),
    };
    let project = directories::ProjectDirs::from("", "", "tintype");
    let users = directories::UserDirs::new();
    let pictures = users.map_or_else(PathBuf::new, |dirs| {
        dirs.picture_dir().map_or_else(|| dirs.home_dir().join("Pictures"), Into::into)
    });
    Start {
        preferences: args.settings.clone().unwrap_or_else(|| {
            project.map_or_else(PathBuf::new, |dirs| dirs.config_dir().into()).join("settings.json")
        }),
        pictures: pictures.join("Tintype"),
        paths: (paths != ModelPaths::default()).then_some(paths),
        device: args.device.clone(),
        output: args.out.clone(),
        files: args.files.clone(),
        environment: None,
        notice: args.notice.clone(),
        frame_times: args.frame_times,
    }
}

/// Opens the window and returns when it is closed. With `sharing` the device that draws it is made so
/// that Burn can compute on it, too.
fn window(start: &Start, sharing: bool) -> eframe::Result {
    let mut viewport = egui::ViewportBuilder::default()
        .with_title("Tintype")
        .with_app_id("tintype")
        .with_icon(tintype_desktop::icon::window_icon())
        .with_inner_size([1180.0, 780.0])
        .with_min_inner_size([760.0, 480.0])
        .with_drag_and_drop(true);
    if let Some(window) = Preferences::window_in(&start.preferences) {
        viewport = viewport.with_inner_size(window.size).with_maximized(window.maximized);
        if let Some(position) = window.position {
            viewport = viewport.with_position(position);
        }
    }
    let asked_for = start.device.as_deref().is_some_and(|device| device.starts_with("wgpu"));
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    let modest = setup.device_descriptor.clone();
    if sharing {
        setup.device_descriptor = Arc::new(move |adapter| {
            // On a processor in disguise nobody computes unless asked to.
            let software = adapter.get_info().device_type == eframe::wgpu::DeviceType::Cpu;
            match software && !asked_for {
                true => modest(adapter),
                false => tintype::device::descriptor(adapter),
            }
        });
    }
    let options = eframe::NativeOptions {
        viewport,
        wgpu_options: WgpuConfiguration {
            wgpu_setup: WgpuSetup::CreateNew(setup),
            // A surface that could not be configured while networks were computing is tried again.
            on_surface_status: Arc::new(|status| match status {
                CurrentSurfaceTexture::Outdated | CurrentSurfaceTexture::Validation => {
                    SurfaceErrorAction::Reconfigure
                }
                CurrentSurfaceTexture::Lost => SurfaceErrorAction::RecreateSurface,
                _ => SurfaceErrorAction::SkipFrame,
            }),
            ..WgpuConfiguration::default()
        },
        persist_window: false,
        // There are no gradients that it would smooth.
        dithering: false,
        ..Default::default()
    };
    let start = start.clone();
    eframe::run_native(
        "Tintype",
        options,
        Box::new(move |cc| {
            let window = cc.wgpu_render_state.clone();
            let ctx = cc.egui_ctx.clone();
            // Ctrl-C and SIGTERM close the window, so that settings are saved. The second window of a
            // process finds the handler set.
            let _ = ctrlc::set_handler(move || {
                ctx.send_viewport_cmd(egui::ViewportCommand::Close);
            });
            Ok(Box::new(App::new(&cc.egui_ctx, window, start)))
        }),
    )
}
