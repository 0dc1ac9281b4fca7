//! The program itself on a real X server, drawn by the software GPU: start, type, look.
//! Needs `Xvfb` (Debian: xvfb) and a Vulkan driver (mesa-vulkan-drivers).
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tintype::generate::{ModelFiles, Origin};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{self, ConnectionExt as _, InputFocus, Window};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WIDTH: u16 = 1000;
const HEIGHT: u16 = 700;
/// A picture on a software GPU takes over a minute of processor time, and other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(900);

/// Programs side by side would only take each other's processor.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An X server of our own and what it is asked through.
struct Screen {
    _server: Process,
    name: String,
    connection: RustConnection,
    root: Window,
}

impl Screen {
    fn open() -> Result<Self> {
        let size = format!("{WIDTH}x{HEIGHT}x24");
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", &size, "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("Xvfb does not start ({e}); Debian has it in the package xvfb"))?;
        let mut number = String::new();
        let output = server.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut number)?;
        let name = format!(":{}", number.trim());
        let (connection, screen) = x11rb::connect(Some(&name))?;
        let root = connection.setup().roots[screen].root;
        Ok(Self { _server: Process(server), name, connection, root })
    }

    /// The window of the app, once it is there, with the keyboard in it.
    fn focus(&self, app: &mut Process) -> Result<Window> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = app.0.try_wait()? {
                return Err(format!("the app ended: {status}").into());
            }
            for window in self.connection.query_tree(self.root)?.reply()?.children {
                let visible = self.connection.get_window_attributes(window)?.reply()?.map_state
                    == xproto::MapState::VIEWABLE;
                let large = self.connection.get_geometry(window)?.reply()?.width > 500;
                if visible && large {
                    self.connection.set_input_focus(InputFocus::PARENT, window, 0u32)?;
                    self.connection.flush()?;
                    return Ok(window);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("no window".into())
    }

    /// Types letters; `\n` is Enter.
    fn type_text(&self, text: &str) -> Result<()> {
        let setup = self.connection.setup();
        let (first, count) = (setup.min_keycode, setup.max_keycode - setup.min_keycode + 1);
        let map = self.connection.get_keyboard_mapping(first, count)?.reply()?;
        for letter in text.chars() {
            let symbol = if letter == '\n' { 0xff0d } else { letter as u32 };
            let keys = map.keysyms.chunks(map.keysyms_per_keycode.into());
            let at = keys.map(|symbols| symbols[0]).position(|s| s == symbol).ok_or("no key")?;
            for event in [xproto::KEY_PRESS_EVENT, xproto::KEY_RELEASE_EVENT] {
                let key = first + u8::try_from(at)?;
                self.connection.xtest_fake_input(event, key, 0, self.root, 0, 0, 0)?;
                self.connection.flush()?;
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        Ok(())
    }

    /// What is on the screen, `[red, green, blue]` by row.
    fn photograph(&self) -> Result<Vec<[u8; 3]>> {
        let format = xproto::ImageFormat::Z_PIXMAP;
        let image =
            self.connection.get_image(format, self.root, 0, 0, WIDTH, HEIGHT, !0)?.reply()?;
        Ok(image.data.chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect())
    }
}

/// Different colours in a part of the window.
fn colours(photograph: &[[u8; 3]], xs: Range<usize>, ys: Range<usize>) -> usize {
    let places = ys.flat_map(|y| xs.clone().map(move |x| y * usize::from(WIDTH) + x));
    places.map(|at| photograph[at]).collect::<BTreeSet<_>>().len()
}

/// Of the middle, where the picture is.
fn picture_colours(photograph: &[[u8; 3]]) -> usize {
    colours(photograph, 400..600, 90..350)
}

/// Of the left, where classes are listed once the model is read.
fn list_colours(photograph: &[[u8; 3]]) -> usize {
    colours(photograph, 0..240, 100..500)
}

/// Starts the app on a device, asks for a picture and returns what the app said at the end. `name` is of
/// the photograph, `environment` is what the app finds in addition.
fn develop(name: &str, device: &str, steps: usize, environment: &[(&str, &str)]) -> Result<String> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("settings.json");
    let fingerprint = ModelFiles::embedded()?.model.fingerprint();
    let remembered = json!({
        "form": {"seed": 7, "seed_locked": true, "count": 1, "classes": []},
        "window": {"position": [0.0, 0.0], "size": [f32::from(WIDTH), f32::from(HEIGHT)], "maximized": false},
        "models": {fingerprint: {"settings": {
            "sampler": "euler", "steps": steps,
            "guidance": {"scale": 2.0, "low": 0.0, "high": 1.0, "channels": null},
        }}},
    });
    std::fs::write(&settings, remembered.to_string())?;
    let pictures = folder.path().join("pictures");
    let screen = Screen::open()?;
    let errors = folder.path().join("errors.txt");
    let mut app = Process(
        Command::new(env!("CARGO_BIN_EXE_tintype-desktop"))
            .args(["--device", device, "--frame-times", "--settings"])
            .arg(&settings)
            .arg("--out")
            .arg(&pictures)
            .env("DISPLAY", &screen.name)
            .env("XDG_RUNTIME_DIR", folder.path())
            .env_remove("WAYLAND_DISPLAY")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&errors)?)
            .spawn()?,
    );
    screen.focus(&mut app)?;
    let shown = Instant::now();
    let before = loop {
        let photograph = screen.photograph()?;
        if list_colours(&photograph) > 20 {
            break photograph;
        }
        assert!(app.0.try_wait()?.is_none(), "the app ended before its classes were listed");
        assert!(shown.elapsed() < PATIENCE, "no classes are listed");
        std::thread::sleep(Duration::from_millis(100));
    };
    screen.type_text("fruit\n")?;
    let saved = pictures.join("fruit-17-7.png");
    let started = Instant::now();
    while !saved.exists() {
        let said = || std::fs::read_to_string(&errors).unwrap_or_default();
        assert!(app.0.try_wait()?.is_none(), "the app ended: {}", said());
        assert!(started.elapsed() < PATIENCE, "no picture on {device}: {}", said());
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = screen.photograph()?;
    keep(&after, name)?;
    let origin = Origin::read(&std::fs::read(&saved)?)?;
    let fits = device == "auto" || origin.device.starts_with(device);
    assert!(fits, "{} instead of {device}", origin.device);
    let [before, after] = [before, after].map(|photograph| picture_colours(&photograph));
    assert!(after > before + 500, "{after} colours after {before}: is there a picture?");
    // Whoever asks nicely gets a clean end.
    Command::new("kill").arg(app.0.id().to_string()).status()?;
    assert!(app.0.wait()?.success(), "a clean end");
    let said = std::fs::read_to_string(&errors)?;
    assert!(settings.exists());
    Ok(said)
}

