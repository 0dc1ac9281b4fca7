//! What a server does instead of what it should.

use std::collections::VecDeque;

use crate::gate::Gate;
use crate::http::{End, headers};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// What it should.
    None,
    /// Waits at the gate before it does anything else.
    Wait(Gate, Box<Fault>),
    /// Takes the request and closes the connection.
    Close,
    /// Takes the request and never answers.
    Hang,
    /// Answers with a status and headers, and without content.
    Status(u16, Vec<(String, String)>),
    /// Answers with a web page, as portals do that one has to log in to; as `HEAD`, without `X-Repo-Commit`.
    Page,
    /// Answers 200 with another content.
    Other(Vec<u8>),
    /// Sends other bytes, as many as the right ones.
    WrongBytes,
    /// Answers a request for a range with 200 and everything.
    IgnoreRange,
    /// Answers a request for a range with 206 and this `Content-Range`.
    ContentRange(String),
    /// Promises everything, and closes the connection after so many bytes of the content.
    CutAfter(usize),
    /// Tells no length, and closes the connection after so many bytes of the content, or all: that is its end.
    NoLength(usize),
    /// Sends so many bytes of the content as a chunk, or all, of which the last chunk is the end, and closes the
    /// connection.
    Chunk(usize),
    /// Sends so many bytes of the content, waits at the gate, and sends the rest.
    Hold(usize, Gate),
}

impl Fault {
    /// [`Fault::Status`] with its headers.
    pub fn status(status: u16, with: &[(&str, &str)]) -> Self {
        Self::Status(status, headers(with))
    }

    /// This fault after a wait at the gate.
    #[must_use]
    pub fn after(self, gate: &Gate) -> Self {
        Self::Wait(gate.clone(), Box::new(self))
    }

    /// What follows from it for the content: bytes before something happens, the gate to wait at then, and whether
    /// the connection ends there.
    pub(crate) fn course(&self) -> (usize, Option<&Gate>, bool) {
        match self {
            Self::CutAfter(bytes) | Self::NoLength(bytes) | Self::Chunk(bytes) => {
                (*bytes, None, true)
            }
            Self::Hold(bytes, gate) => (*bytes, Some(gate), false),
            _ => (usize::MAX, None, false),
        }
    }

    /// What tells where the content ends.
    pub(crate) fn end(&self) -> End {
        match self {
            Self::NoLength(_) => End::Connection,
            Self::Chunk(_) => End::Chunk,
            _ => End::Length,
        }
    }
}

/// Faults of the requests that a script is about.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) method: String,
    /// How the path ends, decoded.
    pub(crate) end: String,
    pub(crate) faults: VecDeque<Fault>,
}

impl Script {
    pub(crate) fn is_about(&self, method: &str, path: &str) -> bool {
        self.method == method && path.ends_with(&self.end) && !self.faults.is_empty()
    }
}
