//! A server of files on this machine, whose bytes can be held back.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Serves files until the test ends.
pub struct Server {
    /// Host and port.
    pub host: String,
    shared: Arc<Shared>,
}

struct Shared {
    files: Vec<(&'static str, Vec<u8>)>,
    /// Bytes that may still be sent.
    allowed: Mutex<usize>,
    more: Condvar,
    /// What was asked for, and from which byte on.
    asked: Mutex<Vec<(String, usize)>>,
}

impl Server {
    /// Serves files, of which so many bytes are sent before [`open`](Self::open) is called.
    pub fn start(files: Vec<(&'static str, Vec<u8>)>, allowed: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let (allowed, asked) = (Mutex::new(allowed), Mutex::default());
        let shared = Arc::new(Shared { files, allowed, more: Condvar::new(), asked });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                // Whoever pauses a download breaks the connection.
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        Self { host, shared }
    }

    /// Sends the rest.
    pub fn open(&self) {
        *held(&self.shared.allowed) = usize::MAX;
        self.shared.more.notify_all();
    }

    /// What was asked for, and from which byte on.
    pub fn asked(&self) -> Vec<(String, usize)> {
        held(&self.shared.asked).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.open();
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let mut range = None;
        for line in lines {
            let line = line?.to_lowercase();
            if line.is_empty() {
                break;
            }
            let from = line.strip_prefix("range: bytes=").and_then(|range| range.strip_suffix('-'));
            range = range.or(from.and_then(|from| from.parse::<usize>().ok()));
        }
        held(&self.asked).push((name.into(), range.unwrap_or(0)));
        let Some((_, bytes)) = self.files.iter().find(|(of, _)| *of == name) else {
            let refusal =
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(refusal.as_bytes());
        };
        let (from, all) = (range.unwrap_or(0).min(bytes.len()), bytes.len());
        let status = match range {
            None => "200 OK".to_string(),
            Some(_) => {
                let last = all.saturating_sub(1);
                format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}")
            }
        };
        let length = all - from;
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"one\"\r\nConnection: close\r\n\r\n"
        )?;
        for chunk in bytes[from..].chunks(1 << 16) {
            self.wait_for(chunk.len());
            stream.write_all(chunk)?;
        }
        stream.flush()
    }

    /// Waits until so many bytes may be sent.
    fn wait_for(&self, bytes: usize) {
        let mut allowed = held(&self.allowed);
        while *allowed < bytes {
            allowed = self.more.wait(allowed).unwrap_or_else(PoisonError::into_inner);
        }
        *allowed -= bytes;
    }
}

fn held<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
