//! A sheet of pictures in rows, with lines of text beside each row and one above each column: several models, or
//! several settings of one, at the same class and seed.

use super::Rgb;
use super::font::{self, ADVANCE, LINE};

/// Dots between neighbours, and around the sheet.
const GAP: usize = 8;

/// The side of a cell, in pixels, for each pixel of a letter's dot.
const CELL_OF_DOT: usize = 128;

/// The largest side of a letter's dot, in pixels.
const LARGEST_DOT: usize = 4;

/// Letters of a line beside a row; a longer one is cut.
const LONGEST: usize = 48;

/// Pixels of the largest sheet that is worth its memory: 384 megabytes, and as many for its pictures.
pub const MOST_PIXELS: usize = 128_000_000;

/// A row of a sheet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Lines of text on its left.
    pub caption: Vec<String>,
    /// Its pictures, one a column.
    pub pictures: Vec<Rgb>,
}

/// Where things are on a sheet, in pixels.
struct Layout {
    /// Width and height that a picture gets.
    cell: [usize; 2],
    /// The side of a letter's dot.
    dot: usize,
    /// Left edge of the first picture, top edge of the first row.
    origin: [usize; 2],
    /// From one column, or row, to the next.
    pitch: [usize; 2],
}

impl Layout {
    fn of(heads: &[String], rows: &[Row]) -> Self {
        let pictures = || rows.iter().flat_map(|row| &row.pictures);
        let width = pictures().map(|picture| picture.width).max().unwrap_or(0);
        let height = pictures().map(|picture| picture.height).max().unwrap_or(0);
        let lines = rows.iter().map(|row| row.caption.len()).max().unwrap_or(0);
        let letters = rows.iter().flat_map(|row| &row.caption).map(|line| line.chars().count());
        Self::new([width, height], lines, letters.max().unwrap_or(0), !heads.is_empty())
    }

    /// * `cell`: width and height of the largest picture
    /// * `lines`, `letters`: of the largest caption
    fn new(cell: [usize; 2], lines: usize, letters: usize, has_heads: bool) -> Self {
        let [width, height] = cell;
        let dot = (width.min(height) / CELL_OF_DOT).clamp(1, LARGEST_DOT);
        let letters = letters.min(LONGEST);
        let gap = GAP * dot;
        let left = if letters == 0 { gap } else { letters * ADVANCE * dot + 2 * gap };
        let top = if has_heads { LINE * dot + gap } else { gap };
        Self {
            cell,
            dot,
            origin: [left, top],
            pitch: [width + gap, height.max(lines * LINE * dot) + gap],
        }
    }

    /// Width and height of a sheet of so many columns and rows.
    fn size(&self, counts: [usize; 2]) -> [usize; 2] {
        let gap = GAP * self.dot;
        [0, 1].map(|k| {
            let cells = counts[k].saturating_mul(self.pitch[k]).max(gap);
            self.origin[k].saturating_add(cells)
        })
    }
}

/// Pixels of a sheet with heads and with captions of the longest lines, so that one beyond [`MOST_PIXELS`] can be
/// refused before its pictures are made.
///
/// * `counts`: columns and rows
/// * `cell`: width and height of the largest picture
/// * `lines`: lines of a caption
pub fn pixels(counts: [usize; 2], cell: [usize; 2], lines: usize) -> usize {
    let [width, height] = Layout::new(cell, lines, LONGEST, true).size(counts);
    width.saturating_mul(height)
}

/// Draws rows of pictures on white, with their captions in black.
///
/// Every picture gets a cell of the largest width and the largest height of all. A smaller one is enlarged by the
/// largest whole factor that fits, pixel by pixel, and centred in what is left. Letters grow with the cells. They are
/// those of ASCII, others become question marks; captions are cut after 48 letters, heads where their column ends.
///
/// * `heads`: a line above each column; none at all for a sheet without them
///
/// # Panics
///
/// If a picture has fewer pixels than its width and height say.
pub fn draw(heads: &[String], rows: &[Row]) -> Rgb {
    let columns = rows.iter().map(|row| row.pictures.len()).max().unwrap_or(0);
    let layout = Layout::of(heads, rows);
    let [width, height] = layout.size([columns, rows.len()]);
    let Layout { cell, dot, origin, pitch } = layout;
    let gap = GAP * dot;
    let mut sheet = Rgb::white(width, height);
    for (column, head) in heads.iter().take(columns).enumerate() {
        let at = [origin[0] + column * pitch[0], gap / 2];
        font::draw(&mut sheet, &cut(head, cell[0] / (ADVANCE * dot)), at, dot);
    }
    for (number, row) in rows.iter().enumerate() {
        let top = origin[1] + number * pitch[1];
        for (line, text) in row.caption.iter().enumerate() {
            font::draw(&mut sheet, &cut(text, LONGEST), [gap, top + line * LINE * dot], dot);
        }
        for (column, picture) in row.pictures.iter().enumerate() {
            let factor = (cell[0] / picture.width.max(1)).min(cell[1] / picture.height.max(1));
            let picture = enlarged(picture, factor.max(1));
            let x = origin[0] + column * pitch[0] + (cell[0] - picture.width) / 2;
            let y = top + (cell[1] - picture.height) / 2;
            sheet.paste(&picture, x, y);
        }
    }
    sheet
}

/// A picture with each pixel as a square of `factor` pixels.
fn enlarged(picture: &Rgb, factor: usize) -> Rgb {
    let [width, height] = [picture.width * factor, picture.height * factor];
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let from = ((y / factor) * picture.width + x / factor) * 3;
            pixels.extend_from_slice(&picture.pixels[from..from + 3]);
        }
    }
    Rgb { width, height, pixels }
}

