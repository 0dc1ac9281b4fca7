//! The engine's calls and their order, recorded instead of made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::calls::{Calls, Fault, NCCL, missing};
use super::*;

/// Nothing waits so long, but for what hangs.
const LONG: Duration = Duration::from_secs(60);
/// The limit of what must be given up.
const SHORT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    /// Memory was looked up, in the thread that asks.
    Place,
    /// The inputs are waited for, and computed.
    Waits,
    Computed,
    GroupStart,
    Sum(Part),
    Gather(Part),
    Broadcast(Part),
    GroupEnd,
    Record,
    /// The event was found to be reached.
    Done,
    /// The memory was given back.
    Free,
    Finalize,
    Destroy,
    Abort,
}

type Log = Arc<Mutex<Vec<Call>>>;

fn push(log: &Log, call: Call) {
    log.lock().expect("no test panics with it").push(call);
}

/// What the thread has done so far.
fn calls(log: &Log) -> Vec<Call> {
    let calls = log.lock().expect("no test panics with it");
    calls.iter().filter(|call| **call != Call::Place).cloned().collect()
}

fn count(calls: &[Call], wanted: &Call) -> usize {
    calls.iter().filter(|call| *call == wanted).count()
}

/// Waits until something was called.
fn until(log: &Log, wanted: &Call) {
    let started = Instant::now();
    while count(&calls(log), wanted) == 0 {
        assert!(started.elapsed() < LONG, "no {wanted:?} in {:?}", calls(log));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stands for NCCL and the device.
struct Recorder {
    log: Log,
    /// Whether the event is reached, after these calls.
    done: fn(&[Call]) -> bool,
    /// The state of the communicator, after these calls.
    state: fn(&[Call]) -> Result<bool, Fault>,
    /// The call that fails.
    failing: Option<Call>,
}

impl Recorder {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), done: |_| true, state: |_| Ok(true), failing: None }
    }

    fn call(&self, call: Call) -> Result<(), Fault> {
        let fails = self.failing.as_ref() == Some(&call);
        push(&self.log, call);
        if fails { Err(broken()) } else { Ok(()) }
    }
}

impl Calls for Recorder {
    fn group_start(&mut self) -> Result<(), Fault> {
        self.call(Call::GroupStart)
    }

    fn group_end(&mut self) -> Result<(), Fault> {
        self.call(Call::GroupEnd)
    }

    fn all_reduce(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        self.call(Call::Sum(Part { input, output, count }))
    }

    fn all_gather(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        self.call(Call::Gather(Part { input, output, count }))
    }

    fn broadcast(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault> {
        self.call(Call::Broadcast(Part { input, output, count }))
    }

    fn is_ready(&mut self) -> Result<bool, Fault> {
        (self.state)(&self.log.lock().expect("no test panics with it"))
    }

    fn record(&mut self) -> Result<(), Fault> {
        self.call(Call::Record)
    }

    fn is_done(&mut self) -> Result<bool, Fault> {
        let done = (self.done)(&self.log.lock().expect("no test panics with it"));
        if done {
            self.call(Call::Done)?;
        }
        Ok(done)
    }

    fn finalize(&mut self) -> Result<(), Fault> {
        self.call(Call::Finalize)
    }

    fn destroy(&mut self) {
        push(&self.log, Call::Destroy);
    }

    fn abort(&mut self) {
        push(&self.log, Call::Abort);
    }
}

fn broken() -> Fault {
    Fault { engine: NCCL, name: "ncclSystemError".into(), code: 2, said: " no memory\n".into() }
}

fn lost() -> Fault {
    Fault { engine: NCCL, name: "ncclRemoteError".into(), code: 6, said: String::new() }
}

/// The memory of a request.
struct Kept(Log);

impl Drop for Kept {
    fn drop(&mut self) {
        push(&self.0, Call::Free);
    }
}

/// A communicator of three ranks whose buckets have four values. Tensors get addresses from 1 in the order in which
/// their memory is looked up.
fn nccl(
    recorder: Recorder,
    limit: Duration,
    ready: impl Fn() -> Ready + Send + Sync + 'static,
) -> Nccl {
    let log = recorder.log.clone();
    let worker = Worker::start(move || Ok(Box::new(recorder) as Box<dyn Calls>), limit);
    let next = AtomicU64::new(1);
    let memory = move |tensors: &[Tensor<1>]| {
        push(&log, Call::Place);
        Ok(Placed {
            addresses: tensors.iter().map(|_| next.fetch_add(1, Ordering::Relaxed)).collect(),
            keep: Box::new(Kept(log.clone())),
            ready: ready(),
        })
    };
    Nccl {
        worker: worker.expect("it joins"),
        world: 3,
        device: Device::flex(),
        bucket: 4 * size_of::<f32>(),
        memory: Box::new(memory),
    }
}

fn computed() -> Ready {
    Box::pin(async { Ok(()) })
}

/// Inputs that are computed one after the other, each when something is sent.
fn gate(log: &Log) -> (Sender<()>, Box<dyn Fn() -> Ready + Send + Sync>) {
    let (release, gate) = channel();
    let (gate, log) = (Arc::new(Mutex::new(gate)), log.clone());
    let ready = move || -> Ready {
        let (gate, log) = (gate.clone(), log.clone());
        Box::pin(async move {
            push(&log, Call::Waits);
            let released = gate.lock().expect("only one waits").recv();
            push(&log, Call::Computed);
            released.map_err(|_| "the test has ended".to_owned())
        })
    };
    (release, Box::new(ready))
}

/// Tensors of these lengths; their names are in this order.
fn tensors(lengths: &[usize]) -> Flat {
    let tensor = |(i, &length): (usize, &usize)| {
        (format!("{i:02}"), Tensor::zeros([length], (&Device::flex(), DType::F32)))
    };
    lengths.iter().enumerate().map(tensor).collect()
}

fn lengths(tensors: &Flat) -> Vec<(&str, usize)> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims()[0])).collect()
}

