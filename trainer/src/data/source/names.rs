//! Names of files, with `/` between folders.

use std::fmt::Write;

/// A name as text. Bytes that are not UTF-8 become `\xE9`, so that no two names become the same: a backslash of
/// a name that looks like that is `\x5C`.
pub(super) fn readable(bytes: &[u8]) -> String {
    if let Ok(name) = std::str::from_utf8(bytes)
        && !name.contains("\\x")
    {
        return name.into();
    }
    let mut name = String::new();
    for chunk in bytes.utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', "\\x5C"));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(name, "\\x{byte:02X}");
        }
    }
    name
}

/// A path without `.` and `..`, and without `/` at its ends.
pub(super) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A path as a person or a list may write it.
pub(super) fn normal_of_any(path: &str) -> String {
    normal(&path.replace('\\', "/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_that_are_not_utf_8_stay_apart() {
        let names: [&[u8]; 5] = [b"caf\xe9", b"caf\xe8", b"caf\\xE9", b"a\\b", b"caf\xc3\xa9"];
        let readable = names.map(readable);
        assert_eq!(readable[0], "caf\\xE9");
        assert_eq!(readable[3], "a\\b");
        assert_eq!(readable.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
