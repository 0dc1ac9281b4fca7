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
const READ: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "pam",
];
/// Image formats that are not.
const UNREAD: [&str; 36] = [
    "heic", "heif", "avif", "jxl", "jp2", "j2k", "j2c", "jpf", "jpx", "jxr", "wdp", "psd", "xcf",
    "svg", "tga", "exr", "hdr", "pfm", "dds", "ico", "icns", "pcx", "qoi", "eps", "fits", "dcm",
    "raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "raf", "rw2", "apng",
];
/// Names that systems give to their own files and folders, in lower case. Those that begin with a dot are
/// hidden anyway: `.DS_Store`, AppleDouble's `._NAME`, `.ipynb_checkpoints`.
const SYSTEM: [&str; 8] = [
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "lost+found",
];

/// Whether a file or folder of this name is not one of the person's own.
fn is_hidden(part: &str) -> bool {
    part.starts_with('.') || SYSTEM.contains(&part.to_ascii_lowercase().as_str())
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
    let file = name.rsplit('/').next().unwrap_or(name);
    let Some((_, extension)) = file.rsplit_once('.') else { return Kind::Other };
    let extension = extension.to_ascii_lowercase();
    match extension.as_str() {
        e if READ.contains(&e) => Kind::Image,
        e if UNREAD.contains(&e) => Kind::UnreadImage,
        _ => Kind::Other,
    }
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
        assert_eq!(kind("a/IMG_1.HEIC"), Kind::UnreadImage);
        for name in ["labels.txt", "png", "a.png/readme"] {
            assert_eq!(kind(name), Kind::Other, "{name}");
        }
    }
}
