//! What can go wrong between ranks.

use std::time::Duration;

/// Why ranks cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// Two ranks were started with different settings, programs or data.
    #[error("rank {rank} has {field} {theirs}, but rank 0 has {ours}")]
    Differs {
        /// What differs.
        field: String,
        /// The rank that differs from rank 0.
        rank: usize,
        /// What that rank has.
        theirs: String,
        /// What rank 0 has.
        ours: String,
    },
    /// A rank ended, or its machine cannot be reached.
    #[error("rank {rank} on {host} {what}")]
    Lost {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// What was noticed, such as `ended without a word` or `failed: …`.
        what: String,
    },
    /// The other ranks did not come to a collective operation.
    #[error("waited {} s for the other ranks to {what}", .limit.as_secs())]
    TimedOut {
        /// The operation, such as `sum gradients`.
        what: &'static str,
        /// How long it was waited.
        limit: Duration,
    },
    /// The ranks did not meet.
    #[error("the ranks could not meet: {0}")]
    Meeting(String),
    /// NCCL, MPI or the driver refuses.
    #[error("{engine}: {problem}")]
    Engine {
        /// Which of them.
        engine: &'static str,
        /// What it says, and what can be done about it.
        problem: String,
    },
}
