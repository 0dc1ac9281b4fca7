//! Texts as people's programs save them.

use std::io::{self, ErrorKind};
use std::path::Path;

/// Why a file is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// It begins with the mark of UTF-16, which Windows' PowerShell and Notepad may write.
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
    /// It has bytes that UTF-8 does not have.
    #[error("it is not a text in UTF-8")]
    NotUtf8,
}

/// Reads a text file, without the byte order mark that some programs put before it.
///
/// # Errors
///
/// [`io::Error`] where the file cannot be read; with [`NotText`] in it where it is no text.
pub fn read_text(path: &Path) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    let text =
        text_of(&bytes).map_err(|problem| io::Error::new(ErrorKind::InvalidData, problem))?;
    Ok(text.into())
}

/// The text in the bytes of a file, without the byte order mark that some programs put before it.
///
/// # Errors
///
/// [`NotText`] where they are no text in UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, NotText> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(NotText::Utf16);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NotText::NotUtf8)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_without_its_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        for bytes in ["{\"a\": \"ä\"}", "\u{feff}{\"a\": \"ä\"}"] {
            std::fs::write(&path, bytes).expect("it writes");
            assert_eq!(read_text(&path).expect("a text"), "{\"a\": \"ä\"}");
        }
        assert_eq!(text_of(b""), Ok(""));
        let none = read_text(&folder.path().join("no")).expect_err("no file");
        assert_eq!(none.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn another_encoding_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("it writes");
            read_text(&path).expect_err("no UTF-8").to_string()
        };
        assert_eq!(said(b"\xff\xfe{\0}\0"), "it is UTF-16; save it as UTF-8");
        assert_eq!(said(b"\xfe\xff\0{\0}"), "it is UTF-16; save it as UTF-8");
        assert_eq!(said(b"caf\xe9"), "it is not a text in UTF-8");
    }
}
