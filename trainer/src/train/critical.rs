//! What the end of the process waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};

static WHOLE: Mutex<()> = Mutex::new(());

/// Begins work that is not to be cut in half, such as a checkpoint; it ends when the guard is dropped. Who ends
/// the process takes the guard before and keeps it.
pub fn begin() -> MutexGuard<'static, ()> {
    WHOLE.lock().unwrap_or_else(PoisonError::into_inner)
}
