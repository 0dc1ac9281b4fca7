//! How the processes of a run meet: rank 0 listens, the others come, show what they are, and get what rank 0 has for
//! them. The connections stay open for the [watch](super::watch).
//!
//! The token keeps out processes of other launches and whoever finds the port by chance. It is sent as it is, like
//! all else, so the network must be trusted.

mod card;
#[cfg(any(feature = "cuda", test))]
mod file;
mod host;
mod join;
mod receive;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod wire;

use std::time::Duration;

pub use self::card::{Card, random_token};
#[cfg(any(feature = "cuda", test))]
pub use self::file::{join_by_file, receive_by_file};
pub use self::host::host_name;
pub use self::join::join;
pub use self::receive::Listening;

/// Version of the messages; all processes need the same.
const VERSION: u32 = 1;
/// Bytes of the longest card.
const MOST_OF_CARD: usize = 1 << 16;
/// Bytes of rank 0's longest answer.
const MOST_OF_ANSWER: usize = 1 << 20;
/// Bytes of the longest payload: a byte is up to four in JSON.
const MOST_OF_PAYLOAD: usize = MOST_OF_ANSWER / 8;
/// How often it is looked for what has come.
const TICK: Duration = Duration::from_millis(10);
/// After a place whose address is that of every machine itself.
const ONLY_HERE: &str = ", which only this machine reaches";
/// What else makes a process wait for others that do not exist.
const HINT: &str = "RANK or WORLD_SIZE left in the shell from earlier has this effect, too";

/// Waiting times, which are shorter in tests.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Before it is told for whom this process waits.
    note: Duration,
    /// For the other side's first message.
    card: Duration,
    /// For those who are late, where the ranks cannot work together.
    late: Duration,
}

/// The usual waiting times.
const PACE: Pace = Pace {
    note: Duration::from_secs(10),
    card: Duration::from_secs(5),
    late: Duration::from_secs(5),
};

/// A place to meet, for messages.
fn place(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
