//! The window itself: what draws it, how it is opened, and what is said where none can be.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use eframe::egui;
use eframe::egui_wgpu::{SurfaceErrorAction, WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::wgpu::{CurrentSurfaceTexture, DeviceType};

use crate::app::App;
use crate::place::bring_back;
use crate::preferences::Preferences;
use crate::start::Start;
use crate::{console, restart, text};

/// A window that fails sooner would fail again.
const SOON: Duration = Duration::from_secs(5);

/// Opens the window and returns when it is closed.
///
/// # Errors
///
/// A sentence where no window can be opened.
pub fn run(start: &Start) -> Result<(), String> {
    // A device of which everything is asked may be refused by a driver that promised it; a window
    // needs little.
    let result = match guarded(start, true) {
        Err(refused @ eframe::Error::Wgpu(_)) => guarded(start, false).map_err(|_| refused),
        result => result,
    };
    result.map_err(|error| sentence(&error))
}

/// Opens the window; should it stop working later, starts the app again.
fn guarded(start: &Start, sharing: bool) -> eframe::Result {
    let opened: Arc<OnceLock<Instant>> = Arc::default();
    let inside = opened.clone();
    catch_unwind(move || open(start, sharing, inside)).unwrap_or_else(|panic| {
        let reason = after_panic(panic, opened.get().map(Instant::elapsed));
        if opened.get().is_none() {
            return Err(eframe::Error::AppCreation(reason.into()));
        }
        // What cannot draw the window any more cannot say so in it either. The app is gone with it,
        // and its settings are free.
        let trouble = format!("The window stopped working ({reason})");
        restart::again(start, &restart::notice(&trouble))
    })
}

/// Why the window is gone, which was `open` for so long, if ever. A panic soon after it came goes on: it would come
/// again, and is no matter of screen or driver.
fn after_panic(panic: Box<dyn Any + Send>, open: Option<Duration>) -> String {
    if open.is_some_and(|open| open <= SOON) {
        resume_unwind(panic);
    }
    text::panic_message(&*panic)
}

/// Why there is no window, and what to do about it.
fn sentence(error: &eframe::Error) -> String {
    let (reason, needed) = match error {
        eframe::Error::WinitEventLoop(e) => (e.to_string(), Needed::Screen),
        eframe::Error::Winit(e) => (e.to_string(), Needed::Screen),
        eframe::Error::Wgpu(e) => (e.to_string(), Needed::Driver),
        other => (other.to_string(), Needed::Driver),
    };
    let reason = without_source(reason.lines().next().unwrap_or_default()).trim_end_matches('.');
    format!(
        "no window could be opened ({reason}). {} Without a window the `tintype` program makes \
         pictures, too.",
        needed.advice()
    )
}

/// What a window lacks.
#[derive(Clone, Copy)]
enum Needed {
    Screen,
    Driver,
}

impl Needed {
    fn advice(self) -> &'static str {
        match self {
            _ if !cfg!(target_os = "linux") => {
                "It needs a graphics driver: install that of the GPU's maker, or of the virtual \
                 machine."
            }
            Self::Screen => {
                "It needs a graphical session: a desktop, a remote one or `ssh -X`, for which \
                 Mesa's software drivers are enough (Debian: mesa-vulkan-drivers)."
            }
            Self::Driver => {
                "It needs a graphics driver, of which Mesa's software drivers are enough, also on \
                 a remote desktop or over `ssh -X` (Debian: mesa-vulkan-drivers)."
            }
        }
    }
}

/// A reason without the line of winit's source that it begins with.
fn without_source(reason: &str) -> &str {
    let place = reason.strip_prefix("os error at ");
    let after = place.and_then(|place| place.split_once(".rs:")?.1.split_once(": "));
    after.map_or(reason, |(_, reason)| reason)
}

