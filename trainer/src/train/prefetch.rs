//! Prefetching of batches in another thread.

use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result};

/// Prefetched batches.
const AHEAD: usize = 2;

/// An endless, prefetched stream of batches.
#[derive(Debug)]
pub struct Prefetch<T> {
    ready: Receiver<Result<T>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts to make batches 0, 1, 2, … ; ends when this is dropped, or after an error.
    pub fn new(make: impl Fn(u64) -> Result<T> + Send + 'static) -> Self {
        let (sender, ready) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for number in 0.. {
                let batch = make(number);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Self { ready }
    }

    /// The next batch.
    ///
    /// # Errors
    ///
    /// What `make` gave, or that its thread ended, after an error or by a panic.
    pub fn next(&self) -> Result<T> {
        self.ready.recv().context("the thread that loads data ended")?
    }
}
