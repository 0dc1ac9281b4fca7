//! What a console of Windows sends: Ctrl-C, Ctrl-Break, and that its window is closed; to services the ends of session and
//! system, too.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// Its window is closed.
const CLOSE: u32 = 2;
/// The user logs off. Services alone are told; other programs are ended without a word, as at [`SHUTDOWN`].
const LOGOFF: u32 = 5;
/// The system shuts down.
const SHUTDOWN: u32 = 6;
/// How long these leave a program for its own end. The system ends it once the handler returns, or after 5 s.
const GRACE: Duration = Duration::from_millis(4500);

type Handler = extern "system" fn(u32) -> i32;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn SetConsoleCtrlHandler(handler: Option<Handler>, add: i32) -> i32;
}

static ON_SIGNAL: OnceLock<fn()> = OnceLock::new();

/// Calls `on_signal` after each, in a thread that the system starts for it.
///
/// # Errors
///
/// If there is a handler already, or the system refuses one.
pub fn install(on_signal: fn()) -> io::Result<()> {
    ON_SIGNAL.set(on_signal).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
    // SAFETY: the handler is a function of the program, and may run in any thread.
    match unsafe { SetConsoleCtrlHandler(Some(handle), 1) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Tells that it handled an event.
extern "system" fn handle(event: u32) -> i32 {
    if let Some(on_signal) = ON_SIGNAL.get() {
        on_signal();
    }
    if matches!(event, CLOSE | LOGOFF | SHUTDOWN) {
        // Meanwhile the program's own threads write a checkpoint and end the process.
        std::thread::sleep(GRACE);
    }
    1
}
