//! What `--version` prints: the program's version and features, the version of Burn, and the platform.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

/// The version of Burn. Cargo tells a program only its own; a test compares this with `Cargo.lock`.
pub const BURN: &str = "0.22.0-pre.3";

/// [`long`] for a program without features of its own.
pub static LONG: LazyLock<String> = LazyLock::new(|| long(&[]));

/// Cargo features that programs forward to this library, and whether they are on.
const FEATURES: [(&str, bool); 7] = [
    ("cpu", cfg!(feature = "cpu")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
    ("cuda", cfg!(feature = "cuda")),
    ("autotune", cfg!(feature = "autotune")),
    ("fusion", cfg!(feature = "fusion")),
    ("embedded-model", cfg!(feature = "embedded-model")),
];

/// Three lines, to be printed after the program's name: its version, its features, and Burn with the
/// platform.
///
/// * `own`: features that are on and that only the program has
pub fn long(own: &[&str]) -> String {
    let shared = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
    let features: Vec<&str> = shared.chain(own.iter().copied()).collect();
    format!(
        "{}\nfeatures: {}\nburn {BURN} ({OS} {ARCH})",
        env!("CARGO_PKG_VERSION"),
        features.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_burn_is_that_of_the_lock_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
        let lock = std::fs::read_to_string(path).expect("the workspace has a lock file");
        let mut lines = lock.lines().skip_while(|line| *line != r#"name = "burn-core""#);
        let version = lines.nth(1).expect("burn-core is locked");
        assert_eq!(version, format!(r#"version = "{BURN}""#));
    }

    #[test]
    fn features_of_the_library_and_of_the_program_are_listed() {
        let text = long(&["mpi"]);
        let features = text.lines().nth(1).and_then(|line| line.strip_prefix("features: "));
        let listed: Vec<_> = features.expect("the second line lists them").split(", ").collect();
        for (name, on) in FEATURES {
            assert_eq!(listed.contains(&name), on, "{name}: {text}");
        }
        assert_eq!(listed.last(), Some(&"mpi"), "{text}");
    }
}
