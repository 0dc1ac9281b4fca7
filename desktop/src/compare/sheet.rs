//! All pictures of a comparison in one, with what stands beside them.

use eframe::egui;
use tintype::image::{Rgb, sheet};
use tintype::settings::Quality;

use super::row::Row;

/// The pictures of each row side by side behind its captions, the rows below each other. Rows without pictures are left
/// out.
pub fn sheet(rows: &[Row], quality: Quality) -> Rgb {
    let rows: Vec<sheet::Row> = rows.iter().filter_map(|row| drawn(row, quality)).collect();
    sheet::draw(&[], &rows)
}

fn drawn(row: &Row, quality: Quality) -> Option<sheet::Row> {
    let run = row.run.as_ref().filter(|run| !run.pictures.is_empty())?;
    let captions = row.captions(quality);
    // Lines of a sheet are short: a part each.
    let parts = captions.iter().flat_map(|line| line.split(" · ")).map(String::from);
    Some(sheet::Row {
        caption: std::iter::once(row.name.clone()).chain(parts).collect(),
        pictures: run.pictures.iter().map(|picture| rgb(&picture.image)).collect(),
    })
}

fn rgb(image: &egui::ColorImage) -> Rgb {
    let [width, height] = image.size;
    let pixels = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Rgb { width, height, pixels }
}
