//! Just enough of HTTP/1.1: requests without content, answers with a length or without.

use std::io::{self, BufRead};

/// Which of the two hosts was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The Hub.
    Hub,
    /// The content network.
    Cdn,
}

/// A request that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who was asked.
    pub host: Host,
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// Names and values in their order.
    pub headers: Vec<(String, String)>,
    /// Bytes of the content that were sent, or are being sent.
    pub sent: u64,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The path, decoded and without the query.
    pub fn path(&self) -> String {
        decoded(self.target.split('?').next().unwrap_or_default())
    }

    /// The first byte of the range that is asked for.
    pub(crate) fn start(&self) -> Option<usize> {
        let range = self.header("Range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }

    /// The next request of a connection; `None` at its end.
    pub(crate) fn read(reader: &mut impl BufRead, host: Host) -> io::Result<Option<Self>> {
        let lines = head(reader)?;
        let mut words = lines.first().map(|first| first.split(' ')).into_iter().flatten();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.into(), value.trim().into())).collect();
        Ok(Some(Self { host, method: method.into(), target: target.into(), headers, sent: 0 }))
    }
}

/// The lines before the content; none at the end of the connection.
pub(crate) fn head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(Vec::new());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            text => lines.push(text.to_string()),
        }
    }
}

/// Names and values of an answer.
pub(crate) type Headers = Vec<(String, String)>;

/// Headers of texts.
pub(crate) fn headers(of: &[(&str, &str)]) -> Headers {
    of.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// What tells where the content of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its length.
    Length,
    /// The last chunk.
    Chunk,
    /// The end of the connection.
    Connection,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, of: &[(&str, &str)], body: &str) -> Self {
        Self { status, headers: headers(of), body: body.into() }
    }

    /// Gives a header a value, in place of one that it has.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
    }

    /// What is sent before the content.
    pub(crate) fn head(&self, end: End) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match end {
            End::Length => head.push_str(&format!("Content-Length: {}\r\n", self.body.len())),
            End::Chunk => head.push_str("Transfer-Encoding: chunked\r\n"),
            End::Connection => {}
        }
        head.push_str("\r\n");
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        300..400 => "Redirect",
        404 => "Not Found",
        429 => "Too Many Requests",
        500.. => "Server Error",
        _ => "Refused",
    }
}

/// Text with `%XX` for all that may not stand in the path of an address.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Text whose `%XX` are bytes again.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let mut text = &b"GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nrange: bytes=7-\r\n\r\n"[..];
        let request = Request::read(&mut text, Host::Cdn).expect("it reads").expect("one");
        assert_eq!((request.method.as_str(), request.path().as_str()), ("GET", "/a b"));
        assert_eq!((request.start(), request.header("host")), (Some(7), Some("h")));
        assert_eq!(Request::read(&mut text, Host::Cdn).expect("it reads"), None);
    }

    #[test]
    fn paths_come_back() {
        let path = "deep/[brackets] and %.pt";
        assert_eq!(encoded(path), "deep/%5Bbrackets%5D%20and%20%25.pt");
        assert_eq!(decoded(&encoded(path)), path);
        assert_eq!(decoded("100%"), "100%");
    }
}
