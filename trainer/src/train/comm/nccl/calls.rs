//! What the engine asks of NCCL and of the driver, so that its order can be tested without either.

use super::super::CommError;

/// One rank's communicator with a stream and an event of its own, in the thread that calls it. Addresses are those
/// of float32 values in the device's memory. Nothing here waits for the device or for other ranks.
pub(super) trait Calls {
    /// Begins a group: NCCL makes one launch of what is called before its end.
    fn group_start(&mut self) -> Result<(), Fault>;

    /// Ends a group and launches it, maybe in the background: [`is_ready`](Self::is_ready) tells when it has.
    fn group_end(&mut self) -> Result<(), Fault>;

    /// The sum over ranks of `count` values.
    fn all_reduce(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault>;

    /// `count` values of each rank, one behind the other in rank order.
    fn all_gather(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault>;

    /// Rank 0's `count` values.
    fn broadcast(&mut self, input: u64, output: u64, count: usize) -> Result<(), Fault>;

    /// Whether the communicator has done what it does in the background. Fails with what went wrong since the last
    /// call, such as a connection that broke.
    fn is_ready(&mut self) -> Result<bool, Fault>;

    /// Records the event behind everything that was launched.
    fn record(&mut self) -> Result<(), Fault>;

    /// Whether the device has reached the event.
    fn is_done(&mut self) -> Result<bool, Fault>;

    /// Begins the end of a healthy communicator; the other ranks do the same.
    fn finalize(&mut self) -> Result<(), Fault>;

    /// Frees a communicator that is finalized.
    fn destroy(&mut self);

    /// Ends the kernels that still wait for other ranks, and frees the communicator.
    fn abort(&mut self);
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// `NCCL` or `CUDA`.
    pub engine: &'static str,
    /// The name of the result, such as `ncclSystemError`.
    pub name: String,
    /// Its number.
    pub code: u32,
    /// What the library says of it; maybe nothing.
    pub said: String,
}

impl From<Fault> for CommError {
    fn from(fault: Fault) -> Self {
        let Fault { engine, name, code, said } = fault;
        let meaning = match name.as_str() {
            "ncclRemoteError" => "another rank ended, or its machine cannot be reached: ",
            _ => "",
        };
        let said = match said.trim() {
            "" if engine == NCCL => "; with NCCL_DEBUG=WARN it says why".to_owned(),
            "" => String::new(),
            said => format!(": {said}"),
        };
        Self::Engine { engine, problem: format!("{meaning}{name} ({code}){said}") }
    }
}

/// The name of the library in errors.
pub(super) const NCCL: &str = "NCCL";
/// The name of the driver and of Burn's work in errors.
pub(super) const CUDA: &str = "CUDA";

/// The library is not there, or has a name by which it is not looked for.
pub(super) fn missing() -> CommError {
    let problem = "libnccl.so was not found: install NCCL's development package, or, where there is a libnccl.so.2, \
                   put a link libnccl.so to it into a folder of LD_LIBRARY_PATH";
    CommError::Engine { engine: NCCL, problem: problem.to_owned() }
}
