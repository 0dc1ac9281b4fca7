//! Tensors to 8-bit pictures and PNG files that carry their request.

mod font;
pub mod sheet;

use burn::tensor::{Tensor, TensorData};

/// ImageNet's channel means in 0…1.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's channel standard deviations in 0…1.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// How −1…1 becomes 0…255. The first two truncate and differ by half a grey level; the third one differs from the
/// second where a value lies in the middle of two levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// `clamp(255·(x + 1)/2)`: SiT, REPA-E, Hi-DiT, RAE and k-diffusion.
    Half,
    /// `clamp(127.5·x + 128)`, which rounds to the nearest: LightningDiT, VA-VAE, iMF and pMF.
    Up,
    /// `clamp(255·(x + 1)/2)` rounded to the nearest, and to the even one of two: JiT.
    Even,
}

/// A picture in 8-bit RGB, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `height · width · 3` values.
    pub pixels: Vec<u8>,
}

/// What can be wrong with a PNG.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// It cannot be decoded.
    #[error("not a readable PNG: {0}")]
    Decode(#[from] png::DecodingError),
    /// It cannot be encoded.
    #[error("the picture cannot be encoded: {0}")]
    Encode(#[from] png::EncodingError),
}

/// 8 bits of a value in 0…1, truncated; values beyond are clamped and NaN becomes 0.
pub fn truncated(value: f32) -> u8 {
    (255.0 * value).clamp(0.0, 255.0) as u8
}

/// Converts a batch in −1…1; one channel becomes grey, of more than three the first three count. NaN becomes
/// black: whoever shows images tells of it before.
///
/// # Shapes
///
/// * `data`: `[B, C, H, W]`
///
/// # Panics
///
/// If the data do not have four dimensions, or one of them is 0.
pub fn to_rgb(data: &TensorData, rounding: Rounding) -> Vec<Rgb> {
    let [_, c, h, w]: [usize; 4] = data.shape.dims();
    let values: Vec<f32> = data.iter::<f32>().collect();
    let byte = |x: f32| match rounding {
        Rounding::Half => truncated((x + 1.0) / 2.0),
        Rounding::Up => (127.5 * x + 128.0).clamp(0.0, 255.0) as u8,
        Rounding::Even => (255.0 * ((x + 1.0) / 2.0)).clamp(0.0, 255.0).round_ties_even() as u8,
    };
    let picture = |image: &[f32]| {
        let mut pixels = Vec::with_capacity(h * w * 3);
        for at in 0..h * w {
            pixels.extend((0..3).map(|channel| byte(image[channel.min(c - 1) * h * w + at])));
        }
        Rgb { width: w, height: h, pixels }
    };
    values.chunks_exact(c * h * w).map(picture).collect()
}

/// ImageNet's means and standard deviations for images in 0…1, each `[1, 3, 1, 1]`, in their dtype and on their device.
pub(crate) fn imagenet_statistics(images: &Tensor<4>) -> [Tensor<4>; 2] {
    [IMAGENET_MEAN, IMAGENET_STD].map(|row| {
        let data = TensorData::new(row.to_vec(), [1, 3, 1, 1]);
        Tensor::<4>::from_data(data, &images.device()).cast(images.dtype())
    })
}

impl Rgb {
    /// A white canvas.
    pub fn white(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height * 3] }
    }

    /// Copies a picture onto this one, its top left corner at (x, y); what sticks out is cut.
    ///
    /// # Panics
    ///
    /// If a picture has fewer pixels than its width and height say.
    fn paste(&mut self, picture: &Rgb, x: usize, y: usize) {
        let columns = picture.width.min(self.width.saturating_sub(x));
        for row in 0..picture.height.min(self.height.saturating_sub(y)) {
            let from = row * picture.width * 3;
            let to = ((y + row) * self.width + x) * 3;
            self.pixels[to..to + columns * 3]
                .copy_from_slice(&picture.pixels[from..from + columns * 3]);
        }
    }

    /// Pictures of one size in rows of `columns`, `gap` white pixels between them.
    ///
    /// # Panics
    ///
    /// If a picture has fewer pixels than its width and height say.
    pub fn grid(pictures: &[Rgb], columns: usize, gap: usize) -> Rgb {
        let columns = columns.clamp(1, pictures.len().max(1));
        let rows = pictures.len().div_ceil(columns);
        let width = pictures.iter().map(|p| p.width).max().unwrap_or(0);
        let height = pictures.iter().map(|p| p.height).max().unwrap_or(0);
        let side = |n: usize, size: usize| (n * (size + gap)).saturating_sub(gap);
        let mut grid = Rgb::white(side(columns, width), side(rows, height));
        for (i, picture) in pictures.iter().enumerate() {
            grid.paste(picture, i % columns * (width + gap), i / columns * (height + gap));
        }
        grid
    }

    /// A PNG file with UTF-8 text chunks of the given keys.
    ///
    /// # Errors
    ///
    /// [`PngError::Encode`] where a key is no PNG keyword, a side is 0, or there are not as many
    /// pixels as width and height say.
    pub fn to_png(&self, text: &[(&str, &str)]) -> Result<Vec<u8>, PngError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (key, value) in text {
            encoder.add_itxt_chunk(key.to_string(), value.to_string())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// The text stored under a key in a PNG, if there is any: in an iTXt chunk as [`Rgb::to_png`] writes it, or in a
/// tEXt or zTXt chunk, which other programs make of it.
///
/// # Errors
///
/// [`PngError::Decode`] where the bytes are no PNG, are damaged, or need more than 64 MiB, and where a text
/// needs more than 2 MiB.
pub fn png_text(bytes: &[u8], key: &str) -> Result<Option<String>, PngError> {
    let limits = png::Limits { bytes: 64 << 20 };
    let mut reader =
        png::Decoder::new_with_limits(std::io::Cursor::new(bytes), limits).read_info()?;
    reader.finish()?;
    let info = reader.info();
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == key) {
        let mut chunk = chunk.clone();
        chunk.decompress_text()?;
        return Ok(Some(chunk.get_text()?));
    }
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == key) {
        return Ok(Some(from_latin1(&chunk.text)));
    }
    if let Some(chunk) = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == key) {
        let mut chunk = chunk.clone();
        chunk.decompress_text()?;
        return Ok(Some(from_latin1(&chunk.get_text()?)));
    }
    Ok(None)
}

