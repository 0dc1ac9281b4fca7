//! A proxy that tells whom it was asked to connect to.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::http::head;
use crate::locked;

/// A proxy on this machine that opens tunnels (`CONNECT`) to other ports of it, and to nothing else. It listens for as
/// long as the process lives.
#[derive(Debug)]
pub struct TestProxy {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// If this machine has no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let address = listener.local_addr().expect("it has an address");
        let targets = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&targets);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    let _ = tunnel(client, &seen);
                });
            }
        });
        Self { address, targets }
    }

    /// Its address: what `HTTPS_PROXY` is to be.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whom it was asked to connect to, as `HOST:PORT`, in their order.
    pub fn targets(&self) -> Vec<String> {
        locked(&self.targets).clone()
    }
}

/// Connects a client with whom it asks for, until one of them is done.
fn tunnel(mut client: TcpStream, targets: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let lines = head(&mut reader)?;
    let mut words = lines.first().map(|first| first.split(' ')).into_iter().flatten();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    locked(targets).push(target.into());
    if method != "CONNECT" || !target.starts_with("127.0.0.1:") {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    }
    let mut server = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let mut answers = server.try_clone()?;
    std::thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut client);
        let _ = client.shutdown(Shutdown::Write);
    });
    io::copy(&mut reader, &mut server)?;
    server.shutdown(Shutdown::Write)
}
