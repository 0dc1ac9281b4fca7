//! Telling sets of files apart without reading them.

use std::fmt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// 64 bits over pieces of text, one after another (FNV-1a; identity, not security).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Of one text.
    pub fn of(text: &str) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.add(text);
        fingerprint
    }

    /// Adds a text; where it ends counts.
    pub fn add(&mut self, text: &str) {
        for &byte in text.as_bytes().iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds size and modification time of a file.
    pub fn add_file(&mut self, path: &Path) {
        let Ok(file) = std::fs::metadata(path) else { return self.add("missing") };
        let time = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.add(&format!("{} {}", file.len(), time.map_or(0, |time| time.as_nanos())));
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_another_fingerprint() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let of = || {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add_file(&path);
            fingerprint.to_string()
        };
        let none = of();
        std::fs::write(&path, "one").expect("it is written");
        let one = of();
        assert_eq!(one, of());
        std::fs::write(&path, "three").expect("it is written");
        let three = of();
        assert!(none != one && one != three);
        // The same size at another time.
        let file = std::fs::File::options().write(true).open(&path).expect("it is there");
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(7)).expect("a time");
        assert_ne!(three, of());
        assert_ne!(Fingerprint::of("ab"), Fingerprint::of("a"));
    }
}
