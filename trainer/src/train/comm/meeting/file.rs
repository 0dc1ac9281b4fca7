//! Meeting by a file in the run's folder, which every rank reaches: rank 0 writes there where it listens, and a random
//! token. Whoever may read the file may come.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tintype::files::{rename, temporary_name};

use super::super::CommError;
use super::super::watch::Watch;
use super::join::{Joining, Target};
use super::random_token;
use super::{Card, Listening, ONLY_HERE, PACE, VERSION, host_name};

/// The folder in a run's with such files.
const FOLDER: &str = ".rendezvous";

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Note {
    version: u32,
    address: String,
    port: u16,
    token: String,
}

/// [`Listening::receive`] at a free port, which a file in the run's folder tells the others.
///
/// # Errors
///
/// * as [`Listening::receive`]
/// * [`CommError::Meeting`] if the launch has no id, or the file cannot be written
pub fn receive_by_file(
    run: &Path,
    card: Card,
    payload: &[u8],
    limit: Duration,
    note: impl Fn(&str),
) -> Result<Watch, CommError> {
    let file = file_of(run, &card)?;
    let listening = listen()?;
    let address = listening.here.ip().to_string();
    let (port, token) = (listening.port(), random_token());
    let place = Note { version: VERSION, address, port, token: token.clone() };
    let _written = Written::new(&file, &place).map_err(|error| {
        CommError::Meeting(format!("{} cannot be written: {error}", file.display()))
    })?;
    listening.receive(card, &token, payload, limit, note)
}

/// [`join`](super::join) by rank 0's file in the run's folder.
///
/// # Errors
///
/// * as [`join`](super::join)
/// * [`CommError::Meeting`] if the launch has no id
pub fn join_by_file(
    run: &Path,
    card: Card,
    limit: Duration,
    note: impl Fn(&str),
) -> Result<(Vec<u8>, Watch), CommError> {
    let file = file_of(run, &card)?;
    Joining { card: &card, limit, pace: PACE, note: &note, patient: true }.until_met(|| read(&file))
}

/// The file of a launch.
fn file_of(run: &Path, card: &Card) -> Result<PathBuf, CommError> {
    let Some(id) = &card.launch else {
        return Err(CommError::Meeting(
            "this launch has no id; set TINTYPE_RUN to a new word, the same for all ranks".into(),
        ));
    };
    Ok(run.join(FOLDER).join(file_name(id)))
}

/// A launch's id as the name of a file.
fn file_name(id: &str) -> String {
    let plain = |at: usize, byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0)
    };
    let letter = |(at, byte): (usize, u8)| match plain(at, byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    id.bytes().enumerate().map(letter).collect()
}

/// Listens at an address by which other machines know this one, or else for this machine alone.
fn listen() -> Result<Listening, CommError> {
    let host = host_name();
    let mut own: Vec<IpAddr> = match (host.as_str(), 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    };
    own.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    let bound = own.iter().find_map(|address| Listening::at(&address.to_string(), 0).ok());
    let mut listening = match bound {
        Some(listening) => listening,
        None => Listening::at("127.0.0.1", 0)?,
    };
    if listening.here.ip().is_loopback() {
        listening.place += ONLY_HERE;
    }
    Ok(listening)
}

/// Where rank 0 says that it is.
fn read(file: &Path) -> Result<Target, String> {
    // Opening the folder makes a network's file system look again.
    if let Some(folder) = file.parent() {
        let _ = std::fs::read_dir(folder).map(Iterator::count);
    }
    let name = file.display();
    let text = std::fs::read(file).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("has not written {name}"),
        _ => format!("has written {name}, which cannot be read: {error}"),
    })?;
    match serde_json::from_slice::<Note>(&text) {
        Ok(Note { version: VERSION, address, port, token }) => Ok(Target { address, port, token }),
        _ => Err(format!("has written {name} in another version")),
    }
}

/// The file, as long as rank 0 waits.
struct Written(PathBuf);

impl Written {
    fn new(file: &Path, place: &Note) -> io::Result<Self> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = temporary_name(file);
        let written = serde_json::to_vec(place)
            .map_err(io::Error::other)
            .and_then(|text| write_for_owner(&temporary, &text))
            .and_then(|()| rename(&temporary, file));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.map(|()| Self(file.into()))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // It stays where an earlier launch left a file.
        if let Some(folder) = self.0.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Writes a new file, on Unix one that only its owner may read. Elsewhere the folder says who may.
fn write_for_owner(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_file_name() {
        assert_eq!(file_name("4711.0.1"), "4711.0.1");
        assert_eq!(file_name("prterun-a-9@1"), "prterun-a-9%401");
        for id in ["..", ".", "../x", "a/b", "a\\b", "%2e", "C:x"] {
            let name = file_name(id);
            let path = Path::new("run").join(&name);
            assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(name.as_str()), "{id}");
            assert!(!name.contains(['/', '\\', ':']) && name != id, "{name}");
        }
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let tokens = [random_token(), random_token()];
        assert!(tokens[0] != tokens[1] && tokens[0].len() == 64, "{tokens:?}");
    }
}
