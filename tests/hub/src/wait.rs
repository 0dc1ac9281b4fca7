//! Waiting for what another thread or process does.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so, which is asked every millisecond.
///
/// # Panics
///
/// If it is not within a minute.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}
