//! PyTorch's containers: the zip archive of 1.6 and later, and the legacy stream before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Cursor, Read};
use std::sync::Arc;

use super::pickle::{Id, Node, Pickle};
use super::source::{Bytes, Memory};
use super::store::{Dtype, TensorView, Weights};

/// Deepest dictionary in a dictionary that is searched for tensors.
const MAX_DEPTH: usize = 6;
/// Largest `data.pkl` that is read: names and shapes of a million tensors.
const MAX_PICKLE: u64 = 256 << 20;

/// Pickle of `torch.save`'s magic number in the legacy format.
const LEGACY: [u8; 14] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

pub(super) fn is_pytorch(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(&LEGACY)
}

/// Every dictionary of the checkpoint that directly holds tensors, by its path.
pub(super) struct Sections {
    sections: BTreeMap<String, BTreeMap<String, TensorView>>,
}

impl Sections {
    pub(super) fn into_weights(self, file: &str) -> BTreeMap<String, Weights> {
        let weights = |tensors| Weights { file: file.into(), tensors, metadata: BTreeMap::new() };
        self.sections.into_iter().map(|(name, tensors)| (name, weights(tensors))).collect()
    }

    /// The tensors to sample with: `ema`, else `state_dict`, else `model`, else the flat
    /// dictionary; prefixes of wrappers are removed.
    pub(super) fn into_inference_weights(mut self, file: &str) -> Result<Weights, String> {
        let section = ["ema", "state_dict", "model", ""]
            .into_iter()
            .find(|name| self.sections.contains_key(*name))
            .ok_or("it holds no weights under \"ema\", \"state_dict\", \"model\" or at the top")?;
        let tensors = self.sections.remove(section).unwrap_or_default();
        let tensors = tensors.into_iter().map(|(name, view)| (bare(&name), view)).collect();
        let metadata = BTreeMap::from([("section".to_string(), section.to_string())]);
        Ok(Weights { file: file.into(), tensors, metadata })
    }
}

/// A name without the prefixes of DistributedDataParallel and torch.compile.
fn bare(mut name: &str) -> String {
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod."))
    {
        name = rest;
    }
    name.to_string()
}

pub(super) fn read(bytes: Memory) -> Result<Sections, String> {
    let container = if (*bytes).as_ref().starts_with(&LEGACY) {
        read_legacy(&bytes)?
    } else {
        read_zip(&bytes)?
    };
    let mut sections = BTreeMap::new();
    collect(&container, &mut sections)?;
    Ok(Sections { sections })
}

struct Container {
    pickle: Pickle,
    /// Raw storages by key: where they lie.
    storages: HashMap<String, Storage>,
}

#[derive(Clone)]
struct Storage {
    bytes: Memory,
    offset: usize,
    length: usize,
}

fn read_zip(bytes: &Memory) -> Result<Container, String> {
    let damaged = |e: zip::result::ZipError| {
        format!("the archive is damaged or truncated ({e}); download or copy it again")
    };
    let all = (**bytes).as_ref();
    // PyTorch's archives begin at the first byte; searching for another beginning misreads some.
    let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
    let mut archive = zip::ZipArchive::with_config(config, Cursor::new(all)).map_err(damaged)?;
    let mut pickle = None;
    let mut storages = HashMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        let path = name.split_once('/').map_or(name.as_str(), |(_, path)| path);
        if path == "data.pkl" {
            if entry.size() > MAX_PICKLE {
                return Err(format!("data.pkl claims {} bytes", entry.size()));
            }
            let mut content = Vec::new();
            entry
                .by_ref()
                .take(MAX_PICKLE)
                .read_to_end(&mut content)
                .map_err(|e| format!("data.pkl cannot be read ({e}); download the file again"))?;
            pickle = Some(content);
        } else if path == "byteorder" {
            let mut order = String::new();
            entry.by_ref().take(16).read_to_string(&mut order).map_err(|e| e.to_string())?;
            if order.trim() != "little" {
                return Err(format!("byte order {order:?} is not supported"));
            }
        } else if let Some(key) = path.strip_prefix("data/") {
            if entry.compression() != zip::CompressionMethod::Stored {
                return Err(format!("storage {key} is compressed, which PyTorch never does"));
            }
            let outside = || format!("storage {key} lies outside the file; it is truncated");
            let offset = entry.data_start().ok_or_else(outside)? as usize;
            let length = entry.size() as usize;
            offset.checked_add(length).filter(|&end| end <= all.len()).ok_or_else(outside)?;
            storages.insert(key.to_string(), Storage { bytes: bytes.clone(), offset, length });
        }
    }
    let pickle = pickle.ok_or("there is no data.pkl in the archive; it is not a PyTorch file")?;
    let (pickle, _) = Pickle::read(&pickle)?;
    Ok(Container { pickle, storages })
}

