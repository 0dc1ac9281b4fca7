//! Rank 0's side: it lets the others in.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::CommError;
use super::super::watch::{Peer, Watch};
use super::card::{Answer, Card, Hello, Refusal, is_same_token};
use super::wire::Wire;
use super::{HINT, MOST_OF_CARD, MOST_OF_PAYLOAD, ONLY_HERE, PACE, Pace, TICK, VERSION, place};

/// Connections without a card that are kept at once, besides one for each rank.
const MOST_PENDING: usize = 64;
/// Ranks that are named before "and N more".
const NAMED: usize = 8;

/// Rank 0, which listens.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    /// The address and port.
    pub(super) here: SocketAddr,
    /// Where, for messages.
    pub(super) place: String,
    pub(super) pace: Pace,
}

impl Listening {
    /// Listens at this address only.
    ///
    /// * `port`: 0 for a free one
    ///
    /// # Errors
    ///
    /// [`CommError::Meeting`] if the address is not one of this machine or names all of them, or the port is taken.
    pub fn at(address: &str, port: u16) -> Result<Self, CommError> {
        let failed = |problem: String| {
            let place = place(address, port);
            CommError::Meeting(format!("rank 0 cannot listen at {place}: {problem}"))
        };
        let found = (address, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
        let mut found: Vec<SocketAddr> = found.collect();
        // Debian gives a machine's own name a second address, which only that machine reaches.
        found.sort_by_key(|address| address.ip().is_loopback());
        if found.iter().any(|address| address.ip().is_unspecified()) {
            return Err(failed("that is every network of the machine; name one address".into()));
        }
        let listen = || -> io::Result<(TcpListener, SocketAddr)> {
            let listener = TcpListener::bind(&found[..])?;
            listener.set_nonblocking(true)?;
            let here = listener.local_addr()?;
            Ok((listener, here))
        };
        let (listener, here) = listen().map_err(|error| failed(error.to_string()))?;
        let mut place = place(address, here.port());
        let is_meant = address == "localhost" || address.parse::<IpAddr>().is_ok();
        if here.ip().is_loopback() && !is_meant {
            place += ONLY_HERE;
        }
        Ok(Self { listener, here, place, pace: PACE })
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.here.port()
    }

    /// Waits until ranks 1 to world − 1 have come, and answers each with `payload`. Nobody else is let in.
    ///
    /// * `token`: what the others must show, too
    /// * `payload`: at most 128 KiB
    /// * `limit`: for all of them to come
    /// * `note`: gets sentences about whom it waits for and who was turned away
    ///
    /// # Errors
    ///
    /// * [`CommError::Differs`] if a rank has another program, world size or field; the others get the same
    /// * [`CommError::Meeting`] if two processes have one rank, or a rank does not come; likewise
    pub fn receive(
        self,
        card: Card,
        token: &str,
        payload: &[u8],
        limit: Duration,
        note: impl Fn(&str),
    ) -> Result<Watch, CommError> {
        let Self { listener, place, pace, .. } = self;
        if payload.len() > MOST_OF_PAYLOAD {
            let length = payload.len();
            return Err(CommError::Meeting(format!("{length} bytes are too many for an answer")));
        }
        let mut meeting = Meeting {
            listener,
            card: &card,
            token,
            place: &place,
            pace,
            note: &note,
            pending: Vec::new(),
            joined: BTreeMap::new(),
            refusal: None,
            refused: 0,
        };
        let joined = meeting.wait(limit)?;
        // Nobody is waited for any more.
        drop(meeting);
        let welcome = Answer::Welcome { host: card.host.clone(), payload: payload.to_vec() };
        let mut peers = Vec::new();
        for (number, mut rank) in joined {
            // Whether it is still there, the watch will see.
            let _ = rank.wire.send(&welcome);
            peers.push(Peer::new(number, rank.card.host, rank.wire));
        }
        let begun = Instant::now();
        while peers.iter_mut().map(Peer::flush).filter(|done| !done).count() > 0
            && begun.elapsed() < pace.card
        {
            sleep(TICK);
        }
        Ok(Watch::new(0, card.host, peers))
    }
}

/// A connection that has shown no card yet.
struct Pending {
    wire: Wire,
    from: SocketAddr,
    since: Instant,
}

/// A rank that has come.
struct Joined {
    wire: Wire,
    card: Card,
}

impl Joined {
    /// Whether it has closed its connection.
    fn is_gone(&mut self) -> bool {
        self.wire.receive::<Value>().is_err()
    }
}

/// Who has yet to show a card, and who has been let in.
struct Meeting<'a> {
    listener: TcpListener,
    card: &'a Card,
    token: &'a str,
    place: &'a str,
    pace: Pace,
    note: &'a dyn Fn(&str),
    pending: Vec<Pending>,
    joined: BTreeMap<usize, Joined>,
    /// Why nobody is let in.
    refusal: Option<Refusal>,
    /// How many processes of this launch know that.
    refused: usize,
}