fn part(input: u64, output: u64, count: usize) -> Part {
    Part { input, output, count }
}

/// The calls of an operation that succeeds.
fn whole(inner: impl IntoIterator<Item = Call>) -> Vec<Call> {
    let mut calls = vec![Call::GroupStart];
    calls.extend(inner);
    calls.extend([Call::GroupEnd, Call::Record, Call::Done, Call::Free]);
    calls
}

#[test]
fn a_sum_is_one_group_a_bucket() {
    let log = Log::default();
    let nccl = nccl(Recorder::new(&log), LONG, computed);
    let inputs = tensors(&[1, 3, 4, 0, 9]);
    let sums = nccl.sum(inputs.clone()).expect("nothing fails");
    assert_eq!(lengths(&sums), lengths(&inputs));
    drop(nccl);
    let wanted = [
        whole([Call::Sum(part(1, 3, 1)), Call::Sum(part(2, 4, 3))]),
        whole([Call::Sum(part(5, 6, 4))]),
        whole([Call::Sum(part(7, 8, 9))]),
        vec![Call::Finalize, Call::Destroy],
    ];
    assert_eq!(calls(&log), wanted.concat());
}

#[test]
fn other_operations_are_groups_too() {
    let log = Log::default();
    let nccl = nccl(Recorder::new(&log), LONG, computed);
    let own = tensors(&[5]).remove("00").expect("it is there");
    assert_eq!(nccl.gather(own).expect("nothing fails").dims(), [15]);
    let inputs = tensors(&[2, 1]);
    let theirs = nccl.broadcast(inputs.clone()).expect("nothing fails");
    assert_eq!(lengths(&theirs), lengths(&inputs));
    drop(nccl);
    let wanted = [
        whole([Call::Gather(part(1, 2, 5))]),
        whole([Call::Broadcast(part(3, 5, 2)), Call::Broadcast(part(4, 6, 1))]),
        vec![Call::Finalize, Call::Destroy],
    ];
    assert_eq!(calls(&log), wanted.concat());
}

#[test]
fn tensors_without_values_are_not_exchanged() {
    let log = Log::default();
    let nccl = nccl(Recorder::new(&log), LONG, computed);
    assert_eq!(nccl.sum(Flat::new()).expect("nothing fails").len(), 0);
    let sums = nccl.sum(tensors(&[0, 0])).expect("nothing fails");
    assert_eq!(lengths(&sums), [("00", 0), ("01", 0)]);
    let none = tensors(&[0]).remove("00").expect("it is there");
    assert_eq!(nccl.gather(none).expect("nothing fails").dims(), [0]);
    drop(nccl);
    assert_eq!(*log.lock().expect("it is free"), [Call::Finalize, Call::Destroy]);
}

#[test]
fn nothing_is_launched_before_its_inputs_are_computed() {
    let log = Log::default();
    let (release, ready) = gate(&log);
    let nccl = nccl(Recorder::new(&log), LONG, ready);
    let pending = nccl.begin(tensors(&[2])).expect("nothing fails");
    until(&log, &Call::Waits);
    assert_eq!(calls(&log), [Call::Waits]);
    release.send(()).expect("it is waited for");
    assert_eq!(lengths(&nccl.finish(pending).expect("nothing fails")), [("00", 2)]);
    let mut wanted = vec![Call::Waits, Call::Computed];
    wanted.extend(whole([Call::Sum(part(1, 2, 2))]));
    assert_eq!(calls(&log), wanted);
}

