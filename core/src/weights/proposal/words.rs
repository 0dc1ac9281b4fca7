//! The numbers and the words of a name.

use std::ops::Range;

/// Least likeness of two words that are not the same and mean the same: "embed" and "embedder".
const SAME_WORD: f64 = 0.85;

/// Which numbers of a name count something.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers {
    /// All: `layers.3.conv1` is `layers.*.conv*`.
    All,
    /// Those between dots: `layers.3.conv1` is `layers.*.conv1`.
    Parts,
    /// The first between dots: `layers.3.mlp.0` is `layers.*.mlp.0`.
    First,
    /// None.
    None,
}

/// Where the numbers of a name are.
pub(super) fn runs(name: &str) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in name.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// A name with `*` in place of these of its numbers.
pub(super) fn starred(name: &str, runs: &[Range<usize>]) -> String {
    let (mut text, mut at) = (String::new(), 0);
    for run in runs {
        text.push_str(&name[at..run.start]);
        text.push('*');
        at = run.end;
    }
    text.push_str(&name[at..]);
    text
}

/// A name with `*` in place of the numbers that count, and these.
pub(super) fn numbered(name: &str, numbers: Numbers) -> (String, Vec<u64>) {
    let bytes = name.as_bytes();
    let is_part = |run: &Range<usize>| {
        (run.start == 0 || bytes[run.start - 1] == b'.')
            && (run.end == bytes.len() || bytes[run.end] == b'.')
    };
    let mut runs = runs(name);
    match numbers {
        Numbers::All => {}
        Numbers::Parts => runs.retain(is_part),
        Numbers::First => {
            runs.retain(is_part);
            runs.truncate(1);
        }
        Numbers::None => runs.clear(),
    }
    let values = runs.iter().map(|run| name[run.clone()].parse().unwrap_or(u64::MAX)).collect();
    (starred(name, &runs), values)
}

/// The words of a name in lower case: runs of letters, and numbers.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = None; // whether the last character was a digit; none for what is in no word
    for c in name.chars() {
        let kind = c.is_alphanumeric().then(|| c.is_ascii_digit());
        if kind.is_some() && kind != before {
            words.push(String::new());
        }
        if let (Some(_), Some(word)) = (kind, words.last_mut()) {
            word.extend(c.to_lowercase());
        }
        before = kind;
    }
    words
}

/// How many words two names share, over all their words: 0 to 1.
pub(super) fn likeness(a: &[String], b: &[String]) -> f64 {
    let shared = |words: &[String], others: &[String]| -> f64 {
        let best = |word: &String| others.iter().map(|o| alike(word, o)).fold(0.0, f64::max);
        words.iter().map(best).sum()
    };
    match a.len() + b.len() {
        0 => 0.0,
        all => (shared(a, b) + shared(b, a)) / all as f64,
    }
}

fn alike(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    if is_number(a) || is_number(b) {
        return 0.0;
    }
    Some(strsim::jaro_winkler(a, b)).filter(|likeness| *likeness >= SAME_WORD).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_count_are_found() {
        let name = "layers.10.mlp.0.conv1.w";
        let of = |numbers| numbered(name, numbers);
        assert_eq!(of(Numbers::All), ("layers.*.mlp.*.conv*.w".into(), vec![10, 0, 1]));
        assert_eq!(of(Numbers::Parts), ("layers.*.mlp.*.conv1.w".into(), vec![10, 0]));
        assert_eq!(of(Numbers::First), ("layers.*.mlp.0.conv1.w".into(), vec![10]));
        assert_eq!(of(Numbers::None), (name.into(), vec![]));
        assert_eq!(numbered("0.1", Numbers::Parts), ("*.*".into(), vec![0, 1]));
        let long = "9".repeat(40);
        assert_eq!(numbered(&long, Numbers::All), ("*".into(), vec![u64::MAX]));
    }

    #[test]
    fn names_are_alike_by_their_words() {
        assert_eq!(words("t_embedder.MLP.0"), ["t", "embedder", "mlp", "0"]);
        assert_eq!(words("w12..é"), ["w", "12", "é"]);
        let like = |a: &str, b: &str| likeness(&words(a), &words(b));
        assert_eq!(like("blocks.0.w", "blocks.0.w"), 1.0);
        assert!(like("net.mlp.0", "mlp.0") > like("net.mlp.0", "mlp.2") + 0.1);
        assert!(like("pixel.embed", "pixel_embedder") > 0.9);
        assert_eq!(like("", ""), 0.0);
        assert_eq!(like("1", "10"), 0.0);
    }
}
