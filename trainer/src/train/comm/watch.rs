//! Ranks that notice when one of them ends: the connections of the [meeting](super::meeting) stay open, and every
//! rank sends a sign of life each second. Rank 0 hears all others and tells them what it hears.

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::CommError;
use super::meeting::wire::Wire;

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// How often it is looked for what has come.
const TICK: Duration = Duration::from_millis(50);
/// How long the others may take to close their ends after a last message.
const PARTING: Duration = Duration::from_secs(1);
/// How long a last message may take, with what the watching thread does before.
const ORDER: Duration = Duration::from_secs(5);
/// Letters of an error that are told to others.
const MOST_OF_SENTENCE: usize = 4000;

/// What ranks say to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    /// A sign of life.
    Beat,
    /// This rank is done.
    Goodbye,
    /// A rank is lost: the sender itself, or one of which rank 0 knows.
    Lost(Loss),
}

/// A rank that is lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Loss {
    rank: usize,
    host: String,
    what: String,
}

impl From<Loss> for CommError {
    fn from(Loss { rank, host, what }: Loss) -> Self {
        Self::Lost { rank, host, what }
    }
}

/// Another rank.
#[derive(Debug)]
pub struct Peer {
    rank: usize,
    host: String,
    wire: Wire,
    /// When it was last heard.
    heard: Instant,
}

/// What a rank hears of another.
enum Heard {
    /// It is there.
    Well,
    /// It is done.
    Goodbye,
    /// It is lost, or knows of one that is.
    Lost(Loss),
}

impl Peer {
    /// A rank that has come to the meeting.
    pub fn new(rank: usize, host: String, wire: Wire) -> Self {
        Self { rank, host, wire, heard: Instant::now() }
    }

    /// Sends what is not sent yet; whether nothing is left, or nothing can be sent any more.
    pub fn flush(&mut self) -> bool {
        self.wire.flush().unwrap_or(true)
    }

    /// Hears all that has come.
    fn hear(&mut self, silence: Duration) -> Heard {
        loop {
            match self.wire.receive::<Message>() {
                Ok(Some(Message::Beat)) => self.heard = Instant::now(),
                Ok(Some(Message::Goodbye)) => return Heard::Goodbye,
                // Only rank 0 speaks of others.
                Ok(Some(Message::Lost(loss))) if self.rank == 0 => return Heard::Lost(loss),
                Ok(Some(Message::Lost(loss))) => return self.lost(loss.what),
                Ok(None) if self.heard.elapsed() > silence => {
                    let seconds = silence.as_secs_f64();
                    return self.lost(format!("was not heard of for {seconds} s"));
                }
                Ok(None) => return Heard::Well,
                Err(error) => return self.lost(sign(&error)),
            }
        }
    }

    fn lost(&self, what: String) -> Heard {
        Heard::Lost(Loss { rank: self.rank, host: self.host.clone(), what })
    }
}

/// What a broken connection says about the rank behind it.
fn sign(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => "ended without a word".into(),
        _ => format!("cannot be reached: {error}"),
    }
}

/// The connections of a rank after the meeting: rank 0's to all others, or that of another rank to rank 0.
#[derive(Debug)]
pub struct Watch {
    rank: usize,
    host: String,
    peers: Vec<Peer>,
}

/// A last message of this rank, and where it is told that the others have it.
#[derive(Debug)]
struct Order {
    /// The error with which this rank fails; `None` if it is done.
    failed: Option<String>,
    done: Sender<()>,
}

/// A rank that watches. Dropped without [`goodbye`](Self::goodbye), this rank is lost to the others.
#[derive(Debug)]
pub struct Watching {
    orders: Sender<Order>,
}

impl Watch {
    /// Of this rank.
    ///
    /// * `host`: this machine
    pub(super) fn new(rank: usize, host: String, peers: Vec<Peer>) -> Self {
        Self { rank, host, peers }
    }

