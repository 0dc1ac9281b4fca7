//! The thread that owns a communicator: it takes requests, waits until their inputs are computed, calls NCCL and
//! polls until the device has done what was asked.

use std::any::Any;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle, sleep, yield_now};
use std::time::{Duration, Instant};

use super::super::CommError;
use super::calls::{CUDA, Calls, Fault, NCCL};

/// How long a collective is polled without pause: a bucket within a machine takes less.
const SPIN: Duration = Duration::from_millis(1);
/// The pause between polls after that.
const PAUSE: Duration = Duration::from_micros(100);
/// How often NCCL is asked whether a connection broke.
const CHECK: Duration = Duration::from_secs(1);
/// How long the other ranks are waited for at the end.
const CLOSE: Duration = Duration::from_secs(10);

/// What a collective operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sums over ranks.
    Sum,
    /// Every rank's values, in rank order.
    Gather,
    /// Rank 0's values.
    Broadcast,
}

impl Kind {
    /// What the other ranks are waited for to do.
    fn what(self) -> &'static str {
        match self {
            Self::Sum => "sum gradients",
            Self::Gather => "exchange numbers",
            Self::Broadcast => "receive weights",
        }
    }
}

/// A tensor's part in a collective operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub input: u64,
    pub output: u64,
    /// Values of the input.
    pub count: usize,
}

/// Ends when the inputs are computed; with what the device says if they cannot be.
pub(super) type Ready = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A collective operation on several tensors, which NCCL launches as one.
pub(super) struct Request {
    pub kind: Kind,
    pub parts: Vec<Part>,
    pub ready: Ready,
    /// Keeps the memory at the addresses.
    pub keep: Box<dyn Any + Send>,
    /// Whether the other ranks may take as long as they like.
    pub patient: bool,
}

/// How a request ended.
pub(super) type Outcome = Result<(), CommError>;

