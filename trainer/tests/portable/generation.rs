//! The model inside the program: what it says of itself, and a picture of it.

use image::RgbImage;

use crate::common::names;
use crate::place::{Place, read};

/// Side of the blocks whose means are compared, in pixels.
const SIDE: u32 = 16;
/// Levels that a mean may be off: processors add in other orders.
const TOLERANCE: u8 = 2;
/// The picture of the test below: a row of blocks in each line, and of each block the means of red, green and blue.
const BLOCKS: [[u8; 24]; 8] = [
    [
        254, 254, 253, 224, 217, 214, 251, 250, 250, 215, 214, 205, 180, 187, 180, 174, 180, 164,
        237, 242, 240, 253, 253, 252,
    ],
    [
        253, 253, 252, 231, 228, 226, 218, 223, 195, 168, 169, 80, 166, 186, 86, 235, 237, 220,
        251, 251, 251, 253, 253, 253,
    ],
    [
        248, 248, 242, 204, 219, 156, 177, 191, 116, 190, 206, 92, 183, 194, 71, 198, 204, 117,
        207, 209, 110, 245, 245, 230,
    ],
    [
        223, 231, 180, 194, 212, 112, 164, 189, 80, 194, 215, 111, 179, 198, 74, 192, 200, 91, 185,
        190, 56, 223, 227, 157,
    ],
    [
        227, 234, 182, 184, 201, 92, 169, 194, 72, 197, 211, 95, 166, 179, 62, 204, 203, 75, 172,
        174, 54, 206, 214, 129,
    ],
    [
        227, 237, 184, 184, 194, 75, 189, 202, 82, 200, 211, 93, 191, 199, 79, 185, 199, 85, 190,
        194, 72, 217, 223, 160,
    ],
    [
        252, 253, 249, 222, 231, 184, 175, 187, 71, 176, 185, 62, 167, 182, 60, 170, 170, 51, 192,
        197, 90, 251, 251, 245,
    ],
    [
        253, 254, 253, 247, 250, 246, 214, 218, 185, 206, 218, 145, 206, 217, 122, 209, 218, 156,
        234, 235, 219, 253, 253, 253,
    ],
];

#[test]
fn info_names_the_model_and_the_devices() {
    let said = Place::new().succeeds(&["info"]);
    let has = |line: &str, word: &str| {
        assert!(said.lines().any(|l| l.starts_with(line) && l.contains(word)), "{line}: {said}");
    };
    has("network ", "Hi-DiT");
    has("fit ", "all 120 tensors fit");
    has("device ", " cpu ");
    has("chosen ", "because");
}

#[test]
fn the_same_picture_is_made_everywhere_and_again_from_itself() {
    let place = Place::new();
    let folder = place.argument("Bilder ä");
    place.succeeds(&["generate", "fruit", "--steps", "4", "--device", "cpu", "--out", &folder]);
    assert_eq!(names(&place.path("Bilder ä")), ["fruit-17-0.png"]);
    let path = place.path("Bilder ä").join("fruit-17-0.png");
    let png = read(&path);

    let from = path.to_str().expect("it is Unicode");
    let again = ["generate", "--from", from, "--device", "cpu", "--out", "noch einmal ß.png"];
    place.succeeds(&again);
    assert!(read(&place.path("noch einmal ß.png")) == png, "the same settings give other bytes");

    let picture = image::load_from_memory(&png).expect("a PNG").to_rgb8();
    assert_eq!(picture.dimensions(), (128, 128));
    let first = picture.get_pixel(0, 0);
    assert!(picture.pixels().any(|pixel| pixel != first), "it has one colour");
    let found = blocks(&picture);
    let pairs = found.iter().flatten().zip(BLOCKS.iter().flatten());
    let apart = pairs.map(|(found, expected)| found.abs_diff(*expected)).max();
    let listed: String = found.iter().map(|row| format!("    {row:?},\n")).collect();
    assert!(apart <= Some(TOLERANCE), "{apart:?} levels apart; its blocks are\n[\n{listed}]");
}

/// Means of blocks.
fn blocks(picture: &RgbImage) -> [[u8; 24]; 8] {
    let mut sums = [[0; 24]; 8];
    for (x, y, pixel) in picture.enumerate_pixels() {
        for (channel, value) in pixel.0.into_iter().enumerate() {
            sums[(y / SIDE) as usize][(x / SIDE) as usize * 3 + channel] += u32::from(value);
        }
    }
    let pixels = SIDE * SIDE;
    sums.map(|row| row.map(|sum| ((sum + pixels / 2) / pixels) as u8))
}
