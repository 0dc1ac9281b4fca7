//! Seeds as people write them.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// What is no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {given} is not a whole number from 0 to {}", u64::MAX)]
pub struct InvalidSeed {
    /// What was given.
    pub given: String,
}

/// Reads a seed.
///
/// # Errors
///
/// [`InvalidSeed`] where the text is no whole number from 0 to 18446744073709551615.
pub fn parse(text: &str) -> Result<u64, InvalidSeed> {
    text.trim().parse().map_err(|_| InvalidSeed { given: text.into() })
}

/// Reads a seed of a file or a request, for `#[serde(deserialize_with)]`.
///
/// # Errors
///
/// The text of [`InvalidSeed`] where it is no whole number from 0 to 18446744073709551615.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Seed)
}

struct Seed;

fn invalid<E: Error>(given: impl fmt::Display) -> E {
    E::custom(InvalidSeed { given: given.to_string() })
}

impl Visitor<'_> for Seed {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a seed, a whole number from 0 to {}", u64::MAX)
    }

    fn visit_u64<E: Error>(self, seed: u64) -> Result<u64, E> {
        Ok(seed)
    }

    fn visit_i64<E: Error>(self, seed: i64) -> Result<u64, E> {
        u64::try_from(seed).map_err(|_| invalid(seed))
    }

    fn visit_f64<E: Error>(self, seed: f64) -> Result<u64, E> {
        Err(invalid(seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_whole_numbers_of_64_bits() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        for text in ["-1", "18446744073709551616", "1.5", "many", ""] {
            let error = parse(text).unwrap_err().to_string();
            let rest = format!("seed {text} is not a whole number from 0 to 18446744073709551615");
            assert_eq!(error, rest);
        }
    }

    #[test]
    fn requests_say_it_in_the_same_words() {
        #[derive(Debug, serde::Deserialize)]
        struct Wish {
            #[serde(deserialize_with = "deserialize")]
            seed: u64,
        }
        let read = |text: &str| serde_json::from_str::<Wish>(text).map(|wish| wish.seed);
        assert_eq!(read(r#"{"seed": 18446744073709551615}"#).expect("a seed"), u64::MAX);
        for text in [r#"{"seed": -1}"#, r#"{"seed": 1e30}"#, r#"{"seed": 0.5}"#] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("whole number from 0 to 18446744073709551615"), "{error}");
        }
    }
}