#[test]
fn two_buckets_are_under_way_and_no_more() {
    const BUCKETS: usize = 5;
    let log = Log::default();
    // A bucket ends when the one behind it was handed over: one at a time would never end.
    let done = |calls: &[Call]| {
        let behind = count(calls, &Call::Done) + 2;
        count(calls, &Call::Place) >= behind.min(BUCKETS)
    };
    let nccl = nccl(Recorder { done, ..Recorder::new(&log) }, LONG, computed);
    let sums = nccl.sum(tensors(&[4; BUCKETS])).expect("nothing fails");
    assert_eq!(sums.len(), BUCKETS);
    let calls = log.lock().expect("it is free").clone();
    let under_way = (0..=calls.len())
        .map(|now| count(&calls[..now], &Call::Place) - count(&calls[..now], &Call::Free));
    assert_eq!(under_way.max(), Some(2), "{calls:?}");
    assert_eq!(count(&calls, &Call::Place), BUCKETS);
}

#[test]
fn after_a_failure_nothing_is_called_but_abort_once() {
    let log = Log::default();
    let (release, ready) = gate(&log);
    let state =
        |calls: &[Call]| if calls.contains(&Call::GroupEnd) { Err(lost()) } else { Ok(true) };
    let nccl = nccl(Recorder { state, ..Recorder::new(&log) }, LONG, ready);
    let first = nccl.begin(tensors(&[2])).expect("nothing has failed");
    let second = nccl.begin(tensors(&[3])).expect("nothing has failed");
    release.send(()).expect("it is waited for");
    let error = CommError::from(lost());
    assert_eq!(nccl.finish(first).err().as_ref(), Some(&error));
    assert_eq!(nccl.finish(second).err().as_ref(), Some(&error));
    let places = || count(&log.lock().expect("no test panics with it"), &Call::Place);
    assert_eq!(places(), 2);
    assert_eq!(nccl.begin(tensors(&[1])).err().as_ref(), Some(&error));
    assert_eq!(nccl.sum(tensors(&[1])).err().as_ref(), Some(&error));
    assert_eq!(nccl.broadcast(tensors(&[1])).err().as_ref(), Some(&error));
    assert_eq!(nccl.all_gather(vec![1], false).err().as_ref(), Some(&error));
    assert_eq!(places(), 2, "no memory is taken any more");
    drop(nccl);
    let mut calls = calls(&log);
    // The second's memory was not in use; the first's is never given back.
    assert_eq!(count(&calls, &Call::Free), 1);
    calls.retain(|call| *call != Call::Free);
    let mut wanted = vec![Call::Waits, Call::Computed];
    wanted.extend([Call::GroupStart, Call::Sum(part(1, 2, 2)), Call::GroupEnd, Call::Abort]);
    assert_eq!(calls, wanted);
}

/// The error of a sum, and the calls until the end.
fn failure(
    recorder: Recorder,
    limit: Duration,
    ready: impl Fn() -> Ready + Send + Sync + 'static,
) -> (CommError, Vec<Call>) {
    let log = recorder.log.clone();
    let nccl = nccl(recorder, limit, ready);
    let error = nccl.sum(tensors(&[2])).expect_err("it fails");
    drop(nccl);
    (error, calls(&log))
}

#[test]
fn connections_are_looked_after_while_the_device_works() {
    let state = |calls: &[Call]| if calls.contains(&Call::Record) { Err(lost()) } else { Ok(true) };
    let recorder = Recorder { done: |_| false, state, ..Recorder::new(&Log::default()) };
    let (error, calls) = failure(recorder, LONG, computed);
    assert_eq!(error, lost().into());
    let sum = Call::Sum(part(1, 2, 2));
    assert_eq!(calls, [Call::GroupStart, sum, Call::GroupEnd, Call::Record, Call::Abort]);
}

#[test]
fn what_does_not_end_is_given_up() {
    let wanted = CommError::TimedOut { what: "sum gradients", limit: SHORT };
    let launch = [Call::GroupStart, Call::Sum(part(1, 2, 2)), Call::GroupEnd];
    // On the device.
    let recorder = Recorder { done: |_| false, ..Recorder::new(&Log::default()) };
    let (error, calls) = failure(recorder, SHORT, computed);
    assert_eq!(error, wanted);
    assert_eq!(calls, [&launch[..], &[Call::Record, Call::Abort]].concat());
    // Before its launch, while NCCL connects.
    let state = |calls: &[Call]| Ok(!calls.contains(&Call::GroupEnd));
    let recorder = Recorder { state, ..Recorder::new(&Log::default()) };
    let (error, calls) = failure(recorder, SHORT, computed);
    assert_eq!(error, wanted);
    assert_eq!(calls, [&launch[..], &[Call::Abort]].concat());
}

