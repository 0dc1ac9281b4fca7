//! A data set of little images, in a folder and in an archive.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tintype::image::Rgb;

/// Classes in the order of their labels.
pub const CLASSES: [&str; 3] = ["Birnen und Quitten", "Äpfel", "ほし 🌟"];

/// An image of 20×16 pixels: a plain colour with a bright bar, by class and number.
pub fn image(class: usize, number: usize) -> Rgb {
    let (width, height) = (20, 16);
    let pixel = |x: usize, y: usize| {
        let bar = if (x + y) / 4 % 3 == class % 3 { 200 } else { 40 };
        [bar, (class * 40 + number * 10) as u8, (x * 12) as u8]
    };
    let pixels = (0..width * height).flat_map(|at| pixel(at % width, at / width)).collect();
    Rgb { width, height, pixels }
}

/// The name of an image of a class.
pub fn name(number: usize) -> String {
    format!("Bild ü {number}.png")
}

/// Writes so many images of each class into folders of their names.
pub fn write_folders(root: &Path, classes: &[&str], each: usize) {
    for (label, class) in classes.iter().enumerate() {
        let folder = root.join(class);
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 0..each {
            let png = image(label, number).to_png(&[]).expect("it encodes");
            std::fs::write(folder.join(name(number)), png).expect("it is written");
        }
    }
}

/// Writes the same into an archive, whose names have `/` between folders on every system.
pub fn write_zip(path: &Path, classes: &[&str], each: usize) {
    let mut zip = zip::ZipWriter::new(File::create(path).expect("a file"));
    for (label, class) in classes.iter().enumerate() {
        for number in 0..each {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(format!("{class}/{}", name(number)), options).expect("it starts");
            let png = image(label, number).to_png(&[]).expect("it encodes");
            zip.write_all(&png).expect("it is written");
        }
    }
    zip.finish().expect("it ends");
}
