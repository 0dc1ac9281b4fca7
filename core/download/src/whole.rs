//! Whether a content is whole, by its own structure: for answers that tell neither a length nor an end.

use std::io::{self, Read, Seek, SeekFrom};

use serde_json::Value;

/// Bytes at the beginning that tell the kind of a file.
const BEGINNING: u64 = 9;
/// The longest header of a safetensors file, as its library has it.
const LONGEST_HEADER: u64 = 100_000_000;
/// The longest JSON that is looked at.
const LONGEST_JSON: u64 = 16 << 20;
/// Bytes of the record at the end of a zip archive, without its comment (APPNOTE.TXT, section 4.3.16).
const ZIP_END: usize = 22;

/// Why a content is cut, or may be; `None` where it is whole.
pub(crate) fn doubt(content: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let length = content.seek(SeekFrom::End(0))?;
    let beginning = piece(content, 0, BEGINNING)?;
    let (is_whole, problem) = match *beginning.as_slice() {
        [b'P', b'K', ..] => (ends_zip(content, length)?, "its zip archive has no end"),
        // The length of a header of less than 4 GiB, and the header.
        [a, b, c, d, 0, 0, 0, 0, b'{'] => {
            let header = u32::from_le_bytes([a, b, c, d]).into();
            let is_whole = described(content, header)? == Some(length);
            (is_whole, "it is not as long as its header says")
        }
        [b'{' | b'[', ..] => {
            let text = piece(content, 0, LONGEST_JSON)?;
            (serde_json::from_slice::<Value>(&text).is_ok(), "its JSON has no end")
        }
        _ => (
            false,
            "nothing in a file of its kind tells whether it is whole; its SHA-256 in a catalogue of your own would",
        ),
    };
    Ok((!is_whole).then_some(problem))
}

/// Whether the record at the end of a zip archive is there, with its comment.
fn ends_zip(content: &mut (impl Read + Seek), length: u64) -> io::Result<bool> {
    let longest = ZIP_END as u64 + u64::from(u16::MAX);
    let tail = piece(content, length.saturating_sub(longest), longest)?;
    let is_end = |(at, record): (usize, &[u8])| {
        let comment = u16::from_le_bytes([record[20], record[21]]);
        record.starts_with(b"PK\x05\x06") && at + ZIP_END + usize::from(comment) == tail.len()
    };
    Ok(tail.windows(ZIP_END).enumerate().any(is_end))
}

/// The bytes of the file that a safetensors header describes; `None` where it is none.
///
/// * `header`: its bytes
fn described(content: &mut (impl Read + Seek), header: u64) -> io::Result<Option<u64>> {
    if header > LONGEST_HEADER {
        return Ok(None);
    }
    let text = piece(content, 8, header)?;
    let Ok(Value::Object(tensors)) = serde_json::from_slice(&text) else { return Ok(None) };
    let end = |tensor: &Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let data = tensors.values().filter_map(end).max().unwrap_or(0);
    Ok(data.checked_add(8 + header))
}

/// So many bytes from a place on, or those that there are.
fn piece(content: &mut (impl Read + Seek), start: u64, length: u64) -> io::Result<Vec<u8>> {
    content.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    content.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn is_whole(bytes: &[u8]) -> bool {
        doubt(&mut Cursor::new(bytes)).expect("it reads").is_none()
    }

    #[test]
    fn only_a_content_that_ends_as_its_kind_does_is_whole() {
        // 123 bytes of header, as many as the code of a brace.
        let header = r#"{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"__metadata__":{"data_offsets":"none"}}"#;
        let length = 123u64.to_le_bytes();
        let safetensors = [&length[..], format!("{header:123}").as_bytes(), b"abc"].concat();
        let zip = [&b"PK\x03\x04 a file PK\x05\x06"[..], &[0u8; 16], &[2u8, 0], b"ok"].concat();
        let whole: [&[u8]; 3] = [&safetensors, &zip, br#"{"abcd":{"e": [1, 2]}} "#];
        for whole in whole {
            assert!(is_whole(whole), "{whole:?}");
            assert!(!is_whole(&whole[..whole.len() - 2]), "{whole:?}");
        }
        let unknown: [&[u8]; 5] = [b"", b"PK", b"\x80\x02}.", b"\x1f\x8b\x08", b"a: 1\n"];
        for unknown in unknown {
            assert!(!is_whole(unknown), "{unknown:?}");
        }
    }
}
