//! What is said outside of the window: on standard error, and in a message box where that is not seen.

use std::any::Any;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use crate::text;

/// Joins the terminal that the program was started from. On Windows a program with windows has none by itself, so that
/// all that it says would be lost.
pub fn attach() {
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Console::{ATTACH_PARENT_PROCESS, AttachConsole};

        // SAFETY: it takes a number. If the parent has no console, it fails and changes nothing.
        unsafe { AttachConsole(ATTACH_PARENT_PROCESS) };
    }
}

/// Leaves the terminal again, which goes on without waiting for the window: a Ctrl-C there is not for the window, and
/// closing the terminal must not end it. Files and pipes that are written to stay open.
pub fn detach() {
    #[cfg(windows)]
    {
        use std::ptr::null_mut;

        use windows_sys::Win32::System::Console::{
            FreeConsole, GetConsoleMode, GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE,
            STD_OUTPUT_HANDLE, SetStdHandle,
        };

        for stream in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
            let mut mode = 0;
            // SAFETY: the stream is one of the three, and `mode` outlives the call that writes it.
            // A handle of a console is gone with it, and another file may get its number, into which nothing is then to
            // be written.
            unsafe {
                if GetConsoleMode(GetStdHandle(stream), &mut mode) != 0 {
                    SetStdHandle(stream, null_mut());
                }
            }
        }
        // SAFETY: it has no arguments. Without a console it changes nothing.
        unsafe { FreeConsole() };
    }
}

/// Where in the source the main thread panicked last.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Panics take one line. Those of the main thread are said by who catches them there.
pub fn shorten_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        if std::thread::current().name() == Some("main") {
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        } else {
            let place = place.map_or(String::new(), |place| format!(" ({place})"));
            say(&format!("{}{place}", text::panic_message(info.payload())));
        }
    }));
}

/// What is to be said of a panic of the main thread that ends the program.
pub fn broke_off(panic: &(dyn Any + Send)) -> String {
    let reason = text::panic_message(panic);
    let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let place = place.map_or(String::new(), |place| format!(", {place}"));
    format!("the app broke off ({reason}{place}). Please report it.")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_main_thread_is_told_with_its_place() {
        let usual = std::panic::take_hook();
        shorten_panics();
        let main = std::thread::Builder::new().name("main".into());
        let ended = main.spawn(|| -> u8 { panic!("a wheel came off") }).expect("it starts").join();
        std::panic::set_hook(usual);
        let said = broke_off(&*ended.expect_err("it panics"));
        let place = format!("{}:", file!());
        assert!(said.contains("(a wheel came off, ") && said.contains(&place), "{said}");
        assert!(broke_off(&"again").starts_with("the app broke off (again)"), "it is told once");
    }
}
