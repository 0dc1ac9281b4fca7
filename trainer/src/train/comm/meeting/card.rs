//! What the processes say to each other before they are let in.

use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use super::super::CommError;
use super::host_name;
use crate::rank::Rank;

/// What a rank shows to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Rank, from 0.
    pub rank: usize,
    /// World size.
    pub world: usize,
    /// The name of its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The version of the program.
    pub program: String,
    /// Tells its launch from an earlier one.
    pub launch: Option<String>,
    /// Names and values that must equal rank 0's.
    pub fields: Vec<(String, String)>,
}

impl Card {
    /// The card of this process.
    ///
    /// * `launch`: tells this launch from an earlier one
    /// * `fields`: names and values that must equal rank 0's
    pub fn new(rank: Rank, launch: Option<String>, fields: Vec<(String, String)>) -> Self {
        Self {
            rank: rank.rank,
            world: rank.world,
            host: host_name(),
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").into(),
            launch,
            fields,
        }
    }

    /// The first thing in which this rank differs from rank 0 and must not.
    pub(super) fn difference(&self, ours: &Self) -> Option<Refusal> {
        let differs = |field: &str, theirs: &str, ours: &str| Refusal::Differs {
            field: field.into(),
            rank: self.rank,
            theirs: theirs.into(),
            ours: ours.into(),
        };
        if self.program != ours.program {
            return Some(differs("program version", &self.program, &ours.program));
        }
        if self.world != ours.world {
            return Some(differs("world size", &self.world.to_string(), &ours.world.to_string()));
        }
        let mut names = ours.fields.iter().chain(&self.fields).map(|(name, _)| name.as_str());
        let name = names.find(|name| self.field(name) != ours.field(name))?;
        Some(differs(name, self.field(name), ours.field(name)))
    }

    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n == name).map_or("none", |(_, value)| value.as_str())
    }

    /// Which process has this card, for messages.
    pub(super) fn process(&self) -> String {
        format!("{} on {}", self.pid, self.host)
    }
}

/// The first message to rank 0.
///
/// * `C`: the card, which may be another one in another version
#[derive(Serialize, Deserialize)]
pub(super) struct Hello<C> {
    pub version: u32,
    pub token: String,
    pub card: C,
}

/// What rank 0 answers.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// The card is in order; others have not come yet.
    Heard,
    /// All are there.
    Welcome { host: String, payload: Vec<u8> },
    /// This process is not let in.
    Refused(Refusal),
}

/// Why a process is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// It differs from rank 0; nobody is let in then.
    Differs { field: String, rank: usize, theirs: String, ours: String },
    /// Another reason for which nobody is let in, as a sentence.
    ForAll(String),
    /// It belongs to another launch or another run; the others are waited for.
    Foreign(String),
}

impl From<Refusal> for CommError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Differs { field, rank, theirs, ours } => {
                Self::Differs { field, rank, theirs, ours }
            }
            Refusal::ForAll(sentence) | Refusal::Foreign(sentence) => Self::Meeting(sentence),
        }
    }
}

/// Whether two tokens are the same; how long that takes tells their lengths only.
pub(super) fn is_same_token(a: &str, b: &str) -> bool {
    let differing = a.bytes().zip(b.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// Letters that nobody guesses: the keys of a hasher come from the system's random numbers.
pub fn random_token() -> String {
    let keys = RandomState::new();
    (0..4u64).map(|part| format!("{:016x}", keys.hash_one(part))).collect()
}
