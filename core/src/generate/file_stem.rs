//! Names of picture files that differ and that every system takes.

use super::request::ImageSpec;
use crate::labels::short;

/// Bytes of the longest name; file systems take 255, of which ` (2).compare.png` and the ending of a temporary
/// file need some.
const LONGEST: usize = 100;

/// `crane-134-7`: first synonym, number of the class, seed, and the number under the seed where it is not 0.
pub(super) fn file_stem(class_name: &str, spec: ImageSpec) -> String {
    let class = spec.class.map(|class| class as u64);
    let numbers = [class, Some(spec.seed), Some(spec.index).filter(|index| *index > 0)];
    let numbers: String = numbers.into_iter().flatten().map(|n| format!("-{n}")).collect();
    let mut name = String::new();
    for letter in short(class_name).chars() {
        if is_allowed(letter) {
            name.push(letter);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    while name.len() + numbers.len() > LONGEST {
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
    let refused = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];
    let invisible = ['\u{200b}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    if invisible.iter().any(|range| range.contains(&letter)) {
        return false;
    }
    !(letter.is_control() || letter.is_whitespace() || refused.contains(&letter))
}

/// Whether Windows calls a device so.
fn is_device(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let port = name.strip_prefix("COM").or_else(|| name.strip_prefix("LPT"));
    let mut number = port.unwrap_or_default().chars();
    let is_port = matches!(
        (number.next(), number.next()),
        (Some('0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'), None)
    );
    is_port || ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem(name: &str) -> String {
        file_stem(name, ImageSpec { class: Some(3), seed: 7, index: 0 })
    }

    #[test]
    fn a_name_has_class_number_and_seed() {
        let crane = |class| file_stem("crane", ImageSpec { class, seed: 7, index: 0 });
        assert_eq!(crane(Some(134)), "crane-134-7");
        assert_eq!(crane(Some(517)), "crane-517-7");
        assert_eq!(stem("maillot, tank suit"), "maillot-3-7");
        assert_eq!(stem("St. Bernard"), "St.-Bernard-3-7");
        assert_eq!(file_stem("none", ImageSpec { class: None, seed: 0, index: 0 }), "none-0");
        let third = ImageSpec { class: Some(1), seed: u64::MAX, index: 2 };
        assert_eq!(file_stem("fruit", third), "fruit-1-18446744073709551615-2");
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