/// Leaves the photograph where a person finds it.
fn keep(photograph: &[[u8; 3]], name: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let rgb = tintype::image::Rgb {
        width: WIDTH.into(),
        height: HEIGHT.into(),
        pixels: photograph.iter().flatten().copied().collect(),
    };
    std::fs::write(folder.join(format!("desktop-{name}.png")), rgb.to_png(&[])?)?;
    Ok(())
}

#[test]
fn a_picture_develops_on_the_processor() -> Result<()> {
    println!("processor: {}", develop("processor", "cpu", 4, &[])?);
    Ok(())
}

/// A machine without any Vulkan driver: OpenGL draws, the processor computes, nobody is asked.
#[test]
fn a_picture_develops_without_a_gpu_driver() -> Result<()> {
    let none = [("VK_DRIVER_FILES", "/nowhere.json"), ("VK_ICD_FILENAMES", "/nowhere.json")];
    let said = develop("no-driver", "auto", 4, &none)?;
    assert!(said.contains("networks on cpu"), "{said}");
    Ok(())
}

/// Network and window share one device, and what is developing is drawn from its memory.
#[test]
fn a_picture_develops_on_the_device_that_draws_the_window() -> Result<()> {
    let said = develop("shared", "wgpu", 4, &[])?;
    println!("shared device: {said}");
    assert!(said.contains("which also drew the window"), "{said}");
    Ok(())
}