#[test]
fn a_group_is_ended_where_a_call_in_it_fails() {
    let sum = Call::Sum(part(1, 2, 2));
    for failing in [sum.clone(), Call::GroupEnd] {
        let recorder = Recorder { failing: Some(failing), ..Recorder::new(&Log::default()) };
        let (error, calls) = failure(recorder, LONG, computed);
        assert_eq!(error, broken().into());
        assert_eq!(calls, [Call::GroupStart, sum.clone(), Call::GroupEnd, Call::Abort]);
    }
}

#[test]
fn what_the_device_could_not_compute_is_not_exchanged() {
    let failed = || -> Ready { Box::pin(async { Err("out of memory".to_owned()) }) };
    let (error, calls) = failure(Recorder::new(&Log::default()), LONG, failed);
    assert_eq!(error.to_string(), "CUDA: out of memory");
    assert_eq!(calls, [Call::Abort]);
}

#[test]
fn an_end_that_the_others_do_not_share_is_an_abort() {
    // It fails, or waits for them.
    let healthy: fn(&[Call]) -> Result<bool, Fault> = |_| Ok(true);
    let waiting: fn(&[Call]) -> Result<bool, Fault> = |calls| Ok(!calls.contains(&Call::Finalize));
    for (failing, state, limit) in [(Some(Call::Finalize), healthy, LONG), (None, waiting, SHORT)] {
        let log = Log::default();
        drop(nccl(Recorder { failing, state, ..Recorder::new(&log) }, limit, computed));
        assert_eq!(calls(&log), [Call::Finalize, Call::Abort]);
    }
}

#[test]
fn joining_is_given_up() {
    // In a call that waits for the others.
    let wanted = CommError::TimedOut { what: "join", limit: SHORT };
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let (release, gate) = channel::<()>();
    let join = move || {
        gate.recv().expect("the test goes on");
        Ok(Box::new(recorder) as Box<dyn Calls>)
    };
    assert_eq!(Worker::start(join, SHORT).err().as_ref(), Some(&wanted));
    assert!(calls(&log).is_empty());
    release.send(()).expect("it is waited for");
    until(&log, &Call::Abort);
    assert_eq!(calls(&log), [Call::Abort]);
    // In the background.
    let log = Log::default();
    let recorder = Recorder { state: |_| Ok(false), ..Recorder::new(&log) };
    let join = move || Ok(Box::new(recorder) as Box<dyn Calls>);
    assert_eq!(Worker::start(join, SHORT).err().as_ref(), Some(&wanted));
    until(&log, &Call::Abort);
    assert_eq!(calls(&log), [Call::Abort]);
}

#[test]
fn a_missing_library_is_a_sentence() {
    let error = Worker::start(|| Err(missing()), LONG).err().expect("it is missing");
    assert_eq!(error, missing());
    let text = error.to_string();
    assert!(text.starts_with("NCCL: libnccl.so was not found: "), "{text}");
    assert!(text.contains("libnccl.so.2") && text.contains("LD_LIBRARY_PATH"), "{text}");
    assert!(!text.contains("  "), "{text}");
}

#[test]
fn faults_are_sentences() {
    let driver =
        Fault { engine: CUDA, name: "CUDA_ERROR_NO_DEVICE".into(), code: 100, said: String::new() };
    for (fault, wanted) in [
        (broken(), "NCCL: ncclSystemError (2): no memory"),
        (
            lost(),
            "NCCL: another rank ended, or its machine cannot be reached: ncclRemoteError (6); with NCCL_DEBUG=WARN it \
             says why",
        ),
        (driver, "CUDA: CUDA_ERROR_NO_DEVICE (100)"),
    ] {
        assert_eq!(CommError::from(fault).to_string(), wanted);
    }
}

#[test]
fn buckets_are_filled_in_the_order_of_names() {
    let cases: [(&[usize], &[&[usize]]); 9] = [
        (&[], &[]),
        (&[0], &[&[0]]),
        (&[3], &[&[3]]),
        (&[4], &[&[4]]),
        (&[5], &[&[5]]),
        (&[3, 1, 1], &[&[3, 1], &[1]]),
        (&[4, 0, 1], &[&[4, 0], &[1]]),
        (&[2, 3, 1, 1], &[&[2], &[3, 1], &[1]]),
        (&[1, 9, 1, 1], &[&[1], &[9], &[1, 1]]),
    ];
    for (inputs, wanted) in cases {
        let all = tensors(inputs);
        let buckets = buckets(all.clone(), 4 * size_of::<f32>());
        let counts: Vec<Vec<usize>> =
            buckets.iter().map(|bucket| bucket.values().map(|t| t.dims()[0]).collect()).collect();
        assert_eq!(counts, wanted);
        let names: Vec<&String> = buckets.iter().flat_map(Flat::keys).collect();
        assert_eq!(names, all.keys().collect::<Vec<_>>());
    }
}
