//! JPEG as Pillow decodes it, bit for bit: the same library, with its default transform and
//! upsampling. Other decoders differ by up to four grey levels, which latents and FID notice. Stray
//! bytes between segments are skipped, too, as libjpeg does.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, CompInfoExt, Decompress};
use tintype::image::Rgb;

/// Most scans of an image, as for libjpeg-turbo's own fuzzers. Encoders write about ten; each takes a few
/// bytes, and as much work as the image is large.
const MOST_SCANS: usize = 500;

/// Whether a file begins like a JPEG.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0xD8, 0xFF])
}

/// Decodes to 8-bit RGB; fails where the file is damaged or truncated, or takes more than `max_bytes`.
///
/// # Errors
///
/// A sentence where the file is damaged, truncated, has over 500 scans, or takes more than `max_bytes` while it is
/// decoded.
pub fn decode(bytes: &[u8], max_bytes: u64) -> Result<Rgb, String> {
    let Some(scans) = scans(bytes) else { return Err("the file is truncated".into()) };
    if scans.count > MOST_SCANS {
        return Err(format!("it has {} scans, and at most {MOST_SCANS} are read", scans.count));
    }
    // libjpeg reports errors by unwinding, without a panic's message.
    let decoded = catch_unwind(AssertUnwindSafe(|| unwinding(bytes, scans.several, max_bytes)));
    decoded.unwrap_or_else(|error| {
        let message = error.downcast_ref::<String>().map_or("damaged", String::as_str);
        Err(message.trim_start_matches("libjpeg fatal error: ").to_string())
    })
}

/// The scans of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scans {
    count: usize,
    /// Whether the image takes several, until whose end libjpeg keeps all coefficients.
    several: bool,
}

/// The scans of a complete image: there is one, and behind it the end. libjpeg would fill missing parts
/// with grey.
///
/// As libjpeg does, whatever lies between two segments is skipped up to the next marker: stray bytes,
/// a scan's coded data, 0xFF before 0, and markers without a length, reserved ones included.
fn scans(bytes: &[u8]) -> Option<Scans> {
    const LAST_RESERVED: u8 = 0xBF;
    const RESTART_0: u8 = 0xD0;
    const START_OF_IMAGE: u8 = 0xD8;
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut scans = Scans::default();
    let mut components = None; // of the image
    let mut at = 2; // behind the start of the image
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        // Several 0xFF are one marker's.
        at += bytes[at..].iter().position(|&byte| byte != 0xFF)?;
        let marker = bytes[at];
        match marker {
            0x00..=LAST_RESERVED | RESTART_0..=START_OF_IMAGE => {
                at += 1;
                continue;
            }
            END_OF_IMAGE => return (scans.count > 0).then_some(scans),
            // Frames; between them are tables and what is not in use.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let is_progressive = marker % 4 == 2;
                scans.several |= is_progressive;
                components = bytes.get(at + 8);
            }
            START_OF_SCAN => {
                scans.count += 1;
                scans.several |= scans.count > 1 || bytes.get(at + 3) != components;
            }
            _ => {}
        }
        let &[high, low] = bytes.get(at + 1..at + 3)? else { return None };
        at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
}

fn unwinding(bytes: &[u8], several_scans: bool, max_bytes: u64) -> Result<Rgb, String> {
    let say = |e: std::io::Error| e.to_string();
    let image = Decompress::new_mem(bytes).map_err(say)?;
    let (width, height) = image.size();
    let inks = matches!(image.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
    let factors: Vec<_> = image.components().iter().map(CompInfoExt::sampling).collect();
    // A pixel's bytes: in RGB, in inks before, and of its coefficients.
    let coefficients = if several_scans { coefficients(&factors) } else { 0 };
    let size = 3 + 4 * usize::from(inks) + coefficients;
    if (width * height) as u64 * size as u64 > max_bytes {
        return Err(format!("{width} × {height} pixels are too many"));
    }
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

/// Bytes of a pixel's coefficients, two for each; a component that is subsampled has fewer of them than pixels.
///
/// * `factors`: of each component, across and down
fn coefficients(factors: &[(u8, u8)]) -> usize {
    let product = |(across, down): (u8, u8)| usize::from(across) * usize::from(down);
    let all: usize = factors.iter().copied().map(product).sum();
    let across = factors.iter().map(|factors| factors.0).max().unwrap_or(1);
    let down = factors.iter().map(|factors| factors.1).max().unwrap_or(1);
    (2 * all).div_ceil(product((across, down)).max(1))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jpeg");
        std::fs::read(folder.join(name)).expect("an image")
    }

    #[test]
    fn what_is_kept_until_the_end_counts() {
        // All have 25 × 18 pixels of 3 bytes, and until those are made 4 of inks, or coefficients: 2 bytes of brightness,
        // and the same of both colours, which have half the width.
        for (name, size) in [("colour", 3), ("grey", 3), ("inks", 3 + 4), ("progressive", 3 + 4)] {
            let file = file(&format!("{name}.jpg"));
            let most = 25 * 18 * size;
            assert!(decode(&file, most).is_ok(), "{name}");
            let error = decode(&file, most - 1).expect_err(name);
            assert_eq!(error, "25 × 18 pixels are too many", "{name}");
        }
        // A scan of one component of three, and no other. Colours have half the width and half the height here.
        let mut file = file("colour.jpg");
        let scan = file.windows(2).position(|marker| marker == [0xFF, 0xDA]).expect("a scan");
        file.splice(scan + 2..scan + 14, [0, 8, 1, 1, 0, 0, 63, 0]);
        assert!(scans(&file).expect("it is complete").several);
        let is_too_large =
            |most| decode(&file, most).is_err_and(|error| error == "25 × 18 pixels are too many");
        let most = 25 * 18 * (3 + 3);
        assert!(!is_too_large(most) && is_too_large(most - 1));
    }

    #[test]
    fn coefficients_are_fewer_where_components_are_subsampled() {
        assert_eq!(coefficients(&[(1, 1)]), 2);
        assert_eq!(coefficients(&[(2, 2)]), 2, "one component is whole by itself");
        assert_eq!(coefficients(&[(1, 1); 3]), 6);
        assert_eq!(coefficients(&[(2, 1), (1, 1), (1, 1)]), 4);
        assert_eq!(coefficients(&[(2, 2), (1, 1), (1, 1)]), 3);
        assert_eq!(coefficients(&[(4, 2), (1, 1), (1, 1)]), 3, "two and a half");
    }

    #[test]
    fn endless_scans_are_not_read() {
        let file = file("progressive.jpg");
        let last = file.windows(2).rposition(|marker| marker == [0xFF, 0xDA]).expect("a scan");
        let end = file.len() - 2;
        // It has ten.
        let of = |scans: usize| {
            let repeated = file[last..end].repeat(scans - 10);
            [&file[..end], &repeated, &file[end..]].concat()
        };
        assert_eq!(scans(&of(500)).map(|scans| scans.count), Some(500));
        decode(&of(500), 1 << 20).expect("they are read");
        let error = decode(&of(501), 1 << 20).expect_err("there are too many");
        assert_eq!(error, "it has 501 scans, and at most 500 are read");
    }

    #[test]
    fn no_scan_hides_behind_a_reserved_marker() {
        // libjpeg passes over the marker where it looks for a restart, and reads what follows.
        let scan = [0xFF, 0xDA, 0, 2];
        let hidden = [b"\xFF\xD8".as_slice(), &scan, b"\xFF\x02\0\x09", &scan, b"\xFF\xD9"];
        assert_eq!(scans(&hidden.concat()), Some(Scans { count: 2, several: true }));
    }
}
