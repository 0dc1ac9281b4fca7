//! Sizes of downloads, as far as they are known.

use std::fmt;

use super::{Address, File, Role};
use crate::generate::bytes;

/// The size of some files together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Every size is known.
    Exactly(u64),
    /// Some are known within a few per cent.
    About(u64),
    /// Some are not known.
    AtLeast(u64),
    /// None is known.
    Unknown,
}

impl Size {
    /// Of files; those of one address are one.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a File>) -> Self {
        let mut seen: Vec<&Address> = Vec::new();
        let (mut sum, mut is_exact, mut is_whole) = (0u64, true, true);
        for file in files {
            if seen.contains(&&file.address) {
                continue;
            }
            seen.push(&file.address);
            is_exact &= file.bytes.is_some();
            match file.size() {
                Some(bytes) => sum = sum.saturating_add(bytes),
                None => is_whole &= is_small(file.role),
            }
        }
        match (sum, is_exact, is_whole) {
            (sum, true, _) => Self::Exactly(sum),
            (0, false, _) => Self::Unknown,
            (sum, false, true) => Self::About(sum),
            (sum, false, false) => Self::AtLeast(sum),
        }
    }

    /// What is left of it, once so many bytes are here.
    #[must_use]
    pub fn less(self, bytes: u64) -> Self {
        match self {
            Self::Exactly(n) => Self::Exactly(n.saturating_sub(bytes)),
            Self::About(n) => Self::About(n.saturating_sub(bytes)),
            Self::AtLeast(n) => Self::AtLeast(n.saturating_sub(bytes)),
            Self::Unknown => Self::Unknown,
        }
    }
}

/// Whether files of a role have a few kilobytes.
fn is_small(role: Role) -> bool {
    matches!(role, Role::Config | Role::AutoencoderConfig | Role::Statistics)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(n) => f.write_str(&bytes(*n)),
            Self::About(n) => write!(f, "about {}", bytes(*n)),
            Self::AtLeast(n) => write!(f, "at least {}", bytes(*n)),
            Self::Unknown => f.write_str("size unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(role: Role, name: &str, exact: Option<u64>, about: Option<u64>) -> File {
        let address = format!("https://example.org/{name}").parse().expect("an address");
        File { bytes: exact, about_bytes: about, ..File::at(role, address) }
    }

    fn of(files: &[&File]) -> String {
        Size::of(files.iter().copied()).to_string()
    }

    #[test]
    fn sizes_say_how_well_they_are_known() {
        const MIB: u64 = 1 << 20;
        let network = file(Role::Network, "a.pt", Some(3 * MIB), None);
        let rounded = file(Role::Autoencoder, "b.pt", None, Some(2 * MIB));
        let small = file(Role::Statistics, "c.pt", None, None);
        let unknown = file(Role::Guide, "d.pt", None, None);
        assert_eq!(of(&[&network]), "3.0 MiB");
        assert_eq!(of(&[&network, &rounded]), "about 5.0 MiB");
        assert_eq!(of(&[&network, &small]), "about 3.0 MiB");
        assert_eq!(of(&[&network, &unknown]), "at least 3.0 MiB");
        assert_eq!(of(&[&unknown, &small]), "size unknown");
        // A file that holds the autoencoder, too, is fetched once.
        let both = File { role: Role::Autoencoder, ..network.clone() };
        assert_eq!(of(&[&network, &both]), "3.0 MiB");
        let left = |size: Size| size.less(MIB).to_string();
        assert_eq!(left(Size::of([&network, &small])), "about 2.0 MiB");
        assert_eq!(left(Size::Unknown), "size unknown");
        assert_eq!(left(Size::Exactly(1)), "0.0 KiB");
    }
}
