//! What reaches the terminal. Names and metadata of files may be strangers' texts, and a terminal obeys control
//! characters in them: the macros of this module print a text in which these are escaped, and stand in the place of the
//! standard library's everywhere in the command line.

use std::io::Write;

use tintype::labels::{is_printable, printable};

/// A text of any number of lines as a terminal can show it: what it would obey is escaped, but for ends of lines.
pub fn shown(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// The same of a text that is JSON, which means what it did. Of control characters JSON itself escapes those below
/// U+0020 alone.
pub fn shown_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match is_printable(letter) {
            true => text.push(letter),
            // All of them are in strings, and have four digits at most.
            false => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
        }
    }
    text
}

/// Says something on standard error, which may be closed or a file on a full disk: that ends no work.
pub fn say(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(shown(text).as_bytes());
    let _ = err.flush();
}

/// As the standard library's, with control characters escaped.
macro_rules! print {
    ($($text:tt)*) => {
        std::print!("{}", $crate::cli::terminal::shown(&std::format!($($text)*)))
    };
}

/// As the standard library's, with control characters escaped.
macro_rules! println {
    () => {
        std::println!()
    };
    ($($text:tt)*) => {
        std::println!("{}", $crate::cli::terminal::shown(&std::format!($($text)*)))
    };
}

/// As the standard library's, with control characters escaped, and without a panic.
macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::cli::terminal::say(&std::format!($($text)*))
    };
}

/// As the standard library's, with control characters escaped, and without a panic.
macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::cli::terminal::say(&(std::format!($($text)*) + "\n"))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_what_a_terminal_obeys_is_escaped() {
        let text = "a \u{1b}]0;title\u{7}\r\nb\t\u{9b}2J\n";
        assert_eq!(shown(text), "a \\u{1b}]0;title\\u{7}\\r\nb\\t\\u{9b}2J\n");
    }

    #[test]
    fn json_means_what_it_did() {
        let value = serde_json::json!({"a\u{7f}": "\u{1b}\u{9b}\n\u{202e}é"});
        let text = shown_json(&value.to_string());
        assert_eq!(text, r#"{"a\u007f":"\u001b\u009b\n\u202eé"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
