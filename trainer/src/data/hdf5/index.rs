//! Where the items of a store are in its file.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::Failure;
use hdf5_pure::{Dataset, Error, File, Group, Layout, make_f32_type};

/// A data set whose values lie in one piece.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Where they begin.
    pub at: u64,
    /// Their bytes.
    pub len: u64,
    /// Its shape, shared by neighbours of the same.
    pub shape: Arc<[usize]>,
    /// Whether they are float32, little-endian.
    pub is_f32: bool,
}

/// Places by name, sorted; `None` for data sets that are stored in another way.
type Members = Vec<(Box<str>, Option<Place>)>;

/// The places of all items below the top's groups. A group is listed when one of its items is first asked for:
/// the headers of a million items lie all over the file, and reading them first would delay the start.
///
/// hdf5-pure finds a member of an older group (a symbol table, as h5py writes by default) by listing all of them,
/// so asking it for every item would list a thousand names twice for each.
pub(super) struct Index {
    groups: HashMap<String, Listed>,
}

struct Listed {
    group: Group,
    members: OnceLock<Result<Members, Failure>>,
}

impl Index {
    /// The groups of a file.
    pub fn new(file: &File) -> Result<Self, Error> {
        let root = (String::new(), file.root());
        let groups = std::iter::once(root).chain(file.root().iter_groups()?);
        let listed = |(name, group)| (name, Listed { group, members: OnceLock::new() });
        Ok(Self { groups: groups.map(listed).collect() })
    }

    /// The place of an item; `None` if it is not stored in one piece, or not there.
    pub fn place(&self, item: &str) -> Result<Option<&Place>, Failure> {
        let (folder, name) = item.rsplit_once('/').unwrap_or(("", item));
        let Some(Listed { group, members }) = self.groups.get(folder) else { return Ok(None) };
        let members = members.get_or_init(|| list(group).map_err(Failure::from));
        let members = members.as_ref().map_err(Failure::clone)?;
        let found = members.binary_search_by(|(member, _)| (**member).cmp(name));
        Ok(found.ok().and_then(|at| members[at].1.as_ref()))
    }
}

fn list(group: &Group) -> Result<Members, Error> {
    let mut last: Arc<[usize]> = Arc::from(Vec::<usize>::new());
    let place =
        |(name, dataset): (String, Dataset)| (name.into_boxed_str(), place(&dataset, &mut last));
    let mut members: Members = group.iter_datasets()?.map(place).collect();
    members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(members)
}

fn place(dataset: &Dataset, last: &mut Arc<[usize]>) -> Option<Place> {
    let Layout::Contiguous { address: Some(at), size: len } = dataset.layout().ok()? else {
        return None;
    };
    let shape: Vec<usize> = dataset.shape().ok()?.into_iter().map(|d| d as usize).collect();
    let element = dataset.element_size().ok()?;
    if shape.iter().try_fold(element, |size, &d| size.checked_mul(d as u64)) != Some(len) {
        return None;
    }
    if **last != *shape {
        *last = Arc::from(shape);
    }
    let is_f32 = dataset.datatype().ok()? == make_f32_type();
    Some(Place { at, len, shape: last.clone(), is_f32 })
}
