//! Patterns of tensors' names.

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// These characters.
    Text(String),
    /// `*`: one or more characters, none of them a dot.
    Part,
    /// `**`: one or more characters.
    Parts,
}

/// A name in which `*` stands for one or more characters without a dot, and `**` for one or more of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (piece, length) = match rest.find('*') {
                Some(0) if rest.starts_with("**") => (Piece::Parts, 2),
                Some(0) => (Piece::Part, 1),
                at => {
                    let length = at.unwrap_or(rest.len());
                    (Piece::Text(rest[..length].into()), length)
                }
            };
            pieces.push(piece);
            rest = &rest[length..];
        }
        Self(pieces)
    }

    fn wildcards(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().filter(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// Whether both have the same wildcards in the same order.
    pub(super) fn has_wildcards_of(&self, other: &Self) -> bool {
        self.wildcards().eq(other.wildcards())
    }

    /// Whether it is one name alone.
    pub(super) fn is_name(&self) -> bool {
        self.wildcards().next().is_none()
    }

    /// Bytes that are no wildcards: of two patterns for one name, the one with more is the more particular.
    pub(super) fn said(&self) -> usize {
        let length = |piece: &Piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Part | Piece::Parts => 0,
        };
        self.0.iter().map(length).sum()
    }

    /// What the wildcards stand for in a name, each for as little as will do; `None` where it is no such name.
    pub(super) fn captures<'a>(&self, name: &'a str) -> Option<Vec<&'a str>> {
        // Most names lack one of the texts.
        let is_there = |piece: &Piece| match piece {
            Piece::Text(text) => name.contains(text.as_str()),
            Piece::Part | Piece::Parts => true,
        };
        if !self.0.iter().all(is_there) {
            return None;
        }
        let fits = self.fits(name);
        if !fits[0][0] {
            return None;
        }
        let (mut at, mut captures) = (0, Vec::new());
        for (piece, after) in self.0.iter().zip(&fits[1..]) {
            if let Piece::Text(text) = piece {
                at += text.len();
                continue;
            }
            let end = (at + 1..=name.len()).find(|&end| after[end])?;
            captures.push(&name[at..end]);
            at = end;
        }
        Some(captures)
    }

    /// Whether the pieces from the i-th on are all of a name from a byte on, by i and byte. Takes a time that no
    /// pattern makes exponential.
    fn fits(&self, name: &str) -> Vec<Vec<bool>> {
        let (bytes, n) = (name.as_bytes(), name.len());
        let mut fits = vec![vec![false; n + 1]; self.0.len() + 1];
        fits[self.0.len()][n] = true;
        for (i, piece) in self.0.iter().enumerate().rev() {
            // Whether a wildcard that holds this byte can end behind it or further on.
            let mut ends = false;
            for at in (0..=n).rev() {
                fits[i][at] = match piece {
                    Piece::Text(text) => {
                        bytes[at..].starts_with(text.as_bytes()) && fits[i + 1][at + text.len()]
                    }
                    Piece::Part | Piece::Parts => {
                        let holds = at < n && (*piece == Piece::Parts || bytes[at] != b'.');
                        ends = holds && (ends || fits[i + 1][at + 1]);
                        ends && name.is_char_boundary(at)
                    }
                };
            }
        }
        fits
    }

    /// The name with these captures in place of the wildcards.
    pub(super) fn fill(&self, captures: &[&str]) -> String {
        let (mut name, mut captures) = (String::new(), captures.iter());
        for piece in &self.0 {
            name.push_str(match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Part | Piece::Parts => captures.next().copied().unwrap_or_default(),
            });
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captures<'a>(pattern: &str, name: &'a str) -> Option<Vec<&'a str>> {
        Pattern::new(pattern).captures(name)
    }

    #[test]
    fn wildcards_stand_for_parts_of_names() {
        assert_eq!(captures("a.b", "a.b"), Some(vec![]));
        assert_eq!(captures("a.b", "a.b.c"), None);
        assert_eq!(captures("blocks.*.w1.*", "blocks.10.w1.bias"), Some(vec!["10", "bias"]));
        assert_eq!(captures("blocks.*.w1.*", "blocks.10.x.w1.bias"), None);
        assert_eq!(captures("conv*.bias", "conv12.bias"), Some(vec!["12"]));
        assert_eq!(captures("conv*.bias", "conv.bias"), None);
        assert_eq!(captures("model.**", "model.a.0.b"), Some(vec!["a.0.b"]));
        assert_eq!(captures("model.**", "model."), None);
        assert_eq!(captures("**.w", "a.w.w"), Some(vec!["a.w"]));
        assert_eq!(captures("**.*", "a.b.c"), Some(vec!["a.b", "c"]));
        assert_eq!(captures("*é*", "größe éa"), Some(vec!["größe ", "a"]));
        assert_eq!(captures("**", "é"), Some(vec!["é"]));
        assert_eq!(captures("***", "é"), None);
        assert_eq!(captures("", "a"), None);
    }

    #[test]
    fn captures_fill_the_other_side_in_order() {
        let new = Pattern::new("layers.*.fc1.*");
        assert_eq!(new.fill(&["3", "weight"]), "layers.3.fc1.weight");
        assert!(new.has_wildcards_of(&Pattern::new("blocks.*.w1.*")));
        assert!(!new.has_wildcards_of(&Pattern::new("blocks.*.**")));
        assert!(!new.is_name() && Pattern::new("a.b").is_name());
        assert_eq!(new.said(), "layers..fc1.".len());
    }

    #[test]
    fn a_name_that_nearly_fits_costs_no_more_than_others() {
        let name = format!("ab{}", "a".repeat(400));
        assert_eq!(captures(&format!("{}b", "**a".repeat(40)), &name), None);
    }
}
