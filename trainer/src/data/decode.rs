//! Images of any format as 8-bit RGB.

use tintype::image::Rgb;

use super::jpeg;

/// The first bytes of what macOS keeps beside a file on other systems' disks.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];
/// An encoded image may not claim to decode to more than this.
pub(super) const MAX_DECODED_BYTES: u64 = 1 << 30;

/// Decodes an image to 8-bit RGB; transparency is dropped as Pillow's `convert("RGB")` does.
///
/// JPEGs have Pillow's pixels bit for bit ([`jpeg`]). 16-bit values v of other formats become
/// v·255/65535, rounded to the nearest. (Pillow cuts those of coloured PNGs to their high byte, at most
/// one level off, and clips grey ones at 255, which leaves hardly more than white.) Anymaps (PBM,
/// PGM, PPM; binary or text) of any maximum are scaled to 255 the same way.
///
/// # Errors
///
/// A sentence where the format is unknown, the file is damaged, or the image is empty or over 1
/// GiB.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    decode_within(bytes, MAX_DECODED_BYTES)
}

/// [`decode`] of images that decode to at most so many bytes; for fuzzing.
///
/// # Errors
///
/// As [`decode`].
#[doc(hidden)]
pub fn decode_within(bytes: &[u8], max_bytes: u64) -> Result<Rgb, String> {
    if bytes.starts_with(&APPLE_DOUBLE) {
        return Err("an AppleDouble file, not an image".into());
    }
    if jpeg::is_jpeg(bytes) {
        return jpeg::decode(bytes, max_bytes);
    }
    let mut reader = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(max_bytes);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| e.to_string())?.to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err("the image is empty".into());
    }
    Ok(Rgb { width, height, pixels: image.into_raw() })
}
