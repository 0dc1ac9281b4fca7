//! Numbers on the command line: what is none, or negative, is told in a sentence.

use std::str::FromStr;

use tintype::settings::{self, Setting};

/// Reads a seed.
///
/// # Errors
///
/// Says what seeds are where the text is none.
pub fn seed(text: &str) -> Result<u64, String> {
    let sentence = "seeds are whole numbers from 0 to 18446744073709551615; leave it out for 0";
    settings::seed::parse(text).map_err(|_| sentence.into())
}

/// A reader of whole numbers of a setting, whose range is checked later.
pub fn whole(
    setting: Setting,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        text.parse::<usize>().map_err(|_| match setting.range() {
            Some(range) => format!("it is a whole number {range}"),
            None => "it is a whole number, 0 or more".into(),
        })
    }
}

/// A reader of whole numbers that begin at `least`.
pub fn at_least<T: FromStr + PartialOrd + From<u8> + Copy + Send + Sync + 'static>(
    least: u8,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let number = text.parse::<T>().ok().filter(|number| *number >= T::from(least));
        number.ok_or_else(|| format!("it is a whole number, {least} or more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told() {
        assert_eq!(seed("7"), Ok(7));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        for text in ["-1", "18446744073709551616", "x"] {
            let error = seed(text).unwrap_err();
            assert!(error.starts_with("seeds are whole numbers from 0 to 1844"), "{error}");
        }
        let steps = whole(Setting::Steps);
        assert_eq!(steps("0"), Ok(0), "its range is checked with the network's");
        assert_eq!(steps("-1"), Err("it is a whole number between 1 and 10000".into()));
        let batch = at_least::<usize>(1);
        assert_eq!(batch("4"), Ok(4));
        assert_eq!(batch("-1"), Err("it is a whole number, 1 or more".into()));
        assert!(batch("1.5").is_err());
    }
}
