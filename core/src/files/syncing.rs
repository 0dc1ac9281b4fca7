//! Waiting until bytes and names have reached the disk.

use std::fs::File;
use std::io;
use std::path::Path;

/// Waits until a file has reached the disk. On macOS network shares and foreign file systems may not know the request for
/// that (`F_FULLFSYNC`); they get the plain one (`fsync`), and where they do not know that either, they write it when
/// they do.
///
/// # Errors
///
/// [`io::Error`] where the file cannot be written.
pub fn sync(file: &File) -> io::Result<()> {
    #[cfg(target_os = "macos")]
    {
        where_unknown(file.sync_all(), || rustix::fs::fsync(file).map_err(io::Error::from))
    }
    #[cfg(not(target_os = "macos"))]
    {
        file.sync_all()
    }
}

/// What a request came to; the plain one in place of one that is unknown, and success where both are.
#[cfg(any(target_os = "macos", test))]
fn where_unknown(synced: io::Result<()>, plain: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if is_unknown(&error) => match plain() {
            Err(error) if is_unknown(&error) => Ok(()),
            synced => synced,
        },
        synced => synced,
    }
}

/// Whether a file system of macOS does not know a request.
#[cfg(any(target_os = "macos", test))]
fn is_unknown(error: &io::Error) -> bool {
    // ENOTTY, ENOTSUP and EOPNOTSUPP there.
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
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
    use std::io::ErrorKind;

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
    fn the_plain_request_follows_one_that_is_unknown() {
        let (unknown, full) = (ErrorKind::Unsupported, ErrorKind::StorageFull);
        // How the first request ends, how the plain one does, whether it is made, and what is returned.
        for (first, plain, is_made, end) in [
            (None, None, false, None),
            (Some(full), None, false, Some(full)),
            (Some(unknown), None, true, None),
            (Some(unknown), Some(full), true, Some(full)),
            (Some(unknown), Some(unknown), true, None),
        ] {
            let of = |kind: Option<ErrorKind>| -> io::Result<()> {
                kind.map_or(Ok(()), |kind| Err(kind.into()))
            };
            let mut made = false;
            let synced = where_unknown(of(first), || {
                made = true;
                of(plain)
            });
            let case = format!("{first:?}, {plain:?}");
            assert_eq!(synced.err().map(|error| error.kind()), end, "{case}");
            assert_eq!(made, is_made, "{case}");
        }
    }

    #[test]
    fn a_file_and_its_name_are_synced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        sync(&File::create(&path).expect("a file")).expect("it is synced");
        sync_folder(&path).expect("it is synced");
    }
}
