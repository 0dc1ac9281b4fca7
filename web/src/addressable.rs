//! Sizes that an engine of 32 bits can name.

/// Bytes of the largest file: places in it are 32-bit numbers in a browser.
const MOST: f64 = u32::MAX as f64;

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
