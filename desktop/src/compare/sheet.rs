//! All pictures of a comparison in one.

use eframe::egui;
use tintype::image::Rgb;

use super::row::{Row, Run};

/// White pixels between two pictures.
const GAP: usize = 4;

/// The pictures of each row side by side, the rows below each other; white where one has fewer. Rows without pictures
/// are left out.
pub fn sheet(rows: &[Row]) -> Rgb {
    let runs = rows.iter().filter_map(|row| row.run.as_ref());
    let runs: Vec<&Run> = runs.filter(|run| !run.pictures.is_empty()).collect();
    let columns = runs.iter().map(|run| run.pictures.len()).max().unwrap_or(0);
    let mut cells = Vec::with_capacity(runs.len() * columns);
    for run in runs {
        cells.extend(run.pictures.iter().map(|picture| rgb(&picture.image)));
        cells.extend((run.pictures.len()..columns).map(|_| Rgb::white(0, 0)));
    }
    Rgb::grid(&cells, columns, GAP)
}

fn rgb(image: &egui::ColorImage) -> Rgb {
    let [width, height] = image.size;
    let pixels = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Rgb { width, height, pixels }
}
