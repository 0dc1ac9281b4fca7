//! Pages of the web, in the system's browser.

use std::io;
use std::process::{Command, Stdio};

/// What opens a page.
const PROGRAM: &str = if cfg!(target_os = "macos") {
    "open"
} else if cfg!(windows) {
    "explorer"
} else {
    "xdg-open"
};

/// Whether an address is of a page, and not of something that a system would start.
pub fn is_page(address: &str) -> bool {
    ["https://", "http://"].iter().any(|start| address.starts_with(start))
        && address.chars().all(|c| c.is_ascii_graphic() && c != '"')
}

/// Opens a page.
///
/// # Errors
///
/// Where it is none, or the system has no program that opens one.
pub fn open(address: &str) -> io::Result<()> {
    if !is_page(address) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut command = Command::new(PROGRAM);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut program = command.spawn()?;
    // Somebody has to wait for it, or it stays as a zombie.
    std::thread::spawn(move || program.wait());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_are_opened() {
        assert!(is_page("https://huggingface.co/a/b?x=1"));
        for other in ["file:///etc/passwd", "--help", "https://a b", "javascript:alert(1)", ""] {
            assert!(!is_page(other) && open(other).is_err(), "{other}");
        }
    }
}
