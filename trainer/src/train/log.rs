//! Training log: JSON lines, and optionally TensorBoard event files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// The log of a run.
#[derive(Debug)]
pub struct Log {
    lines: Records,
    events: Option<Records>,
}

impl Log {
    /// Opens `log.jsonl`, drops lines after `step` (those steps are repeated), and starts an event
    /// file if `tensorboard`.
    ///
    /// # Errors
    ///
    /// If the log or the event file cannot be opened or written.
    pub fn open(run: &Path, step: u64, tensorboard: bool) -> Result<Self> {
        let path = run.join("log.jsonl");
        cut(&path, step)?;
        let lines = Records::open(&path).with_context(|| path.display().to_string())?;
        let events = match tensorboard {
            true => {
                let seconds = wall_time() as u64;
                let path = run.join(format!("events.out.tfevents.{seconds}.tintype"));
                let mut file = Records::open(&path).with_context(|| path.display().to_string())?;
                file.append(&record(&event(wall_time(), 0, Content::Version)))?;
                Some(file)
            }
            false => None,
        };
        Ok(Self { lines, events })
    }

    /// Writes a sentence about the run, which a viewer of scalars does not show.
    ///
    /// # Errors
    ///
    /// If the log cannot be written.
    pub fn note(&mut self, step: u64, text: &str) -> Result<()> {
        let line = format!("{}\n", json!({ "step": step, "note": text }));
        self.lines.append(line.as_bytes()).context("log.jsonl cannot be written")
    }

    /// Writes the scalars of a step.
    ///
    /// # Errors
    ///
    /// If the log or the event file cannot be written.
    pub fn write(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let mut line = Map::from_iter([("step".to_string(), Value::from(step))]);
        line.extend(values.iter().map(|(name, v)| (name.clone(), Value::from(*v))));
        let line = format!("{}\n", Value::Object(line));
        self.lines.append(line.as_bytes()).context("log.jsonl cannot be written")?;
        if let Some(events) = &mut self.events {
            for (name, value) in values {
                let event = event(wall_time(), step, Content::Scalar(name, *value as f32));
                events.append(&record(&event)).context("the event file cannot be written")?;
            }
        }
        Ok(())
    }
}

/// Drops what a log has beyond [`done`]. The file stays the same one where that can be: Windows replaces none that an
/// editor has open.
fn cut(path: &Path, step: u64) -> Result<()> {
    let cannot = || path.display().to_string();
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(cannot)?,
    };
    let kept = done(&text, step);
    if kept == text {
        return Ok(());
    }
    if text.starts_with(&kept) {
        let file = OpenOptions::new().write(true).open(path);
        return file.and_then(|file| file.set_len(kept.len() as u64)).with_context(cannot);
    }
    tintype::files::write_whole(path, &kept)?;
    Ok(())
}

/// The lines of a log up to a step; those that are not whole, or no JSON, are dropped.
fn done(text: &[u8], step: u64) -> Vec<u8> {
    let is_done = |line: &&[u8]| {
        let line: Option<Value> = serde_json::from_slice(line).ok();
        line.and_then(|l| l["step"].as_u64()).is_some_and(|s| s <= step)
    };
    let lines = text.split(|&byte| byte == b'\n').filter(is_done);
    lines.flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

/// A file that grows by whole records.
#[derive(Debug)]
struct Records {
    path: PathBuf,
    file: File,
}

impl Records {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends all of the bytes, or none if the disk is full: half a line would damage the next one.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(bytes);
        if written.is_err() {
            // Windows shortens no file by a handle that appends.
            let by_name = |_| OpenOptions::new().write(true).open(&self.path)?.set_len(before);
            let _ = self.file.set_len(before).or_else(by_name);
        }
        written
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

enum Content<'a> {
    Version,
    Scalar(&'a str, f32),
}

/// A `tensorflow.Event` in protocol-buffer encoding: wall_time = 1, step = 2, file_version = 3,
/// summary = 5 { value = 1 { tag = 1, simple_value = 2 } }.
fn event(wall_time: f64, step: u64, content: Content<'_>) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend(wall_time.to_le_bytes());
    out.push(0x10);
    varint(&mut out, step);
    match content {
        Content::Version => bytes(&mut out, 0x1a, b"brain.Event:2"),
        Content::Scalar(tag, value) => {
            let mut scalar = Vec::new();
            bytes(&mut scalar, 0x0a, tag.as_bytes());
            scalar.push(0x15);
            scalar.extend(value.to_le_bytes());
            let mut summary = Vec::new();
            bytes(&mut summary, 0x0a, &scalar);
            bytes(&mut out, 0x2a, &summary);
        }
    }
    out
}

fn bytes(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A TFRecord: length, its masked CRC-32C, content, its masked CRC-32C.
fn record(content: &[u8]) -> Vec<u8> {
    let masked = |data: &[u8]| crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
    let length = (content.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(content);
    out.extend(masked(content).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn half_a_record_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        Records::open(&path).and_then(|mut log| log.append(b"half")).expect("it is written");
        // Its length is 0, no byte fits, and as little as Windows it shortens a file by this handle.
        let full = OpenOptions::new().append(true).open("/dev/full").expect("Linux has it");
        let mut records = Records { path: path.clone(), file: full };
        let error = records.append(b"more").expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).expect("it is there"), b"");
    }

    #[test]
    fn later_and_damaged_lines_are_dropped() {
        let text =
            b"{\"step\":1,\"note\":\"a\"}\n{\"step\":2\xff}\n\n{\"step\":3}\n{\"step\":4}\n{\"st";
        assert_eq!(done(text, 3), b"{\"step\":1,\"note\":\"a\"}\n{\"step\":3}\n");
    }

    #[test]
    fn a_log_that_is_open_stays_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        let (first, second) = ("{\"step\":1}\n", "{\"step\":2}\n");
        for after in ["", second, "{\"st"] {
            std::fs::write(&path, format!("{first}{after}")).expect("it is written");
            let mut held = File::open(&path).expect("it opens");
            let mut log = Log::open(folder.path(), 1, false).expect("it opens");
            log.note(1, "again").expect("it is written");
            let text = io::read_to_string(&mut held).expect("it is read");
            let note = text.strip_prefix(first).expect("the first line is kept");
            assert!(note.contains("again") && note.lines().count() == 1, "{after:?}: {text}");
        }
        // Lines in the middle can only be left out of another file.
        std::fs::write(&path, format!("{second}{first}")).expect("it is written");
        Log::open(folder.path(), 1, false).expect("it opens");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), first);
    }

    #[test]
    fn events_are_framed_as_tensorboard_reads_them() {
        // Read back with TensorBoard's own reader once; these are the bytes it understood.
        let event = event(1.5, 300, Content::Scalar("a", 2.0));
        assert_eq!(
            event,
            [
                0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x10, 0xac, 0x02, 0x2a, 0x0a, 0x0a, 0x08, 0x0a,
                0x01, b'a', 0x15, 0, 0, 0, 0x40
            ]
        );
        let framed = record(&event);
        assert_eq!(framed.len(), event.len() + 16);
        assert_eq!(framed[..8], 24u64.to_le_bytes());
    }
}
