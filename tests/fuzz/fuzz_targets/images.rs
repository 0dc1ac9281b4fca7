//! Encoded images: JPEG by libjpeg, PNG, GIF, BMP, TIFF, WebP and anymaps; and the crop that a decoded one
//! gets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz as _;
use tintype_trainer::data::crop::center_crop;
use tintype_trainer::data::decode::decode_within;

/// Most bytes of a decoded image, its copy in RGB counted. The program's 1 GiB would take seconds for each.
const MOST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(image) = decode_within(data, MOST) else { return };
    assert!(image.width > 0 && image.height > 0);
    assert_eq!(image.pixels.len(), image.width * image.height * 3);
    assert!(image.pixels.len() as u64 <= MOST, "{} × {}", image.width, image.height);
    assert_eq!(center_crop(&image, 8).pixels.len(), 8 * 8 * 3);
});
