//! Names of picture files that differ and that every system takes.

use super::request::ImageSpec;
use crate::file_names::{REFUSED, is_device};
use crate::labels::short;
use crate::noise::Blend;

/// Bytes that a class's name is cut for; file systems take 255, of which ` (2).compare.png` and the ending of a
/// temporary file need some. Numbers are never cut; together they have 112 bytes at most.
const LONGEST: usize = 100;

/// `crane-134-7`: first synonym, number of the class, seed, and the number under the seed where it is not 0. Between
/// two seeds `crane-134-7-to-8-0.25`, with the other seed and the amount.
pub(super) fn file_stem(class_name: &str, spec: ImageSpec) -> String {
    let class = spec.class.map(|class| class as u64);
    let numbers = [class, Some(spec.seed), Some(spec.index).filter(|index| *index > 0)];
    let mut numbers: String = numbers.into_iter().flatten().map(|n| format!("-{n}")).collect();
    if let Some(Blend { seed, amount }) = spec.blend {
        // `Debug` has an exponent where the number is very small.
        numbers += &format!("-to-{seed}-{amount:?}");
    }
    let mut name = String::new();
    for letter in short(class_name).chars() {
        if is_allowed(letter) {
            name.push(letter);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    while !name.is_empty() && name.len() + numbers.len() > LONGEST {
        name.pop();
    }
    let name = match name.trim_matches(['-', '.']) {
        "" => "class",
        name => name,
    };
    let stem = format!("{name}{numbers}");
    // Windows takes these names for devices whatever follows their first dot.
    match stem.split_once('.') {
        Some((base, _)) if is_device(base) => stem.replace('.', "-"),
        _ => stem,
    }
}

/// Whether every system takes a letter in a file's name; spaces only make names harder to type.
fn is_allowed(letter: char) -> bool {
    let invisible = ['\u{200b}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    if invisible.iter().any(|range| range.contains(&letter)) {
        return false;
    }
    !(letter.is_control() || letter.is_whitespace() || REFUSED.contains(&letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem(name: &str) -> String {
        file_stem(name, ImageSpec::new(Some(3), 7, 0))
    }

    #[test]
    fn a_name_has_class_number_and_seed() {
        let crane = |class| file_stem("crane", ImageSpec::new(class, 7, 0));
        assert_eq!(crane(Some(134)), "crane-134-7");
        assert_eq!(crane(Some(517)), "crane-517-7");
        assert_eq!(stem("maillot, tank suit"), "maillot-3-7");
        assert_eq!(stem("St. Bernard"), "St.-Bernard-3-7");
        assert_eq!(file_stem("none", ImageSpec::new(None, 0, 0)), "none-0");
        let third = ImageSpec::new(Some(1), u64::MAX, 2);
        assert_eq!(file_stem("fruit", third), "fruit-1-18446744073709551615-2");
    }

    #[test]
    fn a_blend_tells_both_seeds_and_its_amount() {
        let stem = |spec: ImageSpec, seed, amount| {
            file_stem("crane", ImageSpec { blend: Some(Blend { seed, amount }), ..spec })
        };
        let (seventh, eighth) = (ImageSpec::new(Some(134), 7, 0), ImageSpec::new(Some(134), 8, 0));
        assert_eq!(stem(seventh, 8, 0.25), "crane-134-7-to-8-0.25");
        assert_eq!(stem(eighth, 7, 0.75), "crane-134-8-to-7-0.75");
        assert_eq!(stem(seventh, 8, 2.0 / 3.0), "crane-134-7-to-8-0.6666666666666666");
        assert_eq!(stem(ImageSpec::new(None, 7, 2), 8, 1.0), "crane-7-2-to-8-1.0");
        // A damaged file may hold any numbers.
        let largest = ImageSpec::new(Some(usize::MAX), u64::MAX, u64::MAX);
        let longest = stem(largest, u64::MAX, -f64::MIN_POSITIVE);
        assert!(longest.starts_with("class-1844"), "{longest}");
        assert!(
            longest.ends_with("-to-18446744073709551615--2.2250738585072014e-308"),
            "{longest}"
        );
        assert_eq!(longest.len(), 117);
    }

    #[test]
    fn what_systems_refuse_is_replaced() {
        for (name, expected) in [
            ("land vehicle", "land-vehicle-3-7"),
            ("a/b\\c", "a-b-c-3-7"),
            ("what?: *\"<>|", "what-3-7"),
            ("tab\tand\nnewline\u{7f}", "tab-and-newline-3-7"),
            ("../../etc/passwd", "etc-passwd-3-7"),
            ("dots...", "dots-3-7"),
            (" . ", "class-3-7"),
            ("", "class-3-7"),
            ("CON", "CON-3-7"),
            ("con.txt", "con-txt-3-7"),
            ("Lpt1.a.b", "Lpt1-a-b-3-7"),
            ("COM¹.x", "COM¹-x-3-7"),
            ("COM10.x", "COM10.x-3-7"),
            ("果物", "果物-3-7"),
        ] {
            assert_eq!(stem(name), expected, "{name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_letters() {
        for name in ["x".repeat(1000), "果".repeat(300), format!("{}. {}", "y".repeat(95), "z")] {
            let stem = stem(&name);
            assert!(stem.len() <= LONGEST && stem.len() > LONGEST - 8, "{stem}");
            assert!(stem.ends_with("-3-7"), "{stem}");
        }
        assert!(stem(&"y".repeat(96)).starts_with(&"y".repeat(96)));
    }
}
