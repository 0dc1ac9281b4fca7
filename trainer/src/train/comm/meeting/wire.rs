//! Messages over a connection: four bytes with the length, then JSON. Nothing here waits, so one thread serves many.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A connection with what has come of the next message and what is not sent yet.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    came: Vec<u8>,
    unsent: Vec<u8>,
    most: usize,
}

impl Wire {
    /// Over a connection.
    ///
    /// * `most`: bytes of the longest message that is received
    ///
    /// # Errors
    ///
    /// If the connection is closed already.
    pub fn new(stream: TcpStream, most: usize) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, came: Vec::new(), unsent: Vec::new(), most })
    }

    /// Sends a message, or as much of it as the system takes now; [`flush`](Self::flush) sends the rest.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.unsent.extend(length.to_be_bytes());
        self.unsent.extend(text);
        self.flush().map(|_| ())
    }

    /// Sends what is not sent yet; whether that was all.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.unsent.drain(..n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next message, if it has come.
    ///
    /// # Errors
    ///
    /// * `UnexpectedEof` if the other side has closed the connection
    /// * `InvalidData` if what comes is no such message, or is too long
    /// * others if the connection is broken
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut piece = [0; 4096];
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.came.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message, if all of it has been read.
    fn whole<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.came.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.most {
            let problem = format!("a message of {length} bytes, more than {}", self.most);
            return Err(io::Error::new(ErrorKind::InvalidData, problem));
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(text)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        self.came.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_come_whole_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("it connects");
        let mut from = Wire::new(stream, 1 << 16).expect("it is open");
        let (stream, _) = listener.accept().expect("it comes");
        let mut to = Wire::new(stream, 1 << 16).expect("it is open");
        assert!(to.receive::<String>().expect("it is open").is_none());
        // Longer than what is read at once, and as long as a message may be.
        let sent = [String::new(), "x".repeat(5000), "é".repeat((1 << 15) - 1), "end".into()];
        for text in &sent {
            from.send(text).expect("it sends");
        }
        let mut came: Vec<String> = Vec::new();
        while came.len() < sent.len() {
            from.flush().expect("it is open");
            match to.receive().expect("it is open") {
                Some(text) => came.push(text),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert_eq!(came, sent);
        from.send(&"x".repeat(1 << 16)).expect("it sends");
        let error = loop {
            match to.receive::<String>() {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }
}
