//! Places where an answer waits for the test.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::locked;
use crate::wait::PATIENCE;

/// A place where an answer waits until the test lets it go on.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_reached: bool,
    is_open: bool,
}

impl Gate {
    /// A gate that is closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the answers that wait go on, and those that come.
    pub fn open(&self) {
        locked(&self.0.state).is_open = true;
        self.0.changed.notify_all();
    }

    /// Whether an answer has come here.
    pub fn is_reached(&self) -> bool {
        locked(&self.0.state).is_reached
    }

    /// Waits until an answer has come here.
    ///
    /// # Panics
    ///
    /// If none comes for a minute.
    pub fn wait(&self) {
        let begun = Instant::now();
        let mut state = locked(&self.0.state);
        while !state.is_reached {
            let left = PATIENCE.checked_sub(begun.elapsed()).expect("an answer comes to the gate");
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Comes here, and waits until the gate is open.
    pub(crate) fn pass(&self) {
        let mut state = locked(&self.0.state);
        state.is_reached = true;
        self.0.changed.notify_all();
        while !state.is_open {
            let waited = self.0.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
