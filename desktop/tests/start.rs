//! The program where little is there: a window or one sentence, and never silence. Needs `Xvfb` (Debian: xvfb) and a
//! Vulkan driver (mesa-vulkan-drivers).
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{HEIGHT, Process, Result, Screen, WIDTH, alone};
use serde_json::{Value, json};
use tintype::files::Lock;
use tintype::generate::ModelPaths;
use tintype_desktop::restart;
use tintype_desktop::start::Start;
use x11rb::protocol::xproto::ConnectionExt as _;

/// What tells a program of screens, sessions and folders.
const SURROUNDINGS: [&str; 9] = [
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// Variables by which neither Vulkan nor OpenGL finds a driver.
const NO_DRIVER: [(&str, &str); 4] = [
    ("VK_DRIVER_FILES", "/nonexistent"),
    ("VK_ICD_FILENAMES", "/nonexistent"),
    ("LIBGL_DRIVERS_PATH", "/nonexistent"),
    ("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent"),
];

/// The app in a home of its own, without a screen.
fn app(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype-desktop"));
    for name in SURROUNDINGS {
        command.env_remove(name);
    }
    // Without programs that show message boxes: those would wait for a click.
    command.env("HOME", home).env("PATH", "/nonexistent").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Starts the app on a screen, with the processor as device.
fn shown(screen: &Screen, command: &mut Command) -> Result<Process> {
    Ok(Process(command.args(["--device", "cpu"]).env("DISPLAY", &screen.name).spawn()?))
}

/// Runs an app that opens no window, and returns the sentence that says why.
fn sentence(home: &Path, command: &mut Command) -> Result<String> {
    let errors = home.join("errors.txt");
    let status = Process(command.stderr(File::create(&errors)?).spawn()?).ended()?;
    let said = std::fs::read_to_string(&errors)?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("error: no window could be opened"), "{said}");
    assert!(said.contains("`tintype`") && !said.contains("panicked"), "{said}");
    assert!(!said.contains(".rs"), "it names a line of source: {said}");
    Ok(said)
}

fn json_of(path: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

#[test]
fn without_a_screen_it_says_so() -> Result<()> {
    let home = tempfile::tempdir()?;
    let said = sentence(home.path(), &mut app(home.path()))?;
    assert!(said.contains("nor DISPLAY is set"), "{said}");
    assert!(said.contains("graphical session"), "{said}");
    // Nor does one that is named and not there help.
    sentence(home.path(), app(home.path()).env("DISPLAY", ":4321"))?;
    sentence(home.path(), app(home.path()).env("WAYLAND_DISPLAY", "/nonexistent"))?;
    Ok(())
}

#[test]
fn without_any_graphics_driver_it_says_what_to_install() -> Result<()> {
    let _alone = alone();
    let home = tempfile::tempdir()?;
    let screen = Screen::open()?;
    let mut command = app(home.path());
    let said = sentence(home.path(), command.env("DISPLAY", &screen.name).envs(NO_DRIVER))?;
    assert!(said.contains("mesa-vulkan-drivers"), "{said}");
    Ok(())
}

#[test]
fn how_it_is_started_again_is_understood() -> Result<()> {
    let home = tempfile::tempdir()?;
    let start = Start { preferences: home.path().join("settings.json"), ..Start::default() };
    start.note_open(&ModelPaths { average: Some(2), ..ModelPaths::default() });
    let again = restart::command("tintype-desktop".as_ref(), &start, "The GPU went away.");
    assert!(again.get_args().any(|arg| arg == "--paths"), "{again:?}");
    // It comes as far as the screen that is not there.
    sentence(home.path(), app(home.path()).args(again.get_args()))?;
    Ok(())
}

#[test]
fn questions_are_answered_without_a_screen() -> Result<()> {
    let home = tempfile::tempdir()?;
    let answer = |option: &str| -> Result<Output> {
        Ok(app(home.path()).arg(option).stdout(Stdio::piped()).output()?)
    };
    for (option, part) in [
        ("--version", env!("CARGO_PKG_VERSION")),
        ("--help", "--settings"),
        ("--man", ".TH tintype-desktop 1"),
    ] {
        let Output { status, stdout, stderr } = answer(option)?;
        assert!(status.success() && stderr.is_empty(), "{option}");
        assert!(String::from_utf8(stdout)?.contains(part), "{option}");
    }
    let Output { status, stdout, stderr } = answer("--nonsense")?;
    assert_eq!((status.code(), stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(stderr)?.starts_with("error: unexpected argument '--nonsense'"));
    Ok(())
}

#[test]
fn a_home_that_cannot_be_created_is_enough_for_a_window() -> Result<()> {
    let _alone = alone();
    let folder = tempfile::tempdir()?;
    let screen = Screen::open()?;
    let mut command = app(Path::new("/proc/nowhere"));
    let mut app = shown(&screen, command.current_dir(folder.path()))?;
    screen.window(&mut app)?;
    screen.with_classes(&mut app)?;
    assert!(app.close()?.success(), "a clean end");
    let mut left = std::fs::read_dir(folder.path())?;
    assert!(left.next().is_none(), "settings are not for where it was started");
    Ok(())
}

#[test]
fn of_two_windows_the_first_saves_the_settings() -> Result<()> {
    let _alone = alone();
    let home = tempfile::tempdir()?;
    let settings = home.path().join("settings.json");
    let screen = Screen::open()?;
    let start = |output: &str| {
        let mut command = app(home.path());
        command.arg("--settings").arg(&settings).arg("--out").arg(home.path().join(output));
        shown(&screen, &mut command)
    };
    let mut first = start("first")?;
    screen.window(&mut first)?;
    let mut second = start("second")?;
    screen.until(&mut second, "no second window", |screen| {
        Ok((screen.windows()?.len() == 2).then_some(()))
    })?;
    let lock = home.path().join("settings.json.lock");
    assert!(Lock::take(&lock).is_err(), "the first window holds it");
    assert!(first.close()?.success() && second.close()?.success(), "clean ends");
    assert_eq!(json_of(&settings)?["output"], json!(home.path().join("first")));
    assert!(Lock::take(&lock).is_ok(), "the next window is the first one");
    Ok(())
}

#[test]
fn a_window_that_was_on_another_screen_comes_back() -> Result<()> {
    let _alone = alone();
    let home = tempfile::tempdir()?;
    let settings = home.path().join("settings.json");
    let window = json!({"position": [5000.0, 4000.0], "size": [800.0, 600.0], "maximized": false});
    std::fs::write(&settings, json!({"window": window}).to_string())?;
    let screen = Screen::open()?;
    let mut app = shown(&screen, app(home.path()).arg("--settings").arg(&settings))?;
    let window = screen.window(&mut app)?;
    let place = screen.connection.get_geometry(window)?.reply()?;
    let end = |at: i16, length: u16| i32::from(at) + i32::from(length);
    assert!(place.x >= 0 && end(place.x, place.width) <= i32::from(WIDTH), "{place:?}");
    assert!(place.y >= 0 && end(place.y, place.height) <= i32::from(HEIGHT), "{place:?}");
    assert!(app.close()?.success(), "a clean end");
    Ok(())
}
