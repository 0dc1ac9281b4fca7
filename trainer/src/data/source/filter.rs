//! Which files of a data set are images, by their names.

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum Kind {
    /// An image of a format that is read.
    Image,
    /// An image of a format that is not read.
    UnreadImage,
    /// What an operating system or a tool leaves beside a person's files.
    Hidden,
    /// Anything else.
    Other,
}

/// Formats that are read.
const READ: &[&str] = &[
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "pam",
];
/// Image formats that are not.
const UNREAD: &[&str] = &[
    "heic", "heif", "heics", "hif", "avif", "jxl", "jp2", "j2k", "j2c", "jpf", "jpx", "jxr", "wdp",
    "psd", "xcf", "svg", "svgz", "tga", "exr", "hdr", "pfm", "dds", "ico", "icns", "cur", "pcx",
    "qoi", "eps", "fits", "dcm", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "raf", "rw2",
    "pef", "srw", "nrw", "apng", "mpo", "dib", "jif", "jfi", "sgi", "rgb", "ras", "xbm", "xpm",
    "dpx", "flif", "bpg", "emf", "wmf", "ai", "kra", "ora",
];
/// What follows the extension of a copy, or of what is not there in full.
const COPY: &[&str] =
    &["bak", "backup", "old", "orig", "tmp", "temp", "part", "partial", "crdownload", "download"];
/// Archives other than `.tar`.
const PACKED: &[&str] =
    &["zip", "gz", "tgz", "bz2", "tbz", "tbz2", "xz", "txz", "zst", "tzst", "7z", "rar"];
/// Names that systems give to their own files and folders, in lower case. Those that begin with a dot are
/// hidden anyway: `.DS_Store`, AppleDouble's `._NAME`, `.ipynb_checkpoints`.
const SYSTEM: &[&str] = &[
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "lost+found",
    "__pycache__",
];

/// Whether a file or folder of this name is not one of the person's own.
fn is_hidden(part: &str) -> bool {
    part.starts_with('.') || SYSTEM.iter().any(|name| name.eq_ignore_ascii_case(part))
}

/// Whether a name has a part that is hidden.
pub(in crate::data) fn in_hidden(name: &str) -> bool {
    name.split('/').any(is_hidden)
}

/// What a file of this name is.
pub(in crate::data) fn kind(name: &str) -> Kind {
    if in_hidden(name) {
        return Kind::Hidden;
    }
    match extension(name).as_deref() {
        Some(e) if READ.contains(&e) => Kind::Image,
        Some(e) if UNREAD.contains(&e) => Kind::UnreadImage,
        _ if is_copy(name) => Kind::UnreadImage,
        _ => Kind::Other,
    }
}

/// The extension of a file in lower case.
fn extension(name: &str) -> Option<String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())
}

/// Whether a name has no extension.
pub(super) fn has_no_extension(name: &str) -> bool {
    extension(name).is_none()
}

/// Whether a file is a copy or a part of an image: `x.png.bak`, `x.jpg~`.
fn is_copy(name: &str) -> bool {
    let original = name.strip_suffix('~').or_else(|| {
        let (original, end) = name.rsplit_once('.')?;
        COPY.contains(&end.to_ascii_lowercase().as_str()).then_some(original)
    });
    original.and_then(extension).is_some_and(|e| READ.contains(&e.as_str()))
}

/// Why an image is not read.
pub(super) fn why_unread(name: &str) -> String {
    if is_copy(name) {
        return "a copy or a part of an image, by its name".into();
    }
    let format = extension(name).unwrap_or_default().to_ascii_uppercase();
    format!("{format} is not an image format that is read")
}

/// Whether a file is a tar archive, by its name.
pub(super) fn is_tar(name: &str) -> bool {
    extension(name).as_deref() == Some("tar")
}

/// Whether a file is an archive, by its name.
pub(super) fn is_archive(name: &str) -> bool {
    let end = extension(name);
    end.is_some_and(|e| e == "tar" || PACKED.contains(&e.as_str()))
}

/// Whether a file begins as a PNG, JPEG, GIF, WebP or BMP does.
pub(super) fn is_magic(bytes: &[u8]) -> bool {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let is_webp = starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice());
    // The header of a BMP has zeros at 6 to 9.
    let is_bmp = starts(b"BM") && bytes.get(6..10) == Some([0_u8; 4].as_slice());
    starts(b"\x89PNG\r\n\x1a\n") || starts(b"\xff\xd8\xff") || starts(b"GIF8") || is_webp || is_bmp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_leave_behind_is_no_image() {
        for name in [
            "__MACOSX/pets/cat/._0.png",
            "pets/cat/._0.png",
            "pets/.ipynb_checkpoints/0-checkpoint.png",
            "pets/cat/.DS_Store",
            "Thumbs.db",
            "pets/cat/THUMBS.DB",
            "pets/@eaDir/0.jpg",
            "$RECYCLE.BIN/x.png",
        ] {
            assert_eq!(kind(name), Kind::Hidden, "{name}");
        }
        for name in ["a.b/c.PNG", "0.ppm", "x.jfif", "dir.name/0.Tiff"] {
            assert_eq!(kind(name), Kind::Image, "{name}");
        }
        for name in ["a/IMG_1.HEIC", "x.png.bak", "x.jpg~", "x.mpo"] {
            assert_eq!(kind(name), Kind::UnreadImage, "{name}");
        }
        assert_eq!(kind("a/__pycache__/x.png"), Kind::Hidden);
        for name in ["labels.txt", "png", "a.png/readme", "notes.bak", "x~"] {
            assert_eq!(kind(name), Kind::Other, "{name}");
        }
    }
}
