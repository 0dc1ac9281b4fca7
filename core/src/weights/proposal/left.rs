//! What no partner was found for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::matching::{Pair, Slot};
use super::words::{Numbers, likeness, numbered, words};

/// Candidates that are listed.
const LISTED: usize = 8;
/// Most candidates that are sorted by their names.
const SORTED: usize = 32;

/// A tensor of the network that could be several of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ambiguous {
    /// The network's name; with `*` for numbers where it is that of several tensors.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The file's names of what it could be, those most alike first.
    pub candidates: Vec<String>,
    /// How many there are besides.
    pub more: usize,
}

/// Lines of a table that are comments: one of them is right.
impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, shape, candidates, more } = self;
        writeln!(f, "# {tensor} {shape:?} could be any of these; take the # from the right one")?;
        candidates.iter().try_for_each(|old| writeln!(f, "# {old} -> {tensor}"))?;
        match more {
            0 => Ok(()),
            more => writeln!(f, "# or {more} more of this shape"),
        }
    }
}

/// Tensors of the network for which the file has none left of their shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The network's name; with `*` for numbers where it is that of several tensors.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How many there are.
    pub tensors: usize,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is not there", self.tensor, self.shape)?;
        match self.tensors {
            1 => Ok(()),
            tensors => write!(f, ", {tensors} tensors"),
        }
    }
}

/// Tensors that differ by numbers alone: the name with `*` for them, and the shape.
type Kind<'a> = (String, &'a [usize]);
/// Numbers and places of the tensors of a kind.
type Members = Vec<(Vec<u64>, usize)>;

/// What the pairs leave: tensors of the network with several candidates, and with none.
pub(super) fn left(
    missing: &[Slot<'_>],
    spare: &[Slot<'_>],
    pairs: &[Pair],
) -> (Vec<Ambiguous>, Vec<Absent>) {
    let ours = kinds(missing, &pairs.iter().map(|pair| pair.new).collect());
    let theirs = kinds(spare, &pairs.iter().map(|pair| pair.old).collect());
    let mut by_shape: BTreeMap<&[usize], Vec<(&str, &Members)>> = BTreeMap::new();
    for ((name, shape), members) in &theirs {
        by_shape.entry(*shape).or_default().push((name.as_str(), members));
    }
    let (mut ambiguous, mut absent) = (Vec::new(), Vec::new());
    for ((name, shape), members) in &ours {
        let first = members[0].1;
        let Some(others) = by_shape.get(*shape) else {
            let tensors = members.len();
            let tensor = if tensors > 1 { name.as_str() } else { missing[first].name };
            absent.push((first, Absent { tensor: tensor.into(), shape: shape.to_vec(), tensors }));
            continue;
        };
        // One rule can be for all tensors of kinds with the same numbers.
        let is_same = |kind: &Members| kind.iter().map(|m| &m.0).eq(members.iter().map(|m| &m.0));
        let same = others.iter().filter(|(_, kind)| is_same(kind));
        let same: Vec<&str> = same.map(|(name, _)| *name).collect();
        if members.len() > 1 && !same.is_empty() {
            ambiguous.push((first, one_of(name, shape, &same)));
            continue;
        }
        let places = others.iter().flat_map(|(_, kind)| kind.iter());
        let names: Vec<&str> = places.map(|(_, place)| spare[*place].name).collect();
        for (_, place) in members {
            ambiguous.push((*place, one_of(missing[*place].name, shape, &names)));
        }
    }
    ambiguous.sort_by_key(|(place, _)| *place);
    absent.sort_by_key(|(place, _)| *place);
    let ambiguous = ambiguous.into_iter().map(|(_, ambiguous)| ambiguous);
    (ambiguous.collect(), absent.into_iter().map(|(_, absent)| absent).collect())
}

/// The tensors without a partner, by kind; each has at least one.
fn kinds<'a>(tensors: &[Slot<'a>], paired: &BTreeSet<usize>) -> BTreeMap<Kind<'a>, Members> {
    let mut kinds: BTreeMap<Kind<'a>, Members> = BTreeMap::new();
    for (place, tensor) in tensors.iter().enumerate() {
        if !paired.contains(&place) {
            let (name, numbers) = numbered(tensor.name, Numbers::Parts);
            kinds.entry((name, tensor.shape)).or_default().push((numbers, place));
        }
    }
    kinds.values_mut().for_each(|members| members.sort());
    kinds
}

fn one_of(tensor: &str, shape: &[usize], names: &[&str]) -> Ambiguous {
    let mut candidates = names.to_vec();
    if names.len() <= SORTED {
        let wanted = words(tensor);
        // Stable: equal ones stay in the file's order.
        let unlike = |name: &&str| Reverse((likeness(&words(name), &wanted) * 1000.0) as u64);
        candidates.sort_by_cached_key(unlike);
    }
    candidates.truncate(LISTED);
    Ambiguous {
        tensor: tensor.into(),
        shape: shape.to_vec(),
        more: names.len() - candidates.len(),
        candidates: candidates.into_iter().map(String::from).collect(),
    }
}