/// The thread, seen from those that ask it.
pub(super) struct Worker {
    /// Taken where the worker is dropped, which ends the thread.
    requests: Option<Sender<(Request, Sender<Outcome>)>>,
    failure: Arc<OnceLock<CommError>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread and waits until `join` there has met the other ranks, at most `limit`; no request waits
    /// longer for them, either.
    pub(super) fn start(
        join: impl FnOnce() -> Result<Box<dyn Calls>, CommError> + Send + 'static,
        limit: Duration,
    ) -> Result<Self, CommError> {
        let (requests, received) = channel();
        let (joined, answer) = channel();
        let failure = Arc::new(OnceLock::new());
        let shared = failure.clone();
        let thread = Builder::new().name("nccl".to_owned()).spawn(move || {
            let started = Instant::now();
            match join() {
                Ok(calls) => {
                    let mut engine = Engine { calls, limit, failure: shared };
                    let met = engine.poll("join", started, limit, |calls| calls.is_ready());
                    let healthy = met.is_ok();
                    // Nobody listens where it took too long.
                    if joined.send(met).is_ok() && healthy {
                        engine.serve(received);
                    } else {
                        engine.calls.abort();
                    }
                }
                Err(error) => drop(joined.send(Err(error))),
            }
        });
        let thread = thread.map_err(|error| CommError::Engine {
            engine: NCCL,
            problem: format!("its thread cannot start: {error}"),
        })?;
        match answer.recv_timeout(limit) {
            Ok(Ok(())) => Ok(Self { requests: Some(requests), failure, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(CommError::TimedOut { what: "join", limit }),
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    /// The first failure, after which every request fails with it.
    pub(super) fn failure(&self) -> Option<CommError> {
        self.failure.get().cloned()
    }

    /// Hands a request over; see [`wait`].
    pub(super) fn ask(&self, request: Request) -> Receiver<Outcome> {
        let (answer, outcome) = channel();
        if let Some(requests) = &self.requests {
            // Where the thread has ended, so has the other half of `outcome`.
            drop(requests.send((request, answer)));
        }
        outcome
    }
}

impl Drop for Worker {
    /// Requests that are under way are finished first. A thread that hangs is left behind.
    fn drop(&mut self) {
        drop(self.requests.take());
        let Some(thread) = self.thread.take() else { return };
        let started = Instant::now();
        while !thread.is_finished() {
            if started.elapsed() > 2 * CLOSE {
                return;
            }
            sleep(PAUSE);
        }
        // A panic there has printed its message.
        drop(thread.join());
    }
}

/// Waits for the end of a request.
pub(super) fn wait(outcome: &Receiver<Outcome>) -> Outcome {
    outcome.recv().unwrap_or_else(|_| Err(ended()))
}

/// The thread panicked, for instance because the library lacks a function.
fn ended() -> CommError {
    CommError::Engine { engine: NCCL, problem: "the thread that calls it ended".to_owned() }
}

/// What runs in the thread.
struct Engine {
    calls: Box<dyn Calls>,
    limit: Duration,
    failure: Arc<OnceLock<CommError>>,
}

impl Engine {
    /// Serves requests one after the other until nobody can ask any more. After a failure all fail as the first did.
    fn serve(mut self, requests: Receiver<(Request, Sender<Outcome>)>) {
        for (request, answer) in requests {
            let Request { kind, parts, ready, keep, patient } = request;
            if let Some(error) = self.failure.get() {
                drop(answer.send(Err(error.clone())));
                continue;
            }
            let limit = if patient { Duration::MAX } else { self.limit };
            match self.run(kind, &parts, ready, limit) {
                Ok(()) => {
                    // First, so that who waits for the outputs may compute in them in place.
                    drop(keep);
                    drop(answer.send(Ok(())));
                }
                Err(error) => {
                    // Kernels may write there until the process ends.
                    std::mem::forget(keep);
                    let error = self.failure.get_or_init(|| error).clone();
                    // First, since to abort may take long.
                    drop(answer.send(Err(error)));
                    self.calls.abort();
                }
            }
        }
        if self.failure.get().is_none() {
            self.close();
        }
    }

    fn run(&mut self, kind: Kind, parts: &[Part], ready: Ready, limit: Duration) -> Outcome {
        pollster::block_on(ready).map_err(|problem| CommError::Engine { engine: CUDA, problem })?;
        let started = Instant::now();
        self.calls.group_start()?;
        let called = parts.iter().try_for_each(|&Part { input, output, count }| match kind {
            Kind::Sum => self.calls.all_reduce(input, output, count),
            Kind::Gather => self.calls.all_gather(input, output, count),
            Kind::Broadcast => self.calls.broadcast(input, output, count),
        });
        // In any case: within an open group nothing is aborted.
        let ended = self.calls.group_end();
        called.and(ended)?;
        // The event must lie behind the launch.
        self.poll(kind.what(), started, limit, |calls| calls.is_ready())?;
        self.calls.record()?;
        self.poll(kind.what(), started, limit, |calls| calls.is_done())
    }

    /// Polls until it is so, at most `limit` since `started`. To wait for the stream would be simpler, but nothing
    /// ends that where a rank is lost.
    fn poll(
        &mut self,
        what: &'static str,
        started: Instant,
        limit: Duration,
        is_so: impl Fn(&mut dyn Calls) -> Result<bool, Fault>,
    ) -> Outcome {
        let mut checked = Instant::now();
        while !is_so(self.calls.as_mut())? {
            let waited = started.elapsed();
            if waited >= limit || checked.elapsed() >= CHECK {
                self.calls.is_ready()?;
                checked = Instant::now();
            }
            if waited >= limit {
                return Err(CommError::TimedOut { what, limit });
            }
            if waited < SPIN { yield_now() } else { sleep(PAUSE) }
        }
        Ok(())
    }

    /// Ends a healthy communicator, which the other ranks end, too; aborts it where they do not.
    fn close(&mut self) {
        let limit = self.limit.min(CLOSE);
        let closed = self.calls.finalize().map_err(CommError::from);
        let closed =
            closed.and_then(|()| self.poll("end", Instant::now(), limit, |calls| calls.is_ready()));
        match closed {
            Ok(()) => self.calls.destroy(),
            Err(_) => self.calls.abort(),
        }
    }
}
