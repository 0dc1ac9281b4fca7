//! Signals that end a command: the first finishes what is being done, a later one exits.
//!
//! Schedulers and process groups send a signal twice within moments; that is one request. A request that comes
//! a second later or more exits at once, but for a checkpoint, which is finished before. SIGHUP stays ignored
//! where it was, as under `nohup`. On Windows Ctrl-C, Ctrl-Break and the closing of the console are such signals; of
//! logging off and shutting down it tells services alone.

#[cfg(windows)]
mod console;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

#[cfg(windows)]
use self::console::install;
use crate::train::critical;

/// Signals that follow the first one sooner are the same request.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// What the next signal does.
static CURRENT: Mutex<Current> = Mutex::new(Current { first: None, part: None });

/// The part of a command that a signal ends.
struct Current {
    /// When the first signal came.
    first: Option<Instant>,
    /// The flag that it sets, and what it prints; `None` where a signal ends the process at once.
    part: Option<(Arc<AtomicBool>, &'static str)>,
}

fn current() -> MutexGuard<'static, Current> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a flag that SIGINT (Ctrl-C), SIGTERM or SIGHUP, or on Windows the console, sets; prints `message` then.
///
/// # Errors
///
/// If the system refuses a handler.
pub fn on_interrupt(message: &'static str) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    {
        let mut current = current();
        flag.store(current.first.is_some(), Ordering::Relaxed);
        current.part = Some((flag.clone(), message));
    }
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_installed {
        install(on_signal).context("signals cannot be handled")?;
        *is_installed = true;
    }
    Ok(flag)
}

/// [`on_interrupt`] for a part of a command: once this is dropped, a signal ends the process again.
pub struct Interruptible(Arc<AtomicBool>);

impl Interruptible {
    /// From here on.
    ///
    /// # Errors
    ///
    /// As [`on_interrupt`].
    pub fn begin(message: &'static str) -> Result<Self> {
        on_interrupt(message).map(Self)
    }

    /// The flag.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        current().part = None;
    }
}

fn on_signal() {
    let mut current = current();
    match (current.first, &current.part) {
        (None, Some((flag, message))) => {
            flag.store(true, Ordering::Relaxed);
            // The terminal may be gone, at which `eprintln` would panic.
            let _ = writeln!(io::stderr(), "{message}");
            current.first = Some(Instant::now());
        }
        (Some(at), Some(_)) if at.elapsed() < ONE_REQUEST => {}
        _ => {
            drop(current);
            let _whole = critical::begin();
            std::process::exit(super::INTERRUPTED.into());
        }
    }
}

/// Files that reach a limit of their size are errors from now on, as on a full disk, and not a signal that ends the
/// process.
pub fn ignore_file_limits() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal has no handler that could do wrong.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Calls `on_signal` in a thread of its own after each signal.
#[cfg(unix)]
fn install(on_signal: fn()) -> io::Result<()> {
    use std::io::Read;
    use std::os::fd::IntoRawFd;

    let (mut signals, wake) = io::pipe()?;
    // It stays open as long as the process.
    let wake = wake.into_raw_fd();
    if unix::WAKE.compare_exchange(-1, wake, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut signal = [0];
        while signals.read_exact(&mut signal).is_ok() {
            on_signal();
        }
    })?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        if signal != libc::SIGHUP || !unix::is_ignored(signal)? {
            unix::handle(signal)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The pipe that wakes the thread; -1 before there is one.
    pub static WAKE: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn wake(_signal: libc::c_int) {
        let byte = [0u8];
        // SAFETY: `write` may be called in a signal's handler, and the byte outlives the call. The pipe has
        // room for thousands of signals, so it neither waits nor fails, and `errno` stays as it was.
        unsafe {
            libc::write(WAKE.load(Ordering::SeqCst), byte.as_ptr().cast(), 1);
        }
    }

    /// Whether a signal is ignored now.
    pub fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
        // SAFETY: zeros are a `sigaction`, which the call fills; it changes nothing without a new one.
        let (failed, old) = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, std::ptr::null(), &mut old), old)
        };
        match failed {
            0 => Ok(old.sa_sigaction == libc::SIG_IGN),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Handles a signal; system calls that it interrupts go on.
    pub fn handle(signal: libc::c_int) -> io::Result<()> {
        let handler: extern "C" fn(libc::c_int) = wake;
        // SAFETY: zeros are a `sigaction` with an empty mask; the handler does what one may do.
        let failed = unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = handler as *const () as libc::sighandler_t;
            new.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&mut new.sa_mask);
            libc::sigaction(signal, &new, std::ptr::null_mut())
        };
        match failed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