/// Opens the window and returns when it is closed. With `sharing` the device that draws it is made so
/// that Burn can compute on it, too; `opened` is when it was.
fn open(start: &Start, sharing: bool, opened: Arc<OnceLock<Instant>>) -> eframe::Result {
    let options = eframe::NativeOptions {
        viewport: viewport(start),
        wgpu_options: WgpuConfiguration {
            wgpu_setup: WgpuSetup::CreateNew(setup(start, sharing)),
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
            bring_back(cc);
            let _ = opened.set(Instant::now());
            // Frame times are told in the terminal.
            if !start.frame_times {
                console::detach();
            }
            let window = cc.wgpu_render_state.clone();
            let ctx = cc.egui_ctx.clone();
            // Ctrl-C and SIGTERM close the window, so that settings are saved. The second window of a
            // process finds the handler set.
            let _ = ctrlc::set_handler(move || {
                ctx.send_viewport_cmd(egui::ViewportCommand::Close);
                // It asked for a frame before the wish was there; a covered window has no others.
                ctx.request_repaint();
            });
            Ok(Box::new(App::new(&cc.egui_ctx, window, start)))
        }),
    )
}

/// The window as it was the last time.
fn viewport(start: &Start) -> egui::ViewportBuilder {
    let viewport = egui::ViewportBuilder::default()
        .with_title("Tintype")
        .with_app_id("tintype")
        .with_icon(crate::icon::window_icon())
        .with_inner_size([1180.0, 780.0])
        .with_min_inner_size([760.0, 480.0])
        .with_drag_and_drop(true);
    let Some(window) = Preferences::window_in(&start.preferences) else { return viewport };
    let viewport = viewport.with_inner_size(window.size).with_maximized(window.maximized);
    match window.position {
        Some(position) => viewport.with_position(position),
        None => viewport,
    }
}

/// The device that draws the window.
fn setup(start: &Start, sharing: bool) -> WgpuSetupCreateNew {
    let asked_for = start.device.as_deref().is_some_and(|device| device.starts_with("wgpu"));
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    let modest = setup.device_descriptor.clone();
    if sharing {
        setup.device_descriptor = Arc::new(move |adapter| {
            // A processor in disguise computes where it was asked for alone.
            let software = adapter.get_info().device_type == DeviceType::Cpu;
            match software && !asked_for {
                true => modest(adapter),
                false => tintype::device::descriptor(adapter),
            }
        });
    }
    setup
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_no_line_of_source() {
        let missing = "neither WAYLAND_DISPLAY nor WAYLAND_SOCKET nor DISPLAY is set.";
        for place in ["/home/someone/winit-0.30/src/linux/mod.rs:728", r"C:\cargo\winit\mod.rs:7"] {
            assert_eq!(without_source(&format!("os error at {place}: {missing}")), missing);
        }
        assert_eq!(without_source(missing), missing);
        assert_eq!(without_source("os error at nothing"), "os error at nothing");
    }

    #[test]
    fn a_failure_is_one_line_and_says_what_to_do() {
        let error = eframe::Error::AppCreation("a driver broke\nand went on about it".into());
        let sentence = sentence(&error);
        assert!(sentence.contains("a driver broke") && sentence.lines().count() == 1, "{sentence}");
        assert!(
            sentence.contains("graphics driver") && sentence.contains("`tintype`"),
            "{sentence}"
        );
    }

    /// Only a window that worked is worth another start, and only where there was none is it the driver's fault.
    #[test]
    fn a_panic_soon_after_the_window_came_is_the_apps_own() {
        let after = |open: Option<Duration>| {
            catch_unwind(move || after_panic(Box::new("a wheel came off"), open))
        };
        for open in [None, Some(SOON * 2)] {
            assert_eq!(after(open).expect("it is taken in"), "a wheel came off");
        }
        let gone_on = after(Some(SOON / 2)).expect_err("it goes on");
        assert_eq!(text::panic_message(&*gone_on), "a wheel came off");
    }
}
