//! Which tensor of a file is which of a network: by shapes, then by names, then by order.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::words::{Numbers, likeness, numbered, words};

/// Least likeness of names that a match may rest on.
const LIKE: f64 = 0.5;
/// How much less alike all others must be.
const CLEARLY: f64 = 0.1;
/// Most pairs of names that are compared with each other.
const MOST_COMPARED: usize = 4096;

/// What a match rests on, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// No others have these shapes.
    Shape,
    /// Of those of these shapes, its name is clearly the most alike.
    Name,
    /// As many have these shapes in the file as in the network, and stand there in this order.
    Order,
}

/// A tensor by name and shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
}

/// A tensor of the network and one of the file, by their places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) new: usize,
    pub(super) old: usize,
    pub(super) basis: Basis,
}

/// How tensors are taken together.
#[derive(Clone, Copy)]
struct Grouping {
    /// Those of a layer, whose last parts then agree: `weight`, `bias`.
    by_layer: bool,
    /// Those that differ by these numbers.
    numbers: Numbers,
}

impl Grouping {
    /// From the largest groups, which are the surest, to single tensors.
    fn all() -> impl Iterator<Item = Self> {
        let numbers = [Numbers::All, Numbers::Parts, Numbers::First, Numbers::None];
        let of = move |by_layer| numbers.map(|numbers| Self { by_layer, numbers });
        [true, false].into_iter().flat_map(of)
    }
}

/// The shapes of a group, each with the place of its layer and the last part of its name.
type Signature<'a> = Vec<(usize, &'a str, &'a [usize])>;

/// The shapes of a group whatever the last parts of its names.
fn shapes<'a>(signature: &Signature<'a>) -> Vec<(usize, &'a [usize])> {
    let mut shapes: Vec<_> = signature.iter().map(|&(layer, _, shape)| (layer, shape)).collect();
    shapes.sort_unstable();
    shapes
}

/// Tensors that are taken together.
struct Group {
    /// Their name, with `*` for the numbers by which they differ.
    name: String,
    /// Their places, by these numbers.
    members: Vec<usize>,
}

/// Finds partners for the tensors of a network that a file lacks among those that it has besides. `ordered`: the
/// tensors of the file stand in its network's order.
pub(super) fn pairs<'a>(missing: &[Slot<'a>], spare: &[Slot<'a>], ordered: bool) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let (mut needs, mut has) = (vec![true; missing.len()], vec![true; spare.len()]);
    // What the matches of a shape rest on: one by name leaves less to choose for the next.
    let mut bases = BTreeMap::new();
    for grouping in Grouping::all() {
        let (ours, theirs) = (groups(missing, &needs, grouping), groups(spare, &has, grouping));
        let mut by_shape: BTreeMap<_, BTreeSet<&Signature<'_>>> = BTreeMap::new();
        for signature in ours.keys().chain(theirs.keys()) {
            by_shape.entry(shapes(signature)).or_default().insert(signature);
        }
        for (signature, ours) in &ours {
            let Some(theirs) = theirs.get(signature) else { continue };
            // Where others have these shapes, too, the last parts of the names tell them apart.
            let surest = match by_shape[&shapes(signature)].len() {
                1 => Basis::Shape,
                _ => Basis::Name,
            };
            for (a, b, basis) in decide(ours, theirs, ordered) {
                let basis = basis.max(surest);
                for (&new, &old) in ours[a].members.iter().zip(&theirs[b].members) {
                    (needs[new], has[old]) = (false, false);
                    let known = bases.entry(missing[new].shape).or_insert(Basis::Shape);
                    *known = basis.max(*known);
                    pairs.push(Pair { new, old, basis: *known });
                }
            }
        }
    }
    pairs.sort_by_key(|pair| pair.new);
    pairs
}

/// A tensor of a group: the numbers in its name, its name in the layer, and its place.
type Member<'a> = (Vec<u64>, &'a str, usize);

