//! What fits and what does not, tensor by tensor.

use std::fmt;

/// A tensor of another shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// The authors' name.
    pub name: String,
    /// What the network needs.
    pub expected: Vec<usize>,
    /// What the file has.
    pub found: Vec<usize>,
}

/// The comparison of a network with a file. Names are the authors'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors found with the right shape.
    pub matched: usize,
    /// The network needs them, the file lacks them.
    pub missing: Vec<String>,
    /// The network needs them, and they cannot be read: name and reason.
    pub unreadable: Vec<(String, String)>,
    /// The file has them, the network has no use for them.
    pub unexpected: Vec<String>,
    /// Both have them, in different shapes.
    pub mismatched: Vec<ShapeMismatch>,
}

impl Report {
    /// Whether the network can be filled from the file.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty() && self.unreadable.is_empty()
    }
}

/// Names shown of each kind before "and N more".
const SHOWN: usize = 8;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fits() && self.unexpected.is_empty() {
            return write!(f, "all {} tensors fit", self.matched);
        }
        let mut parts = vec![format!("{} tensors fit", self.matched)];
        parts.extend(list("missing", &self.missing, String::clone));
        parts.extend(list("that cannot be read", &self.unreadable, |(name, reason)| {
            format!("{name} ({reason})")
        }));
        parts.extend(list("of another shape", &self.mismatched, |m| {
            format!("{} is {:?} instead of {:?}", m.name, m.found, m.expected)
        }));
        parts.extend(list("unexpected", &self.unexpected, String::clone));
        f.write_str(&parts.join("; "))
    }
}

fn list<T>(what: &str, items: &[T], show: impl Fn(&T) -> String) -> Option<String> {
    let shown: Vec<_> = items.iter().take(SHOWN).map(show).collect();
    let more = match items.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!items.is_empty()).then(|| format!("{} {what}: {}{more}", items.len(), shown.join(", ")))
}
