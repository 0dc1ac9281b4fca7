//! The two hosts: their ports, what they publish, and what they have seen.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::content::{Content, Plain, Stored};
use crate::fault::{Fault, Script};
use crate::http::{Answer, End, Host, Request, encoded, headers};
use crate::locked;
use crate::route::Route;

/// Entries of a page of a listing, where a test says nothing else.
const PAGE: usize = 1000;

/// A Hub and its content network on this machine, until it is dropped.
#[derive(Debug)]
pub struct TestHub {
    shared: Arc<Shared>,
    hub: SocketAddr,
    cdn: SocketAddr,
    listening: Vec<JoinHandle<()>>,
}

impl TestHub {
    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// If this machine has no free ports.
    pub fn start() -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let (hub_listener, cdn_listener) = (listener(), listener());
        let address = |listener: &TcpListener| listener.local_addr().expect("it has an address");
        let (hub, cdn) = (address(&hub_listener), address(&cdn_listener));
        let shared = Arc::new(Shared {
            cdn: format!("http://{cdn}"),
            content: Mutex::default(),
            scripts: Mutex::default(),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            signatures: AtomicUsize::new(0),
            page: AtomicUsize::new(PAGE),
            is_stopped: AtomicBool::new(false),
        });
        let listening = [(Host::Hub, hub_listener), (Host::Cdn, cdn_listener)];
        let listening = listening.map(|(host, listener)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.listen(host, &listener))
        });
        Self { shared, hub, cdn, listening: listening.into() }
    }

    /// The Hub's address: what `HF_ENDPOINT` is to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// The content network's address.
    pub fn cdn(&self) -> String {
        self.shared.cdn.clone()
    }

    /// Publishes a small file in the commit that `main` is, and returns its id: git's SHA-1. It is asked for at
    /// `/OWNER/NAME/resolve/…`, which answers 307 to an address of the Hub itself.
    ///
    /// * `repository`: `OWNER/NAME` or `datasets/OWNER/NAME`
    pub fn put(&self, repository: &str, path: &str, bytes: &[u8]) -> String {
        self.store(repository, path, Stored::new(bytes, false))
    }

    /// Publishes a large file in the commit that `main` is, and returns its id: SHA-256. Its bytes are on the content
    /// network, at a signed address that every question gets anew.
    ///
    /// * `repository`: `OWNER/NAME` or `datasets/OWNER/NAME`
    pub fn put_large(&self, repository: &str, path: &str, bytes: &[u8]) -> String {
        self.store(repository, path, Stored::new(bytes, true))
    }

    fn store(&self, repository: &str, path: &str, file: Stored) -> String {
        let id = file.id.clone();
        let mut content = locked(&self.shared.content);
        content.repositories.entry(repository.into()).or_default().put(path, file);
        id
    }

    /// Lets a branch or tag be a commit from now on. A commit that is new has the files of `main`; what is published
    /// later is in `main` alone.
    pub fn branch(&self, repository: &str, name: &str, commit: &str) {
        let mut content = locked(&self.shared.content);
        content.repositories.entry(repository.into()).or_default().branch(name, commit);
    }

    /// Publishes a file at a plain path of both hosts, in place of an older one; returns its address on the content
    /// network.
    ///
    /// * `with`: headers of its answers, as `ETag` and `Content-Type`
    pub fn put_url(&self, path: &str, bytes: &[u8], with: &[(&str, &str)]) -> String {
        let plain = Plain { bytes: bytes.into(), headers: headers(with) };
        locked(&self.shared.content).plain.insert(path.into(), plain);
        format!("{}{}", self.shared.cdn, encoded(path))
    }

    /// Entries of a page of a listing, from now on.
    pub fn page_by(&self, entries: usize) {
        self.shared.page.store(entries, Ordering::Relaxed);
    }

    /// Scripts the next requests of a method to paths that end like this, on both hosts: each takes one fault, and
    /// those that come after the last are answered as they should be.
    ///
    /// * `end`: how the decoded path ends
    pub fn on(&self, method: &str, end: &str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().collect();
        let script = Script { method: method.into(), end: end.into(), faults };
        locked(&self.shared.scripts).push(script);
    }

    /// Forgets what was scripted and has not happened.
    pub fn behave(&self) {
        locked(&self.shared.scripts).clear();
    }

    /// All requests that have come, in their order.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.shared.requests).clone()
    }

    /// The requests of a method to paths that end like this.
    pub fn seen(&self, method: &str, end: &str) -> Vec<Request> {
        let is_meant = |r: &Request| r.method == method && r.path().ends_with(end);
        self.requests().into_iter().filter(is_meant).collect()
    }

    /// Connections that were made to either host.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Stops to listen: connections are refused from now on.
    pub fn stop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        for (address, thread) in [self.hub, self.cdn].into_iter().zip(self.listening.drain(..)) {
            // It wakes the thread.
            let _ = TcpStream::connect(address);
            let _ = thread.join();
        }
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the threads of the server have in common.
#[derive(Debug)]
struct Shared {
    cdn: String,
    content: Mutex<Content>,
    scripts: Mutex<Vec<Script>>,
    requests: Mutex<Vec<Request>>,
    connections: AtomicUsize,
    signatures: AtomicUsize,
    page: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Shared {
    fn listen(self: Arc<Self>, host: Host, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.is_stopped.load(Ordering::Relaxed) {
                break;
            }
            let Ok(stream) = stream else { continue };
            self.connections.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&self);
            // A client that goes away ends its thread, and nothing else.
            std::thread::spawn(move || {
                let _ = shared.serve(host, stream);
            });
        }
    }

    /// Answers the requests of a connection.
    fn serve(&self, host: Host, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some(request) = Request::read(&mut reader, host)? {
            if self.is_stopped.load(Ordering::Relaxed) {
                break;
            }
            let number = self.record(&request);
            let fault = self.take_fault(&request);
            let goes_on = self.respond(&request, number, fault, &mut reader, &mut writer)?;
            if !goes_on || request.header("Connection").is_some_and(|c| c == "close") {
                break;
            }
        }
        Ok(())
    }

    /// Remembers a request; returns its number.
    fn record(&self, request: &Request) -> usize {
        let mut requests = locked(&self.requests);
        requests.push(request.clone());
        requests.len() - 1
    }

    fn take_fault(&self, request: &Request) -> Fault {
        let path = request.path();
        let mut scripts = locked(&self.scripts);
        let script = scripts.iter_mut().find(|script| script.is_about(&request.method, &path));
        script.and_then(|script| script.faults.pop_front()).unwrap_or(Fault::None)
    }

    /// Answers a request; returns whether the connection goes on.
    fn respond(
        &self,
        request: &Request,
        number: usize,
        fault: Fault,
        reader: &mut BufReader<TcpStream>,
        writer: &mut TcpStream,
    ) -> io::Result<bool> {
        let fault = match fault {
            Fault::Wait(gate, then) => {
                gate.pass();
                return self.respond(request, number, *then, reader, writer);
            }
            Fault::Close => return Ok(false),
            Fault::Hang => {
                // Until the client loses patience and closes the connection.
                let _ = reader.fill_buf();
                return Ok(false);
            }
            fault => fault,
        };
        let answer = self.answer(request, &fault);
        let body: &[u8] = if request.method == "HEAD" { &[] } else { &answer.body };
        let (first, gate, ends) = fault.course();
        let (now, later) = body.split_at(first.min(body.len()));
        let end = fault.end();
        writer.write_all(answer.head(end).as_bytes())?;
        if end == End::Chunk {
            write!(writer, "{:x}\r\n", now.len())?;
        }
        self.send(number, now, writer)?;
        if end == End::Chunk && later.is_empty() {
            writer.write_all(b"\r\n0\r\n\r\n")?;
        }
        if ends {
            return Ok(false);
        }
        if let Some(gate) = gate {
            gate.pass();
        }
        self.send(number, later, writer)?;
        Ok(true)
    }

    /// What a request is answered.
    fn answer(&self, request: &Request, fault: &Fault) -> Answer {
        let mut request = request.clone();
        if matches!(fault, Fault::IgnoreRange) {
            request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Range"));
        }
        let content = locked(&self.content);
        let route = Route {
            content: &content,
            request: &request,
            cdn: &self.cdn,
            signature: self.signatures.fetch_add(1, Ordering::Relaxed),
            page: self.page.load(Ordering::Relaxed),
        };
        let mut answer = route.answer();
        match fault {
            Fault::Status(status, headers) => {
                answer = Answer { status: *status, headers: headers.clone(), body: Vec::new() };
            }
            Fault::Page => {
                let kind = ("Content-Type", "text/html; charset=utf-8");
                answer = Answer::new(200, &[kind], "<!DOCTYPE html><title>Log in</title>");
            }
            Fault::Other(bytes) => {
                answer = Answer { status: 200, headers: Vec::new(), body: bytes.clone() };
            }
            Fault::WrongBytes => answer.body.iter_mut().for_each(|byte| *byte = !*byte),
            Fault::ContentRange(value) => answer.set("Content-Range", value),
            _ => {}
        }
        answer
    }

    /// Sends a piece of the content, and counts it before, so that a client that has it finds it counted.
    fn send(&self, number: usize, bytes: &[u8], writer: &mut TcpStream) -> io::Result<()> {
        locked(&self.requests)[number].sent += bytes.len() as u64;
        writer.write_all(bytes)
    }
}
