//! The secret by which a Hub knows its user.

use std::fmt;
use std::path::Path;

use tintype::files::text_of;

/// A secret, which no output shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

/// A file that should hold a token, and is not UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoText;

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token in a text; `None` where the text is blank.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let token = text.trim();
        (!token.is_empty()).then(|| Self(token.into()))
    }

    /// The token in a file; `None` where it is not there, or another user's.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, NoText> {
        let Ok(bytes) = std::fs::read(file) else { return Ok(None) };
        match text_of(&bytes) {
            // UTF-16 without a mark has a zero in each character.
            Ok(text) if !text.contains('\0') => Ok(Self::of(text)),
            _ => Err(NoText),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_no_part_of_a_token_and_utf_16_is_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("it is written");
            Token::read(&file)
        };
        let token = |text: &str| Ok(Some(Token(text.into())));
        assert_eq!(read(b"hf_x\n"), token("hf_x"));
        assert_eq!(read(b"\xef\xbb\xbfhf_x\r\n"), token("hf_x"));
        assert_eq!(read(b"\xef\xbb\xbf \n"), Ok(None));
        assert_eq!(read(b"\xff\xfeh\0f\0_\0x\0\r\0\n\0"), Err(NoText));
        assert_eq!(read(b"\xfe\xff\0h\0f\0_\0x"), Err(NoText));
        assert_eq!(read(b"h\0f\0_\0x\0"), Err(NoText));
        assert_eq!(Token::read(&folder.path().join("none")), Ok(None));
    }
}
