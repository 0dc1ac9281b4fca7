//! Files that are no checkpoints and that people take for one.

/// What a file is by its first bytes, in words; `None` where it may be a checkpoint.
pub(super) fn other_kind(start: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        return Some("an HTML page; download the file itself");
    }
    if text.starts_with("version https://git-lfs") {
        return Some("a Git LFS pointer; fetch the file itself with git lfs pull");
    }
    // A safetensors file begins with a length, whose last bytes are 0.
    if text.starts_with(['{', '[']) && !start.contains(&0) {
        return Some("JSON");
    }
    let magic: [(&[u8], &str); 4] = [
        (b"\x1f\x8b\x08", "a gzip archive; unpack it"),
        (b"GGUF", "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x89PNG", "a PNG image"),
    ];
    magic.into_iter().find(|(bytes, _)| start.starts_with(bytes)).map(|(_, kind)| kind)
}
