//! Ctrl-C: finish what is in hand; a second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// A flag that Ctrl-C (or a polite `kill`) raises after saying what will happen.
///
/// # Errors
///
/// If there is a handler already, or the system refuses one.
pub fn on_interrupt(message: &'static str) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(super::INTERRUPTED.into());
        }
        eprintln!("{message}");
    })
    .context("Ctrl-C cannot be handled")?;
    Ok(flag)
}