/// The groups of the tensors that are still to be matched, by their shapes.
fn groups<'a>(
    tensors: &[Slot<'a>],
    open: &[bool],
    grouping: Grouping,
) -> BTreeMap<Signature<'a>, Vec<Group>> {
    let mut named: BTreeMap<String, Vec<Member<'a>>> = BTreeMap::new();
    for (place, tensor) in tensors.iter().enumerate().filter(|(place, _)| open[*place]) {
        let (layer, part) = match tensor.name.rsplit_once('.') {
            Some(split) if grouping.by_layer => split,
            _ => (tensor.name, ""),
        };
        let (name, numbers) = numbered(layer, grouping.numbers);
        named.entry(name).or_default().push((numbers, part, place));
    }
    let mut groups: BTreeMap<Signature<'a>, Vec<Group>> = BTreeMap::new();
    for (name, mut members) in named {
        members.sort();
        let mut signature = Signature::new();
        let mut layer = 0;
        for (i, (numbers, part, place)) in members.iter().enumerate() {
            if i > 0 && members[i - 1].0 != *numbers {
                layer += 1;
            }
            signature.push((layer, *part, tensors[*place].shape));
        }
        let members = members.into_iter().map(|(_, _, place)| place).collect();
        groups.entry(signature).or_default().push(Group { name, members });
    }
    for alike in groups.values_mut() {
        alike.sort_by_key(|group| group.members.iter().copied().min());
    }
    groups
}

/// Which groups of the same shapes are each other's partners.
fn decide(ours: &[Group], theirs: &[Group], ordered: bool) -> Vec<(usize, usize, Basis)> {
    if let ([_], [_]) = (ours, theirs) {
        return vec![(0, 0, Basis::Shape)];
    }
    let mut found = by_name(ours, theirs);
    let is_left = |taken: &[usize], place: &usize| !taken.contains(place);
    let (a, b): (Vec<usize>, Vec<usize>) = found.iter().copied().unzip();
    let a: Vec<usize> = (0..ours.len()).filter(|place| is_left(&a, place)).collect();
    let b: Vec<usize> = (0..theirs.len()).filter(|place| is_left(&b, place)).collect();
    if let ([a], [b]) = (a.as_slice(), b.as_slice()) {
        found.push((*a, *b));
    }
    let by_order = ordered && a.len() == b.len() && a.len() > 1;
    let in_order = a.into_iter().zip(b).filter(|_| by_order).map(|(a, b)| (a, b, Basis::Order));
    let named = found.into_iter().map(|(a, b)| (a, b, Basis::Name));
    named.chain(in_order).collect()
}

/// Groups whose names are clearly each other's nearest.
fn by_name(ours: &[Group], theirs: &[Group]) -> Vec<(usize, usize)> {
    if ours.len().saturating_mul(theirs.len()) > MOST_COMPARED {
        return Vec::new();
    }
    let of = |groups: &[Group]| groups.iter().map(|g| words(&g.name)).collect::<Vec<_>>();
    let (a, b) = (of(ours), of(theirs));
    let row = |a: &Vec<String>| b.iter().map(|b| likeness(a, b)).collect::<Vec<f64>>();
    let mut alike: Vec<Vec<f64>> = a.iter().map(row).collect();
    let mut found = Vec::new();
    while let Some((i, j)) = nearest(&alike) {
        found.push((i, j));
        alike[i].fill(0.0);
        alike.iter_mut().for_each(|row| row[j] = 0.0);
    }
    found
}

