//! What is said outside of the window: on standard error, and in a message box where that is not seen.

use std::io::Write;
use std::process::ExitCode;

use crate::text;

/// Joins the terminal that the program was started from. On Windows a program with windows has none by itself, so that
/// all that it says would be lost.
pub fn attach() {
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Console::{ATTACH_PARENT_PROCESS, AttachConsole};

        // SAFETY: it takes a number. It does nothing where the parent has no console.
        unsafe { AttachConsole(ATTACH_PARENT_PROCESS) };
    }
}

/// Panics take one line. Those of the main thread are said by who catches them there.
pub fn shorten_panics() {
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name() != Some("main") {
            let place = info.location().map_or(String::new(), |place| format!(" ({place})"));
            say(&format!("{}{place}", text::panic_message(info.payload())));
        }
    }));
}

/// Answers a command line that opens no window: help, the version, or what is wrong with it.
pub fn answer(answer: &clap::Error) -> ExitCode {
    if is_heard() {
        // There is no way left to say that this failed.
        let _ = answer.print();
    } else {
        let level = match answer.use_stderr() {
            true => rfd::MessageLevel::Error,
            false => rfd::MessageLevel::Info,
        };
        show(level, &answer.render().to_string());
    }
    ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(u8::MAX))
}

/// Says why the program ends: on standard error, and where there is a screen in a message box.
pub fn fail(sentence: &str) -> ExitCode {
    say(sentence);
    if has_screen() {
        show(rfd::MessageLevel::Error, sentence);
    }
    ExitCode::FAILURE
}

fn say(sentence: &str) {
    // A terminal that was closed hears nothing.
    let _ = writeln!(std::io::stderr(), "error: {sentence}");
}

/// Returns when the box is closed, or at once where the system shows none: on Linux that takes `zenity`.
fn show(level: rfd::MessageLevel, text: &str) {
    rfd::MessageDialog::new().set_level(level).set_title("Tintype").set_description(text).show();
}

/// Whether standard error leads anywhere.
fn is_heard() -> bool {
    #[cfg(windows)]
    {
        use std::os::windows::io::AsRawHandle;

        !std::io::stderr().as_raw_handle().is_null()
    }
    #[cfg(not(windows))]
    true
}

/// Whether a message box could be seen.
fn has_screen() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos"))
        || ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"].into_iter().any(is_set)
}