/// The text of a Latin-1 chunk, into which many programs write UTF-8 all the same.
fn from_latin1(text: &str) -> String {
    let bytes: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(letter).ok()).collect();
    let utf8 = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    utf8.unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_roundings_truncate_and_one_goes_to_the_nearest() {
        let data = TensorData::new(vec![-1.0f32, -0.001, 0.0, 0.999, 1.5, -2.0], [1, 1, 2, 3]);
        let grey = |rounding| -> Vec<u8> {
            to_rgb(&data, rounding)[0].pixels.chunks(3).map(|p| p[0]).collect()
        };
        assert_eq!(grey(Rounding::Half), [0, 127, 127, 254, 255, 0]);
        assert_eq!(grey(Rounding::Up), [0, 127, 128, 255, 255, 0]);
        assert_eq!(grey(Rounding::Even), [0, 127, 128, 255, 255, 0]);
    }

    #[test]
    fn the_middle_of_two_levels_is_the_even_one() {
        let middle = [125.5f32, 126.5, 127.5].map(|level| 2.0 * (level / 255.0) - 1.0);
        let data = TensorData::new(middle.to_vec(), [1, 1, 1, 3]);
        let grey = |rounding| -> Vec<u8> {
            to_rgb(&data, rounding)[0].pixels.chunks(3).map(|p| p[0]).collect()
        };
        assert_eq!(grey(Rounding::Even), [126, 126, 128]);
        assert_eq!(grey(Rounding::Up), [126, 127, 128]);
    }

    #[test]
    fn a_png_carries_its_text() {
        let mut picture = Rgb::white(3, 2);
        picture.pixels[0] = 7;
        let png = picture.to_png(&[("tintype", "{\"class\":\"fruit – 果物\"}")]).unwrap();
        let text = png_text(&png, "tintype").unwrap();
        assert_eq!(text.as_deref(), Some("{\"class\":\"fruit – 果物\"}"));
        assert_eq!(png_text(&png, "other").unwrap(), None);
        assert!(png_text(&png[..40], "tintype").is_err());
    }

    #[test]
    fn every_kind_of_text_chunk_is_read() {
        use png::text_metadata::{EncodableTextChunk, ITXtChunk, TEXtChunk, ZTXtChunk};
        fn read(chunk: &impl EncodableTextChunk) -> Option<String> {
            let mut bytes = Vec::new();
            let mut writer = png::Encoder::new(&mut bytes, 1, 1).write_header().unwrap();
            writer.write_image_data(&[0]).unwrap();
            writer.write_text_chunk(chunk).unwrap(); // behind the pixels, as some programs put it
            writer.finish().unwrap();
            png_text(&bytes, "tintype").unwrap()
        }
        let is = |read: Option<String>, text: &str| assert_eq!(read.as_deref(), Some(text));
        is(read(&TEXtChunk::new("tintype", "café")), "café");
        is(read(&ZTXtChunk::new("tintype", "café")), "café");
        is(read(&ITXtChunk::new("tintype", "果物")), "果物");
        let mut compressed = ITXtChunk::new("tintype", "果物");
        compressed.compressed = true;
        is(read(&compressed), "果物");
        let utf8: String = "果物".bytes().map(char::from).collect();
        is(read(&TEXtChunk::new("tintype", utf8.clone())), "果物");
        is(read(&ZTXtChunk::new("tintype", utf8)), "果物");
        assert_eq!(read(&TEXtChunk::new("parameters", "steps: 20")), None);
    }

    #[test]
    fn a_grid_keeps_every_picture() {
        let dot = |v| Rgb { width: 1, height: 1, pixels: vec![v; 3] };
        let grid = Rgb::grid(&[dot(1), dot(2), dot(3)], 2, 1);
        assert_eq!((grid.width, grid.height), (3, 3));
        let at = |x: usize, y: usize| grid.pixels[(y * 3 + x) * 3];
        assert_eq!([at(0, 0), at(2, 0), at(0, 2), at(2, 2)], [1, 2, 3, 255]);
    }
}
