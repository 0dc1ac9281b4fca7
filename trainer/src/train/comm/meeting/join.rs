//! The side of all other ranks: they come until rank 0 is there.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::CommError;
use super::super::watch::{Peer, Watch};
use super::card::{Answer, Card, Hello, Refusal};
use super::wire::Wire;
use super::{HINT, MOST_OF_ANSWER, PACE, Pace, TICK, VERSION, place};

/// Between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// Where rank 0 should be.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub address: String,
    pub port: u16,
    pub token: String,
}

/// What rank 0 has for this rank, and the connection to it.
type Met = (Vec<u8>, Watch);

/// Comes to rank 0 and waits until all ranks have come.
///
/// * `token`: must be rank 0's
/// * `limit`: for rank 0 to answer; then its own limit for the others counts
/// * `note`: gets sentences about what it waits for
///
/// # Errors
///
/// * [`CommError::Differs`] if a rank has another program, world size or field than rank 0
/// * [`CommError::Meeting`] if rank 0 does not answer, lets nobody in or not this rank, or a rank does not come
pub fn join(
    address: &str,
    port: u16,
    card: Card,
    token: &str,
    limit: Duration,
    note: impl Fn(&str),
) -> Result<(Vec<u8>, Watch), CommError> {
    let target = Target { address: address.into(), port, token: token.into() };
    Joining { card: &card, limit, pace: PACE, note: &note, patient: false }
        .until_met(|| Ok(target.clone()))
}

/// A rank on its way.
pub(super) struct Joining<'a> {
    pub card: &'a Card,
    pub limit: Duration,
    pub pace: Pace,
    pub note: &'a dyn Fn(&str),
    /// Whether a wrong token means to come again, since the place may be that of an earlier launch.
    pub patient: bool,
}

/// Why a try failed.
enum Failure {
    /// Another try may succeed.
    Again(String),
    /// None can.
    Final(CommError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Again(match error.kind() {
            ErrorKind::UnexpectedEof => "the connection was closed".into(),
            _ => error.to_string(),
        })
    }
}

impl Joining<'_> {
    /// Tries until all ranks have come.
    ///
    /// * `find`: where rank 0 is now, or what is missing of it: `has not written …`
    pub fn until_met(self, find: impl Fn() -> Result<Target, String>) -> Result<Met, CommError> {
        let begun = Instant::now();
        let mut noted = false;
        loop {
            let problem = match find() {
                Ok(target) => match self.come(&target, begun) {
                    Ok(met) => return Ok(met),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Again(why)) => {
                        format!(
                            "does not answer at {} ({why})",
                            place(&target.address, target.port)
                        )
                    }
                },
                Err(problem) => problem,
            };
            if begun.elapsed() >= self.pace.note && !noted {
                (self.note)(&format!("waiting for rank 0, which {problem}"));
                noted = true;
            }
            if begun.elapsed() >= self.limit {
                let limit = self.limit.as_secs_f64();
                return Err(CommError::Meeting(format!(
                    "waited {limit} s for rank 0, which {problem}; {HINT}"
                )));
            }
            sleep(RETRY.min(self.limit.saturating_sub(begun.elapsed())));
        }
    }

    /// One try.
    fn come(&self, target: &Target, begun: Instant) -> Result<Met, Failure> {
        let left = self.limit.saturating_sub(begun.elapsed()).max(TICK);
        let stream = connect(&target.address, target.port, left.min(self.pace.card))?;
        let mut wire = Wire::new(stream, MOST_OF_ANSWER)?;
        wire.send(&Hello { version: VERSION, token: target.token.clone(), card: self.card })?;
        // Another program may listen there that never answers.
        let mut patience = left.min(self.pace.card);
        let mut since = Instant::now();
        let mut heard = false;
        let mut noted = false;
        loop {
            wire.flush()?;
            match wire.receive::<Answer>()? {
                Some(Answer::Heard) => {
                    // Rank 0 gives up by its own clock, and says for whom it waited.
                    patience = self.limit.saturating_add(self.pace.card);
                    since = Instant::now();
                    heard = true;
                }
                Some(Answer::Welcome { host, payload }) => {
                    let peers = vec![Peer::new(0, host, wire)];
                    return Ok((
                        payload,
                        Watch::new(self.card.rank, self.card.host.clone(), peers),
                    ));
                }
                Some(Answer::Refused(Refusal::Foreign(why))) if self.patient => {
                    return Err(Failure::Again(why));
                }
                Some(Answer::Refused(refusal)) => return Err(Failure::Final(refusal.into())),
                None => {}
            }
            if since.elapsed() >= patience {
                return Err(Failure::Again("nothing came".into()));
            }
            if heard && !noted && since.elapsed() >= self.pace.note {
                let place = place(&target.address, target.port);
                (self.note)(&format!("waiting for other processes at {place}"));
                noted = true;
            }
            sleep(TICK);
        }
    }
}

/// Connects to whoever listens there.
///
/// * `most`: how long for each address that the name has
fn connect(address: &str, port: u16, most: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (address, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, most) {
            // Where nobody listens, the system may connect a port to itself.
            Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {
                last = ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
