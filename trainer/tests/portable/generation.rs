//! The model inside the program: what it says of itself, and a picture of it.

use image::RgbImage;

use crate::common::names;
use crate::place::{Place, read};

/// Side of the blocks whose means are compared, in pixels.
const SIDE: u32 = 16;
/// Levels that a mean may be off: processors add in other orders.
const TOLERANCE: u8 = 2;
/// The picture of the test below: a row of blocks in each line, and of each block the means of red, green and blue.
const BLOCKS: [[u8; 24]; 8] = [[0; 24]; 8];

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
