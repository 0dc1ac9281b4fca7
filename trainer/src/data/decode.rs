//! Images of any format as 8-bit RGB.

use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use tintype::image::Rgb;

use super::jpeg;

/// The first bytes of what macOS keeps beside a file on other systems' disks.
const APPLE_DOUBLE: [u8; 4] = [0, 5, 0x16, 7];
/// An encoded image may not take more than this while it is decoded.
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
/// A sentence where the format is unknown, the file is damaged, or the image is empty or takes over 1
/// GiB while it is decoded.
pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    decode_within(bytes, MAX_DECODED_BYTES)
}

/// [`decode`] of images that take at most so many bytes; for fuzzing.
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
    let say = |e: ImageError| e.to_string();
    let mut reader = ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_bytes);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(say)?;
    limits.reserve(decoder.total_bytes()).map_err(say)?;
    if decoder.color_type() != ColorType::Rgb8 {
        // For a while there are both.
        let (width, height) = decoder.dimensions();
        limits.reserve_buffer(width, height, ColorType::Rgb8).map_err(say)?;
    }
    decoder.set_limits(limits).map_err(say)?;
    let image = DynamicImage::from_decoder(decoder).map_err(say)?.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err("the image is empty".into());
    }
    Ok(Rgb { width, height, pixels: image.into_raw() })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GrayImage, ImageFormat, RgbImage};

    use super::*;

    #[test]
    fn the_copy_in_rgb_counts() {
        let encoded = |image: DynamicImage, format| {
            let mut file = Cursor::new(Vec::new());
            image.write_to(&mut file, format).expect("it encodes");
            file.into_inner()
        };
        let fits = |file: &[u8], most| decode_within(file, most).map(|image| image.pixels.len());
        // A million pixels: of grey 1 and 3 million bytes, of colour 3.
        let grey = encoded(DynamicImage::ImageLuma8(GrayImage::new(1000, 1000)), ImageFormat::Png);
        assert!(fits(&grey, 3_900_000).is_err());
        assert_eq!(fits(&grey, 4_200_000), Ok(3_000_000));
        let colour = encoded(DynamicImage::ImageRgb8(RgbImage::new(1000, 1000)), ImageFormat::Png);
        assert!(fits(&colour, 2_900_000).is_err());
        assert_eq!(fits(&colour, 3_900_000), Ok(3_000_000));
        // The screen of a GIF whose one frame has a pixel: 4 and 3 million bytes.
        let gif = b"GIF89a\xe8\x03\xe8\x03\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
        assert!(fits(gif, 6_900_000).is_err());
        assert_eq!(fits(gif, 7_200_000), Ok(3_000_000));
    }
}