impl Meeting<'_> {
    /// Waits for all ranks.
    fn wait(&mut self, limit: Duration) -> Result<BTreeMap<usize, Joined>, CommError> {
        let begun = Instant::now();
        let mut noted = Vec::new();
        loop {
            self.accept();
            self.read_cards();
            if let Some(refusal) = self.refusal.clone() {
                self.dismiss(&refusal);
                self.dismiss_late(self.pace.late);
                return Err(refusal.into());
            }
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(std::mem::take(&mut self.joined));
            }
            let (world, place) = (self.card.world, self.place);
            let ranks = named(&missing);
            if begun.elapsed() >= self.pace.note && missing != noted {
                let count = missing.len();
                let sentence =
                    format!("waiting for {count} of {world} processes ({ranks}) at {place}");
                (self.note)(&sentence);
                noted = missing;
            }
            if begun.elapsed() >= limit {
                let limit = limit.as_secs_f64();
                let refusal = Refusal::ForAll(format!(
                    "{ranks} of {world} did not come to {place} within {limit} s; {HINT}"
                ));
                self.dismiss(&refusal);
                return Err(refusal.into());
            }
            sleep(TICK);
        }
    }

    /// The ranks that have not come.
    fn missing(&self) -> Vec<usize> {
        (1..self.card.world).filter(|rank| !self.joined.contains_key(rank)).collect()
    }

    /// Takes the connections that have come.
    fn accept(&mut self) {
        // Other errors than that nobody is there pass by, or the limit ends the wait.
        while let Ok((stream, from)) = self.listener.accept() {
            let free = self.pending.len() < MOST_PENDING + self.card.world;
            if free && let Ok(wire) = Wire::new(stream, MOST_OF_CARD) {
                self.pending.push(Pending { wire, from, since: Instant::now() });
            }
        }
    }

    /// Reads the cards that have come. Whoever sends something else, or nothing for too long, is cut off.
    fn read_cards(&mut self) {
        for mut pending in std::mem::take(&mut self.pending) {
            match pending.wire.receive::<Hello<Value>>() {
                Ok(Some(hello)) => self.judge(hello, pending),
                Ok(None) if pending.since.elapsed() < self.pace.card => {
                    self.pending.push(pending);
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// Lets a process in or refuses it.
    fn judge(&mut self, hello: Hello<Value>, pending: Pending) {
        let Pending { mut wire, from, .. } = pending;
        let place = self.place;
        if !is_same_token(&hello.token, self.token) {
            (self.note)(&format!("a process at {from} was turned away: it has another token"));
            let sentence =
                format!("rank 0 at {place} has another token, as of another launch or run");
            return refuse(wire, Refusal::Foreign(sentence));
        }
        let card = match serde_json::from_value::<Card>(hello.card) {
            Ok(card) if hello.version == VERSION => card,
            _ => {
                let sentence = format!("a process at {from} is of another version than rank 0");
                return self.refuse_all(wire, Refusal::ForAll(sentence));
            }
        };
        if card.launch != self.card.launch {
            (self.note)(&format!("a process at {from} was turned away: it is of another launch"));
            let launch = |card: &Card| card.launch.clone().unwrap_or_else(|| "none".into());
            let (theirs, ours) = (launch(&card), launch(self.card));
            let sentence =
                format!("rank 0 at {place} is of launch {ours}, this process of {theirs}");
            return refuse(wire, Refusal::Foreign(sentence));
        }
        match self.refusal.clone().or_else(|| self.problem(&card)) {
            Some(refusal) => self.refuse_all(wire, refusal),
            None => {
                if wire.send(&Answer::Heard).is_ok() {
                    self.joined.insert(card.rank, Joined { wire, card });
                }
            }
        }
    }

    /// Refuses a process of this launch, and with it all others.
    fn refuse_all(&mut self, wire: Wire, refusal: Refusal) {
        let refusal = self.refusal.get_or_insert(refusal);
        refuse(wire, refusal.clone());
        self.refused += 1;
    }

    /// What is wrong with a card.
    fn problem(&mut self, card: &Card) -> Option<Refusal> {
        let rank = card.rank;
        if let Some(difference) = card.difference(self.card) {
            return Some(difference);
        }
        if rank >= card.world {
            let (world, process) = (card.world, card.process());
            return Some(Refusal::ForAll(format!(
                "process {process} has rank {rank} of {world}; ranks run from 0"
            )));
        }
        // Its connection broke, and it comes again.
        if self.joined.get_mut(&rank).is_some_and(Joined::is_gone) {
            self.joined.remove(&rank);
        }
        let same = match rank {
            0 => Some(self.card),
            _ => self.joined.get(&rank).map(|joined| &joined.card),
        };
        same.map(|same| {
            let (first, second) = (same.process(), card.process());
            Refusal::ForAll(format!("two processes have rank {rank}: {first} and {second}"))
        })
    }

    /// Tells those who are in why it comes to nothing.
    fn dismiss(&mut self, refusal: &Refusal) {
        for rank in std::mem::take(&mut self.joined).into_values() {
            refuse(rank.wire, refusal.clone());
            self.refused += 1;
        }
    }

    /// Tells those who come a little later, so that they do not wait for long.
    fn dismiss_late(&mut self, time: Duration) {
        let begun = Instant::now();
        while self.refused + 1 < self.card.world && begun.elapsed() < time {
            sleep(TICK);
            self.accept();
            self.read_cards();
        }
    }
}

/// Sends a process away with a sentence.
fn refuse(mut wire: Wire, refusal: Refusal) {
    let _ = wire.send(&Answer::Refused(refusal));
}

/// `rank 3`, `ranks 1, 2`
fn named(ranks: &[usize]) -> String {
    let shown = ranks.len().min(NAMED);
    let list: Vec<String> = ranks[..shown].iter().map(usize::to_string).collect();
    let more = match ranks.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("rank{} {}{more}", if ranks.len() == 1 { "" } else { "s" }, list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_ranks_are_named() {
        assert_eq!(named(&[3]), "rank 3");
        assert_eq!(named(&[1, 2]), "ranks 1, 2");
        let many: Vec<usize> = (1..20).collect();
        assert_eq!(named(&many), "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 11 more");
    }
}
