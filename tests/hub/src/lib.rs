//! A Hugging Face Hub and its content network on this machine, for tests of whatever fetches from one.
//!
//! [`TestHub::start`] listens on two ports of 127.0.0.1, which stand for two hosts: the Hub, which says what a file
//! is and sends small ones, and the content network, which sends large ones and the files of plain addresses. Both
//! answer as the real ones do, honour ranges, and record every request. What else they do is scripted, one request
//! at a time:
//!
//! ```text
//! let hub = TestHub::start();
//! hub.put_large("maker/model", "weights.bin", &bytes);
//! hub.on("GET", "weights.bin", [Fault::CutAfter(1000), Fault::status(503, &[])]);
//! // … fetch hub:maker/model/weights.bin with HF_ENDPOINT set to hub.endpoint() …
//! assert_eq!(hub.seen("GET", "weights.bin").len(), 3);
//! ```
//!
//! Nothing here waits for time to pass: where a test has to do something in the middle of an answer, the answer waits
//! at a [`Gate`] that the test opens; [`wait_until`] waits for what another process does. [`TestProxy`] is a proxy
//! that tells whom it was asked to connect to.
//!
//! Programs that run as processes of their own find the Hub by `HF_ENDPOINT`; give them `NO_PROXY=127.0.0.1`, and
//! caches of their own.

mod content;
mod fault;
mod gate;
mod http;
mod listing;
mod proxy;
mod route;
mod server;
mod wait;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use content::{MAIN_COMMIT, git_sha1, sha256};
pub use fault::Fault;
pub use gate::Gate;
pub use http::{Host, Request};
pub use proxy::TestProxy;
pub use server::TestHub;
pub use wait::wait_until;

/// What a mutex holds. A test that failed meanwhile does not make others fail.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