/// A text, or its beginning and two dots where it has more than so many letters.
fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.into();
    }
    let kept = text.chars().take(letters.saturating_sub(2));
    kept.chain("..".chars()).take(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of one grey.
    fn grey(width: usize, height: usize, value: u8) -> Rgb {
        Rgb { width, height, pixels: vec![value; width * height * 3] }
    }

    fn row(caption: &[&str], pictures: &[Rgb]) -> Row {
        let caption = caption.iter().map(|line| line.to_string()).collect();
        Row { caption, pictures: pictures.to_vec() }
    }

    fn at(sheet: &Rgb, x: usize, y: usize) -> u8 {
        sheet.pixels[(y * sheet.width + x) * 3]
    }

    #[test]
    fn pictures_lie_in_cells_of_the_largest() {
        let rows = [
            row(&[], &[grey(60, 40, 10), grey(60, 40, 20)]),
            row(&[], &[grey(20, 20, 30), grey(61, 30, 40)]),
        ];
        let sheet = draw(&[], &rows);
        assert_eq!([sheet.width, sheet.height], [8 + 2 * (61 + 8), 8 + 2 * (40 + 8)]);
        assert_eq!([at(&sheet, 7, 8), at(&sheet, 8, 8), at(&sheet, 8 + 59, 8)], [255, 10, 10]);
        assert_eq!([at(&sheet, 8 + 60, 8), at(&sheet, 77, 8)], [255, 20]);
        // Twice as large, and centred: 10 columns of 61 are free on each side.
        let [x, y] = [8 + 10, 8 + 48];
        assert_eq!(
            [at(&sheet, x - 1, y), at(&sheet, x, y), at(&sheet, x + 39, y + 39)],
            [255, 30, 30]
        );
        assert_eq!(at(&sheet, x + 40, y), 255);
        assert_eq!([at(&sheet, 77, 56 + 4), at(&sheet, 77, 56 + 5)], [255, 40]);
    }

    #[test]
    fn pixels_become_squares() {
        let mut picture = grey(2, 1, 1);
        picture.pixels[3..].fill(2);
        let large = enlarged(&picture, 2);
        assert_eq!([large.width, large.height], [4, 2]);
        let values: Vec<u8> = large.pixels.chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(values, [1, 1, 2, 2, 1, 1, 2, 2]);
        assert_eq!(enlarged(&picture, 1), picture);
    }

    #[test]
    fn captions_are_beside_and_heads_above() {
        let black = |sheet: &Rgb, x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
            y.flat_map(|y| x.clone().map(move |x| (x, y)))
                .filter(|(x, y)| at(sheet, *x, *y) == 0)
                .count()
        };
        let pictures = [grey(30, 12, 200), grey(30, 12, 200)];
        let rows = [row(&["I", "II"], &pictures), row(&["I"], &pictures[..1])];
        let bare = draw(&[], &rows);
        // Two letters and a gap on both sides; two lines are higher than the pictures.
        assert_eq!([bare.width, bare.height], [12 + 16 + 2 * 38, 8 + 2 * (20 + 8)]);
        // A capital I has eleven dots.
        assert_eq!(black(&bare, 8..20, 8..16), 11);
        assert_eq!(black(&bare, 8..20, 18..26), 22);
        assert_eq!(black(&bare, 8..20, 36..44), 11);
        assert_eq!(black(&bare, 20..bare.width, 0..bare.height), 0);
        let headed = draw(&["I".into(), "IIIIII".into()], &rows);
        assert_eq!(headed.height, bare.height + LINE);
        assert_eq!(black(&headed, 28..66, 0..18), 11);
        // Five letters fit: three and two dots of four pixels.
        assert_eq!(black(&headed, 66..headed.width, 0..18), 3 * 11 + 2 * 4);
        assert!(black(&headed, 66..headed.width, 18..headed.height) == 0, "only pictures");
    }

    #[test]
    fn letters_grow_with_the_pictures() {
        let dot = |side: usize| Layout::of(&[], &[row(&["x"], &[grey(side, side, 0)])]).dot;
        assert_eq!([16, 128, 256, 512, 1024].map(dot), [1, 1, 2, 4, 4]);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("golden retriever", 16), "golden retriever");
        assert_eq!(cut("golden retriever", 8), "golden..");
        assert_eq!([cut("abc", 2), cut("abc", 1), cut("abc", 0)], ["..", ".", ""]);
        let long = draw(&[], &[row(&[&"x".repeat(1000)], &[grey(1, 1, 0)])]);
        assert_eq!(long.width, LONGEST * ADVANCE + 2 * GAP + 1 + GAP);
    }

    #[test]
    fn pixels_are_known_before_the_pictures() {
        let caption = "x".repeat(LONGEST);
        for side in [16, 128, 300] {
            let pictures = [0, 1, 2].map(|value| grey(side, side, value));
            let rows = [row(&[&caption, "y"], &pictures), row(&[], &pictures)];
            let sheet = draw(&["head".into()], &rows);
            assert_eq!(pixels([3, 2], [side, side], 2), sheet.width * sheet.height, "{side}");
        }
        assert_eq!(pixels([usize::MAX, 1], [1, 1], 1), usize::MAX);
    }

    #[test]
    fn nothing_is_a_sheet_too() {
        let empty = draw(&["head".into()], &[]);
        assert!(empty.to_png(&[]).is_ok());
        assert!(draw(&[], &[Row::default()]).to_png(&[]).is_ok());
    }
}