    /// Watches from now on, in a thread of its own. All ranks should begin within `silence`.
    ///
    /// * `silence`: how long a rank may send no sign of life, such as 30 s
    /// * `lost`: called once, in that thread, with [`CommError::Lost`] when a rank ends without goodbye, fails or is
    ///   silent; all other ranks hear of it, too. Not called after this rank's own last message.
    pub fn start(self, silence: Duration, lost: impl Fn(CommError) + Send + 'static) -> Watching {
        let (orders, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // Its connections are closed by then, so that nobody waits for what `lost` does.
            if let Some(loss) = self.watch(silence, receiver) {
                lost(loss.into());
            }
        });
        Watching { orders }
    }

    /// Watches until a rank is lost or the watch is over.
    fn watch(mut self, silence: Duration, orders: Receiver<Order>) -> Option<Loss> {
        let tick = TICK.min(silence / 8).max(Duration::from_millis(1));
        let beat = BEAT.min(silence / 4);
        let mut beaten: Option<Instant> = None;
        for peer in &mut self.peers {
            peer.heard = Instant::now();
        }
        let mut awake = Instant::now();
        loop {
            // Time in which this process was suspended is no silence of the others, who may have been, too.
            let pause = awake.elapsed();
            if pause > silence / 4 {
                self.peers.iter_mut().for_each(|peer| peer.heard += pause);
            }
            awake = Instant::now();
            let order = match orders.recv_timeout(tick) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
            if let Some(Order { failed: None, done }) = order {
                self.leave(&Message::Goodbye);
                let _ = done.send(());
                return None;
            }
            // Before an error of this rank: the loss of another may be why it fails.
            if let Some(loss) = self.hear(silence) {
                self.leave(&Message::Lost(loss.clone()));
                return Some(loss);
            }
            if self.rank != 0 && self.peers.is_empty() {
                return None; // rank 0 is done
            }
            if let Some(Order { failed: Some(sentence), done }) = order {
                let sentence: String = sentence.chars().take(MOST_OF_SENTENCE).collect();
                let (rank, host) = (self.rank, self.host.clone());
                self.leave(&Message::Lost(Loss {
                    rank,
                    host,
                    what: format!("failed: {sentence}"),
                }));
                let _ = done.send(());
                return None;
            }
            if beaten.is_none_or(|last| last.elapsed() >= beat) {
                for peer in &mut self.peers {
                    // A rank that takes nothing is not sent more. A broken connection will be heard.
                    if peer.flush() {
                        let _ = peer.wire.send(&Message::Beat);
                    }
                }
                beaten = Some(Instant::now());
            }
        }
    }

    /// Hears all others; those that are done are forgotten.
    fn hear(&mut self, silence: Duration) -> Option<Loss> {
        let mut at = 0;
        while at < self.peers.len() {
            match self.peers[at].hear(silence) {
                Heard::Well => at += 1,
                Heard::Goodbye => {
                    self.peers.remove(at);
                }
                Heard::Lost(loss) => {
                    let mut peer = self.peers.remove(at);
                    if self.rank == 0 {
                        // Should it still live, it learns why the others have ended.
                        let _ = peer.wire.send(&Message::Lost(loss.clone()));
                    }
                    return Some(loss);
                }
            }
        }
        None
    }

    /// Sends a last message. The others close their ends when they have it; whoever closes first might destroy what
    /// is on its way.
    fn leave(&mut self, message: &Message) {
        for peer in &mut self.peers {
            let _ = peer.wire.send(message);
        }
        let begun = Instant::now();
        while !self.peers.is_empty() && begun.elapsed() < PARTING {
            self.peers.retain_mut(|peer| {
                peer.flush();
                // Another last message is as good as a closed end.
                matches!(peer.wire.receive::<Message>(), Ok(None | Some(Message::Beat)))
            });
            sleep(Duration::from_millis(5));
        }
    }
}

impl Watching {
    /// Tells all others that this rank fails; returns once they know or cannot be reached, after some seconds at most.
    /// Does nothing where a loss is known already.
    ///
    /// * `sentence`: its error
    pub fn fail(&self, sentence: &str) {
        self.order(Some(sentence.into()));
    }

    /// This rank is done: that its connection ends is no loss. After rank 0's goodbye no rank watches any more.
    pub fn goodbye(self) {
        self.order(None);
    }

    fn order(&self, failed: Option<String>) {
        let (done, told) = mpsc::channel();
        // The thread has ended where a rank is lost or rank 0 is done.
        if self.orders.send(Order { failed, done }).is_ok() {
            let _ = told.recv_timeout(ORDER);
        }
    }
}
