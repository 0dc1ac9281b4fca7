//! Prefetching of batches in other threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow, bail};

/// Most threads that make batches for one device. Much of the making is on all cores already: more threads are for
/// what is not, and for waiting for a disk.
const MOST_READERS: usize = 4;
/// Fewest batches that are ready or being made.
const LEAST_AHEAD: usize = 3;

/// An endless, prefetched stream of batches.
#[derive(Debug)]
pub struct Prefetch<T> {
    shared: Arc<Shared<T>>,
}

/// What the readers share with the one who takes their batches.
#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Told when the state has changed.
    changed: Condvar,
    /// Most batches that are ready or being made.
    ahead: u64,
}

#[derive(Debug)]
struct State<T> {
    /// The number of the batch that is begun next.
    begun: u64,
    /// The number of the batch that is taken next.
    taken: u64,
    /// Batches that are made and not taken, by their numbers.
    ready: BTreeMap<u64, Result<T>>,
    /// Nothing more is begun: a batch failed, or nothing is taken any more.
    ending: bool,
    /// Nothing more is taken: an error was given, or the stream was dropped.
    ended: bool,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts to make batches 0, 1, 2, …, several at once on a machine with many cores; ends when this is dropped, or
    /// after an error. A batch follows from its number alone, however many are made at once.
    pub fn new(make: impl Fn(u64) -> Result<T> + Send + Sync + 'static) -> Self {
        // The other half of the cores has the training on a CPU, and the readers of other devices.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = (cores / 2).clamp(1, MOST_READERS);
        Self::with_readers(readers, LEAST_AHEAD.max(readers + 1), make)
    }

