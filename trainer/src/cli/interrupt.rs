//! Ctrl-C: the first finishes the current step, a second one exits at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Returns a flag that SIGINT (Ctrl-C) or SIGTERM sets; prints `message` then.
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
