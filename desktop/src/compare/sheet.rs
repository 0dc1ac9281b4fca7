//! All pictures of a comparison in one, with what stands beside them.

use std::path::Path;
use std::sync::Arc;

use eframe::egui;
use tintype::files::write_whole;
use tintype::image::Rgb;
use tintype::image::sheet::{self, MOST_PIXELS};
use tintype::settings::Quality;

use super::row::Row;

/// A row of the sheet, not drawn yet.
pub struct Line {
    caption: Vec<String>,
    pictures: Vec<Arc<egui::ColorImage>>,
}

/// What stands in the sheet of these rows. Those without pictures are left out.
pub fn lines(rows: &[Row], quality: Quality) -> Vec<Line> {
    rows.iter().filter_map(|row| line(row, quality)).collect()
}

fn line(row: &Row, quality: Quality) -> Option<Line> {
    let run = row.run.as_ref().filter(|run| !run.pictures.is_empty())?;
    let captions = row.captions(quality);
    // Lines of a sheet are short: a part each.
    let parts = captions.iter().flat_map(|line| line.split(" · ")).map(String::from);
    Some(Line {
        caption: std::iter::once(row.name.clone()).chain(parts).collect(),
        pictures: run.pictures.iter().map(|picture| picture.image.clone()).collect(),
    })
}

/// Draws the pictures of each row side by side behind its captions, the rows below each other.
///
/// # Errors
///
/// A sentence where they are too many.
pub fn draw(lines: &[Line]) -> Result<Rgb, String> {
    let most = |of: &dyn Fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let side = |k: usize| {
        most(&|line| line.pictures.iter().map(|picture| picture.size[k]).max().unwrap_or(0))
    };
    let columns = most(&|line| line.pictures.len());
    let cell = [side(0), side(1)];
    let pixels = sheet::pixels([columns, lines.len()], cell, most(&|line| line.caption.len()));
    if pixels > MOST_PIXELS {
        let [pixels, most] = [pixels, MOST_PIXELS].map(|pixels| pixels / 1_000_000);
        return Err(format!(
            "All pictures in one would have {pixels} million pixels, and {most} million are the most. Each \
             is saved for itself already."
        ));
    }
    let rows = lines.iter().map(|line| sheet::Row {
        caption: line.caption.clone(),
        pictures: line.pictures.iter().map(|picture| rgb(picture)).collect(),
    });
    Ok(sheet::draw(&[], &rows.collect::<Vec<_>>()))
}

/// [`draw`]s them into a file.
///
/// # Errors
///
/// A sentence where they are too many, or the file cannot be written.
pub fn write(lines: &[Line], path: &Path) -> Result<(), String> {
    let png = draw(lines)?.to_png(&[]).map_err(|e| e.to_string())?;
    write_whole(path, &png).map_err(|e| format!("{e}: {}", e.source))
}

fn rgb(image: &egui::ColorImage) -> Rgb {
    let [width, height] = image.size;
    let pixels = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Rgb { width, height, pixels }
}
