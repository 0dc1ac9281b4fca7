//! Waiting until bytes and names have reached the disk.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Waits until a file has reached the disk. On macOS network shares and foreign file systems may have no request for
/// that; they write it when they do.
///
/// # Errors
///
/// [`io::Error`] where the file cannot be written.
pub fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if cfg!(target_os = "macos") && is_unknown(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether a file system of macOS does not know the request (`F_FULLFSYNC`).
fn is_unknown(error: &io::Error) -> bool {
    // ENOTTY, ENOTSUP and EOPNOTSUPP there.
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
        || matches!(error.raw_os_error(), Some(25 | 45 | 102))
}

/// Makes a rename last: the name of a file is its folder's, which is written on its own.
///
/// # Errors
///
/// [`io::Error`] where the folder cannot be opened or written.
pub fn sync_folder(of: &Path) -> io::Result<()> {
    // Windows writes names with their files, and cannot open a folder.
    #[cfg(unix)]
    {
        let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync(&File::open(folder.unwrap_or(Path::new(".")))?)?;
    }
    #[cfg(not(unix))]
    let _ = of;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_without_the_request_is_told_from_a_disk_in_trouble() {
        for code in [25, 45, 102] {
            assert!(is_unknown(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(is_unknown(&ErrorKind::Unsupported.into()));
        assert!(is_unknown(&ErrorKind::InvalidInput.into()));
        for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::Other] {
            assert!(!is_unknown(&kind.into()), "{kind}");
        }
        assert!(!is_unknown(&io::Error::from_raw_os_error(5)), "an error of the disk");
    }

    #[test]
    fn a_file_and_its_name_are_synced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        sync(&File::create(&path).expect("a file")).expect("it is synced");
        sync_folder(&path).expect("it is synced");
    }
}