/// A place in a table that is clearly the largest of its row and of its column.
fn nearest(alike: &[Vec<f64>]) -> Option<(usize, usize)> {
    let is_clear = |i: usize, j: usize| {
        let most = alike[i][j] - CLEARLY;
        let in_row = alike[i].iter().enumerate().all(|(other, v)| other == j || *v <= most);
        let in_column = alike.iter().enumerate().all(|(other, v)| other == i || v[j] <= most);
        alike[i][j] >= LIKE && in_row && in_column
    };
    let mut places = (0..alike.len()).flat_map(|i| (0..alike[i].len()).map(move |j| (i, j)));
    places.find(|&(i, j)| is_clear(i, j))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of partners, and what they rest on.
    fn found(
        missing: &[(&'static str, &'static [usize])],
        spare: &[(&'static str, &'static [usize])],
        ordered: bool,
    ) -> Vec<(&'static str, &'static str, Basis)> {
        let slots = |tensors: &[(&'static str, &'static [usize])]| -> Vec<Slot<'static>> {
            tensors.iter().map(|&(name, shape)| Slot { name, shape }).collect()
        };
        let (missing, spare) = (slots(missing), slots(spare));
        let pairs = pairs(&missing, &spare, ordered).into_iter();
        pairs.map(|p| (spare[p.old].name, missing[p.new].name, p.basis)).collect()
    }

    #[test]
    fn layers_are_matched_as_a_whole() {
        // The biases alone could be each other's.
        let missing: [(_, &[usize]); 4] =
            [("e.weight", &[8, 2]), ("e.bias", &[8]), ("p.0.weight", &[8, 3]), ("p.0.bias", &[8])];
        let spare: [(_, &[usize]); 4] =
            [("x.bias", &[8]), ("x.weight", &[8, 3]), ("y.bias", &[8]), ("y.weight", &[8, 2])];
        let wanted = [
            ("y.weight", "e.weight", Basis::Shape),
            ("y.bias", "e.bias", Basis::Shape),
            ("x.weight", "p.0.weight", Basis::Shape),
            ("x.bias", "p.0.bias", Basis::Shape),
        ];
        assert_eq!(found(&missing, &spare, false), wanted);
    }

    #[test]
    fn numbers_run_as_numbers() {
        let missing: [(_, &[usize]); 3] = [("p.0.w", &[4]), ("p.1.w", &[4]), ("p.2.w", &[4])];
        let spare: [(_, &[usize]); 3] =
            [("head.conv10.w", &[4]), ("head.conv2.w", &[4]), ("head.conv6.w", &[4])];
        let wanted = [
            ("head.conv2.w", "p.0.w", Basis::Shape),
            ("head.conv6.w", "p.1.w", Basis::Shape),
            ("head.conv10.w", "p.2.w", Basis::Shape),
        ];
        assert_eq!(found(&missing, &spare, false), wanted);
    }

    /// Either weight could be either of the file's but for what it is called.
    #[test]
    fn the_last_part_of_a_name_is_a_name() {
        let missing: [(_, &[usize]); 2] = [("a.weight", &[8]), ("b.scale", &[8])];
        let spare: [(_, &[usize]); 2] = [("x.weight", &[8]), ("y.gain", &[8])];
        let wanted = [("x.weight", "a.weight", Basis::Name), ("y.gain", "b.scale", Basis::Name)];
        assert_eq!(found(&missing, &spare, false), wanted);
    }

    #[test]
    fn names_and_then_the_order_break_ties() {
        let missing: [(_, &[usize]); 2] = [("x_embedder.bias", &[8]), ("head.bias", &[8])];
        let named: [(_, &[usize]); 2] = [("out.b", &[8]), ("embedder.bias", &[8])];
        let wanted = [
            ("embedder.bias", "x_embedder.bias", Basis::Name),
            ("out.b", "head.bias", Basis::Name),
        ];
        assert_eq!(found(&missing, &named, false), wanted);
        let foreign: [(_, &[usize]); 2] = [("q", &[8]), ("k", &[8])];
        let wanted = [("q", "x_embedder.bias", Basis::Order), ("k", "head.bias", Basis::Order)];
        assert_eq!(found(&missing, &foreign, true), wanted);
        assert!(found(&missing, &foreign, false).is_empty());
        assert!(found(&missing, &foreign[..1], true).is_empty());
    }
}