fn read_legacy(bytes: &Memory) -> Result<Container, String> {
    let all = (**bytes).as_ref();
    let (_magic, rest) = Pickle::read(all)?;
    let (_protocol, rest) = Pickle::read(rest)?;
    let (_system, rest) = Pickle::read(rest)?;
    let (pickle, rest) = Pickle::read(rest)?;
    let (keys, mut rest) = Pickle::read(rest)?;
    let sizes = storage_types(&pickle);
    let mut storages = HashMap::new();
    for &key in keys.items(keys.root).ok_or("the list of storages is missing")? {
        let key = keys.text(key).ok_or("a storage has no name")?;
        let truncated = || format!("storage {key} lies outside the file; it is truncated");
        let (count, data) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let size = sizes.get(key).ok_or_else(|| format!("storage {key} is never used"))?.size();
        let length = usize::try_from(u64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size))
            .filter(|&length| length <= data.len())
            .ok_or_else(truncated)?;
        let offset = all.len() - data.len();
        storages.insert(key.to_string(), Storage { bytes: bytes.clone(), offset, length });
        rest = &data[length..];
    }
    Ok(Container { pickle, storages })
}

/// Element types of the storages that a legacy pickle mentions.
fn storage_types(pickle: &Pickle) -> HashMap<String, Dtype> {
    let mut types = HashMap::new();
    for id in 0.. {
        let Some(node) = pickle.get(id) else { break };
        if let Node::Persistent(inner) = *node
            && let Some((key, dtype)) = storage_reference(pickle, inner)
        {
            types.insert(key.to_string(), dtype);
        }
    }
    types
}

/// Key and element type of a persistent id `("storage", class, key, location, count)`.
fn storage_reference(pickle: &Pickle, id: Id) -> Option<(&str, Dtype)> {
    let items = pickle.items(id)?;
    let &[tag, class, key, ..] = items else { return None };
    let Node::Global(class) = pickle.node(class) else { return None };
    (pickle.text(tag)? == "storage").then_some(())?;
    let dtype = match class.rsplit('.').next()? {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    };
    Some((pickle.text(key)?, dtype))
}

/// Walks the dictionaries below the root and gathers tensors by section.
fn collect(
    container: &Container,
    sections: &mut BTreeMap<String, BTreeMap<String, TensorView>>,
) -> Result<(), String> {
    let pickle = &container.pickle;
    let mut seen = HashSet::new();
    let mut pending = vec![(String::new(), pickle.root, 0)];
    while let Some((path, id, depth)) = pending.pop() {
        let Node::Dict(pairs) = pickle.node(id) else { continue };
        if depth > MAX_DEPTH || !seen.insert(id) {
            continue;
        }
        for &(key, value) in pairs {
            let key = match pickle.node(key) {
                Node::Text(text) => text.clone(),
                Node::Int(i) => i.to_string(),
                _ => continue,
            };
            if let Some(tensor) = tensor(container, value, &key)? {
                sections.entry(path.clone()).or_default().insert(key, tensor);
            } else if matches!(pickle.node(value), Node::Dict(_)) {
                let inner = if path.is_empty() { key } else { format!("{path}.{key}") };
                pending.push((inner, value, depth + 1));
            }
        }
    }
    Ok(())
}

/// The tensor that a value is, if it is one.
fn tensor(container: &Container, id: Id, name: &str) -> Result<Option<TensorView>, String> {
    let pickle = &container.pickle;
    let Node::Call { global, arguments, .. } = pickle.node(id) else { return Ok(None) };
    let (Node::Global(global), Some(arguments)) = (pickle.node(*global), pickle.items(*arguments))
    else {
        return Ok(None);
    };
    match (global.as_str(), arguments) {
        ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", arguments) => {
            rebuild(container, arguments)
                .map(Some)
                .map_err(|problem| format!("tensor {name:?}: {problem}"))
        }
        // One level only: a parameter wraps a tensor, never another parameter.
        ("torch._utils._rebuild_parameter", &[inner, ..]) => match pickle.node(inner) {
            Node::Call { global, arguments, .. }
                if matches!(pickle.node(*global), Node::Global(name)
                    if name == "torch._utils._rebuild_tensor_v2") =>
            {
                let arguments = pickle.items(*arguments).ok_or("a parameter without a tensor")?;
                rebuild(container, arguments)
                    .map(Some)
                    .map_err(|problem| format!("tensor {name:?}: {problem}"))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, …)`
fn rebuild(container: &Container, arguments: &[Id]) -> Result<TensorView, String> {
    let pickle = &container.pickle;
    let &[storage, offset, size, stride, ..] = arguments else {
        return Err("it has too few arguments".into());
    };
    let Node::Persistent(reference) = *pickle.node(storage) else {
        return Err("it has no storage".into());
    };
    let (key, dtype) =
        storage_reference(pickle, reference).ok_or("its storage has an unsupported type")?;
    let storage = container
        .storages
        .get(key)
        .ok_or_else(|| format!("its storage {key} is not in the file; it is truncated"))?;
    let natural = |id: Id| pickle.int(id).and_then(|i| usize::try_from(i).ok());
    let axes =
        |id: Id| -> Option<Vec<usize>> { pickle.items(id)?.iter().map(|&i| natural(i)).collect() };
    let start = natural(offset)
        .and_then(|offset| offset.checked_mul(dtype.size()))
        .ok_or("its offset is not a number")?;
    let shape = axes(size).ok_or("its shape is not a list of numbers")?;
    let strides = axes(stride).ok_or("its strides are not a list of numbers")?;
    let slice = Bytes::Memory(Arc::new(Slice(storage.clone())));
    TensorView::new(dtype, shape, Some(strides), start, slice)
}

/// The bytes of one storage.
struct Slice(Storage);

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let Storage { bytes, offset, length } = &self.0;
        &(**bytes).as_ref()[*offset..offset + length]
    }
}
