//! Sizes that an engine of 32 bits can name.

#[cfg(target_family = "wasm")]
use wasm_bindgen::prelude::wasm_bindgen;

/// Bytes of the largest file: places in it are 32-bit numbers in a browser.
const MOST: f64 = u32::MAX as f64;
/// Bytes of the largest file that is read at once: no more lie in one piece of the memory.
const MOST_AT_ONCE: f64 = i32::MAX as f64;

/// Bytes of the largest file that this engine reads: a safetensors file tensor by tensor, a PyTorch file at once.
#[cfg_attr(target_family = "wasm", wasm_bindgen(js_name = largestFile))]
pub fn largest_file(at_once: bool) -> f64 {
    if at_once { MOST_AT_ONCE } else { MOST }
}

/// A file's size in bytes, which JavaScript counts in float64.
///
/// # Errors
///
/// A sentence where the file is larger than 4 GiB.
pub fn addressable(size: f64) -> Result<usize, String> {
    if size > MOST {
        let gigabytes = size / f64::from(1 << 30);
        return Err(format!(
            "it has {gigabytes:.1} GiB, and a page reads files of 4 GiB at most; use weights of \
             16 bits, or the desktop app"
        ));
    }
    Ok(size as usize)
}

#[cfg(test)]
mod tests {
    use super::addressable;

    #[test]
    fn a_file_of_four_gigabytes_is_refused_with_its_size() {
        assert_eq!(addressable(0.0), Ok(0));
        assert_eq!(addressable(4_294_967_295.0), Ok(4_294_967_295));
        let error = addressable(5.5 * 1_073_741_824.0).expect_err("too large");
        assert!(error.starts_with("it has 5.5 GiB"), "{error}");
        assert!(addressable(4_294_967_296.0).is_err());
    }
}