    /// The same with so many readers, who keep up to `ahead` batches ready or in the making.
    fn with_readers(
        readers: usize,
        ahead: usize,
        make: impl Fn(u64) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let ready = BTreeMap::new();
        let state = State { begun: 0, taken: 0, ready, ending: false, ended: false };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { state, changed, ahead: ahead as u64 });
        let make = Arc::new(make);
        for _ in 0..readers {
            let (shared, make) = (shared.clone(), make.clone());
            std::thread::spawn(move || {
                while let Some(number) = shared.begin() {
                    // The panic hook has already reported a panic.
                    let batch = catch_unwind(AssertUnwindSafe(|| make(number)));
                    let panicked = |_| Err(anyhow!("a thread that loads data panicked"));
                    shared.finish(number, batch.unwrap_or_else(panicked));
                }
            });
        }
        Self { shared }
    }

    /// The next batch, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// What `make` gave for this batch, or that it panicked; after that, that the stream has ended.
    pub fn next(&self) -> Result<T> {
        let mut state = self.shared.state();
        while !state.ended {
            let number = state.taken;
            if let Some(batch) = state.ready.remove(&number) {
                state.taken += 1;
                state.ended = batch.is_err();
                if state.ended {
                    state.ready.clear();
                }
                self.shared.changed.notify_all();
                return batch;
            }
            // It is being made, even where a later one has failed already: they are begun in order.
            state = self.shared.wait(state);
        }
        bail!("the threads that load data have ended")
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // A reader in the midst of a batch ends after it, and nothing waits for that.
        let mut state = self.shared.state();
        (state.ending, state.ended) = (true, true);
        state.ready.clear();
        self.shared.changed.notify_all();
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next batch to make, once there is room for it; `None` at the end.
    fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        while !state.ending && state.begun - state.taken >= self.ahead {
            state = self.wait(state);
        }
        if state.ending {
            return None;
        }
        state.begun += 1;
        Some(state.begun - 1)
    }

    /// Hands a batch over.
    fn finish(&self, number: u64, batch: Result<T>) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        state.ending |= batch.is_err();
        state.ready.insert(number, batch);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    /// Against hanging alone.
    const LONG: Duration = Duration::from_secs(120);

    /// A signal that any thread may wait for, once.
    fn signal() -> (Sender<()>, Mutex<Receiver<()>>) {
        let (sender, receiver) = channel();
        (sender, Mutex::new(receiver))
    }

    fn wait(receiver: &Mutex<Receiver<()>>) {
        receiver.lock().expect("no panic").recv_timeout(LONG).expect("it is told in time");
    }

    /// Tells when the last reader has ended: with it goes `make`, which holds this.
    struct Told(Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    fn error(stream: &Prefetch<u64>) -> String {
        stream.next().expect_err("an error").to_string()
    }

    #[test]
    fn batches_come_in_order_whichever_is_ready_first() {
        let (second, first_waits) = signal();
        let stream = Prefetch::with_readers(3, 4, move |number| {
            match number {
                0 => wait(&first_waits), // until others have been made
                2 => second.send(()).expect("somebody waits"),
                _ => {}
            }
            Ok(number)
        });
        let taken: Vec<u64> = (0..500).map(|_| stream.next().expect("a batch")).collect();
        assert_eq!(taken, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_are_held_than_there_is_room_for() {
        const AHEAD: u64 = 5;
        let asked = Arc::new(AtomicU64::new(0));
        let (begun, begins) = channel();
        let made = asked.clone();
        let stream = Prefetch::with_readers(3, AHEAD as usize, move |number| {
            // Where nobody looks any more, nothing is to be told.
            let _ = begun.send(number);
            // A batch is counted as asked for before it is taken, so this is never too strict.
            anyhow::ensure!(number < made.load(Ordering::SeqCst) + AHEAD, "{number} is too early");
            Ok(number)
        });
        // So many are made before one is asked for.
        let mut first: Vec<u64> =
            (0..AHEAD).map(|_| begins.recv_timeout(LONG).expect("it is made")).collect();
        first.sort_unstable();
        assert_eq!(first, (0..AHEAD).collect::<Vec<_>>());
        for number in 0..500 {
            asked.fetch_add(1, Ordering::SeqCst);
            assert_eq!(stream.next().expect("in time"), number);
        }
    }

    #[test]
    fn an_error_comes_in_its_turn_and_ends_the_stream() {
        let (failed, others_wait) = signal();
        let (gone, all_gone) = signal();
        let told = Told(gone);
        let stream = Prefetch::with_readers(3, 3, move |number| {
            let _told = &told;
            if number == 2 {
                failed.send(()).and_then(|()| failed.send(())).expect("two wait");
                anyhow::bail!("no batch {number}");
            }
            if number < 2 {
                wait(&others_wait);
            }
            Ok(number)
        });
        assert_eq!(stream.next().expect("made before"), 0);
        assert_eq!(stream.next().expect("made before"), 1);
        assert_eq!(error(&stream), "no batch 2");
        assert_eq!(error(&stream), "the threads that load data have ended");
        wait(&all_gone);
    }

    #[test]
    fn the_first_of_two_errors_is_given() {
        let (failed, first_waits) = signal();
        let stream = Prefetch::with_readers(2, 2, move |number| -> Result<u64> {
            match number {
                0 => wait(&first_waits),
                _ => failed.send(()).expect("one waits"),
            }
            anyhow::bail!("no batch {number}")
        });
        assert_eq!(error(&stream), "no batch 0");
        assert_eq!(error(&stream), "the threads that load data have ended");
    }

    #[test]
    fn a_panic_is_an_error() {
        let stream = Prefetch::with_readers(2, 3, |number| {
            assert!(number != 1, "a test's panic");
            Ok(number)
        });
        assert_eq!(stream.next().expect("a batch"), 0);
        assert_eq!(error(&stream), "a thread that loads data panicked");
        assert_eq!(error(&stream), "the threads that load data have ended");
    }

    #[test]
    fn readers_end_when_a_full_stream_is_dropped() {
        let (gone, all_gone) = signal();
        let (begun, begins) = channel();
        let told = Told(gone);
        let stream = Prefetch::with_readers(3, 4, move |number| {
            let _told = &told;
            let _ = begun.send(number);
            Ok(number)
        });
        // All of them wait for room, or soon will.
        for _ in 0..4 {
            begins.recv_timeout(LONG).expect("it is made");
        }
        drop(stream);
        wait(&all_gone);
        assert!(begins.try_recv().is_err(), "a fifth batch was begun");
    }

    #[test]
    fn dropping_does_not_wait_for_a_batch_in_the_making() {
        let (gone, all_gone) = signal();
        let (begun, begins) = channel();
        let (go, waits) = signal();
        let told = Told(gone);
        let stream = Prefetch::with_readers(1, 3, move |number| {
            let _told = &told;
            begun.send(number).expect("somebody looks");
            wait(&waits);
            Ok(number)
        });
        assert_eq!(begins.recv_timeout(LONG).expect("it is begun"), 0);
        drop(stream);
        go.send(()).expect("the reader waits");
        wait(&all_gone);
        assert!(begins.try_recv().is_err(), "another batch was begun");
    }
}
