//! JPEG as Pillow decodes it, bit for bit: the same library, with its default transform and
//! upsampling. Other decoders differ by up to four grey levels, which latents and FID notice. Stray
//! bytes between segments are skipped, too, as libjpeg does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};
use tintype::image::Rgb;

/// Whether a file begins like a JPEG.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0xD8, 0xFF])
}

/// Decodes to 8-bit RGB; fails where the file is damaged, truncated or larger than `max_bytes`.
///
/// # Errors
///
/// A sentence where the file is damaged, truncated or larger than `max_bytes`.
pub fn decode(bytes: &[u8], max_bytes: u64) -> Result<Rgb, String> {
    if !is_whole(bytes) {
        return Err("the file is truncated".into());
    }
    // libjpeg reports errors by unwinding, without a panic's message.
    let decoded = catch_unwind(AssertUnwindSafe(|| unwinding(bytes, max_bytes)));
    decoded.unwrap_or_else(|error| {
        let message = error.downcast_ref::<String>().map_or("damaged", String::as_str);
        Err(message.trim_start_matches("libjpeg fatal error: ").to_string())
    })
}

/// Whether the image is complete: there is a scan, and behind it the end. libjpeg would fill missing
/// parts with grey.
///
/// As libjpeg does, whatever lies between two segments is skipped up to the next marker: stray bytes,
/// a scan's coded data, 0xFF before 0, and markers without a length.
fn is_whole(bytes: &[u8]) -> bool {
    const TEMPORARY: u8 = 0x01;
    const RESTART_0: u8 = 0xD0;
    const START_OF_IMAGE: u8 = 0xD8;
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut at = 2; // behind the start of the image
    let mut has_scan = false;
    loop {
        let Some(rest) = bytes.get(at..) else { return false };
        let Some(skipped) = rest.iter().position(|&byte| byte == 0xFF) else { return false };
        // Several 0xFF are one marker's.
        let Some(fill) = rest[skipped..].iter().position(|&byte| byte != 0xFF) else {
            return false;
        };
        at += skipped + fill;
        match bytes[at] {
            0x00 | TEMPORARY | RESTART_0..=START_OF_IMAGE => at += 1,
            END_OF_IMAGE => return has_scan,
            marker => {
                has_scan |= marker == START_OF_SCAN;
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
        }
    }
}

fn unwinding(bytes: &[u8], max_bytes: u64) -> Result<Rgb, String> {
    let say = |e: std::io::Error| e.to_string();
    let image = Decompress::new_mem(bytes).map_err(say)?;
    let (width, height) = image.size();
    if (width * height) as u64 * 3 > max_bytes {
        return Err(format!("{width} × {height} pixels are too many"));
    }
    let inks = matches!(image.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let pixels = if inks {
        let mut image = image.to_colorspace(ColorSpace::JCS_CMYK).map_err(say)?;
        let inks: Vec<[u8; 4]> = image.read_scanlines().map_err(say)?;
        image.finish().map_err(say)?;
        inks.into_iter().flat_map(rgb_of_inks).collect()
    } else {
        let mut image = image.rgb().map_err(say)?;
        let pixels: Vec<u8> = image.read_scanlines().map_err(say)?;
        image.finish().map_err(say)?;
        pixels
    };
    Ok(Rgb { width, height, pixels })
}

/// Cyan, magenta, yellow and black, stored inverted as Adobe does, in Pillow's integer arithmetic.
fn rgb_of_inks(inks: [u8; 4]) -> [u8; 3] {
    let [c, m, y, k] = inks.map(|ink| 255 - u32::from(ink));
    let white = 255 - k;
    [c, m, y].map(|ink| {
        let product = ink * white + 128;
        (white - ((product + (product >> 8)) >> 8)) as u8
    })
}
