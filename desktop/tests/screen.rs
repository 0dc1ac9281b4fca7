//! The program itself on a real X server, drawn by the software GPU: start, type, look.
//! Needs `Xvfb` (Debian: xvfb) and a Vulkan driver (mesa-vulkan-drivers).
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{HEIGHT, PATIENCE, Process, Result, Screen, WIDTH, alone, colours};
use serde_json::json;
use tintype::generate::{ModelFiles, Origin};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{self, ConnectionExt as _, InputFocus};
use x11rb::protocol::xtest::ConnectionExt as _;

/// Waits for the window of the app, and puts the keyboard into it.
fn focus(screen: &Screen, app: &mut Process) -> Result<()> {
    let window = screen.window(app)?;
    screen.connection.set_input_focus(InputFocus::PARENT, window, 0u32)?;
    screen.connection.flush()?;
    Ok(())
}

/// Types letters; `\n` is Enter.
fn type_text(screen: &Screen, text: &str) -> Result<()> {
    let connection = &screen.connection;
    let setup = connection.setup();
    let (first, count) = (setup.min_keycode, setup.max_keycode - setup.min_keycode + 1);
    let map = connection.get_keyboard_mapping(first, count)?.reply()?;
    for letter in text.chars() {
        let symbol = if letter == '\n' { 0xff0d } else { letter as u32 };
        let keys = map.keysyms.chunks(map.keysyms_per_keycode.into());
        let at = keys.map(|symbols| symbols[0]).position(|s| s == symbol).ok_or("no key")?;
        for event in [xproto::KEY_PRESS_EVENT, xproto::KEY_RELEASE_EVENT] {
            let key = first + u8::try_from(at)?;
            connection.xtest_fake_input(event, key, 0, screen.root, 0, 0, 0)?;
            connection.flush()?;
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    Ok(())
}

/// Of the middle, where the picture is.
fn picture_colours(photograph: &[[u8; 3]]) -> usize {
    colours(photograph, 400..600, 90..350)
}

/// Starts the app on a device, asks for a picture and returns what the app said at the end. `name` is of
/// the photograph, `environment` is what the app finds in addition.
fn develop(name: &str, device: &str, steps: usize, environment: &[(&str, &str)]) -> Result<String> {
    let _alone = alone();
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
    focus(&screen, &mut app)?;
    let before = screen.with_classes(&mut app)?;
    type_text(&screen, "fruit\n")?;
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
    assert!(app.close()?.success(), "a clean end");
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
