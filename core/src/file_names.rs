//! What every system takes as the name of a file.

/// Characters that are in no name on Windows.
pub(crate) const REFUSED: [char; 9] = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];

/// Whether every system takes a text as the name of a file, and takes it for no folder or device.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_refused = |letter: char| letter.is_control() || REFUSED.contains(&letter);
    // To Windows a device's name is one whatever follows its first dot.
    let base = name.split('.').next().unwrap_or_default();
    !name.is_empty()
        && !name.contains(is_refused)
        // It would leave those out; `.` and `..` are folders.
        && !name.ends_with(['.', ' '])
        && !is_device(base.trim_end())
}

/// Whether Windows calls a device so.
pub(crate) fn is_device(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let port = name.strip_prefix("COM").or_else(|| name.strip_prefix("LPT"));
    let mut number = port.unwrap_or_default().chars();
    let is_port = matches!(
        (number.next(), number.next()),
        (Some('0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'), None)
    );
    is_port || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_every_system_takes() {
        for name in ["model.pt", "stats [1] and %.pt", ".hidden", "COM10", "console", "果物"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a\\b", "a:b", "what?", "a*", "a|b", "<a>", "\"a\""] {
            assert!(!is_file_name(name), "{name}");
        }
        for name in ["tab\t", "a\u{7f}b", "a.", "a ", "CON", "nul.txt", "Aux .pt", "lpt1.a.b"] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
