//! Renaming where a virus scanner or a reader may have a file open.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// The first pause between two tries; each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST: Duration = Duration::from_millis(500);
/// All pauses together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives a file or a folder another name, in place of a file that has it.
///
/// Windows refuses that while a virus scanner, an indexer or a reader has one of both open, so there it is tried for
/// ten seconds.
///
/// # Errors
///
/// [`io::Error`] as of [`std::fs::rename`].
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let may_pass = |error: &io::Error| may_pass(error, to, cfg!(windows));
    retried(|| std::fs::rename(from, to), may_pass, std::thread::sleep)
}

/// Whether another try may succeed, on Windows or elsewhere.
fn may_pass(error: &io::Error, to: &Path, windows: bool) -> bool {
    // Of a folder in the way Windows says the same, and that stays.
    windows && is_in_use(error) && !to.is_dir()
}

/// Whether Windows refuses what a program may have open: access denied, a sharing violation, a locked region.
pub(super) fn is_in_use(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied || matches!(error.raw_os_error(), Some(32 | 33))
}

fn retried(
    mut operation: impl FnMut() -> io::Result<()>,
    may_pass: impl Fn(&io::Error) -> bool,
    mut wait: impl FnMut(Duration),
) -> io::Result<()> {
    let (mut pause, mut waited) = (FIRST, Duration::ZERO);
    loop {
        match operation() {
            Err(error) if waited < PATIENCE && may_pass(&error) => {
                wait(pause);
                waited += pause;
                pause = (pause * 2).min(LONGEST);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How an operation ends that fails so often, and the pauses in milliseconds.
    fn tried(failures: usize, error: fn() -> io::Error) -> (io::Result<()>, Vec<u128>) {
        let (mut left, mut pauses) = (failures, Vec::new());
        let operation = || match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                Err(error())
            }
            None => Ok(()),
        };
        let done = retried(operation, is_in_use, |pause| pauses.push(pause.as_millis()));
        (done, pauses)
    }

    #[test]
    fn a_file_in_use_is_tried_again_with_growing_pauses() {
        let denied: fn() -> io::Error = || ErrorKind::PermissionDenied.into();
        let shared: fn() -> io::Error = || io::Error::from_raw_os_error(32);
        for error in [denied, shared] {
            let (done, pauses) = tried(0, error);
            assert!(done.is_ok() && pauses.is_empty());
            let (done, pauses) = tried(3, error);
            assert!(done.is_ok());
            assert_eq!(pauses, [10, 20, 40]);
        }
        let (done, pauses) = tried(usize::MAX, denied);
        assert_eq!(done.expect_err("it stays in use").kind(), ErrorKind::PermissionDenied);
        let waited: u128 = pauses.iter().sum();
        assert!((10_000..11_000).contains(&waited) && pauses.last() == Some(&500), "{pauses:?}");
    }

    #[test]
    fn another_error_is_told_at_once() {
        let (done, pauses) = tried(1, || ErrorKind::NotFound.into());
        assert_eq!(done.expect_err("it is not there").kind(), ErrorKind::NotFound);
        assert!(pauses.is_empty());
    }

    #[test]
    fn only_windows_tries_again_and_not_where_a_folder_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, folder) = (folder.path().join("file"), folder.path());
        let denied: io::Error = ErrorKind::PermissionDenied.into();
        // A sharing violation there, and a broken pipe elsewhere.
        let shared = io::Error::from_raw_os_error(32);
        for error in [&denied, &shared] {
            assert!(may_pass(error, &file, true), "{error}");
            assert!(!may_pass(error, folder, true), "{error}");
            assert!(!may_pass(error, &file, false), "{error}");
        }
        assert!(!may_pass(&ErrorKind::NotFound.into(), &file, true));
    }
}
