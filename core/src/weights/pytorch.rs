//! PyTorch's containers: the zip archive of 1.6 and later, and the legacy stream before it.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use super::pickle::{Id, Node, Pickle};
use super::source::Memory;
use super::store::Dtype;

/// Largest `data.pkl` that is read: names and shapes of a million tensors.
const MAX_PICKLE: u64 = 256 << 20;

/// Pickle of `torch.save`'s magic number in the legacy format.
const LEGACY: [u8; 14] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

pub(super) fn is_pytorch(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(&LEGACY)
}

/// Opens either container.
pub(super) fn read(bytes: Memory) -> Result<Container, String> {
    match (*bytes).as_ref().starts_with(&LEGACY) {
        true => read_legacy(&bytes),
        false => read_zip(&bytes),
    }
}

/// The values of a checkpoint, and where its storages are.
pub(super) struct Container {
    pub(super) pickle: Pickle,
    /// Raw storages by key: where they lie.
    pub(super) storages: HashMap<String, Storage>,
}

#[derive(Clone)]
pub(super) struct Storage {
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
            let natural = |number: u64| usize::try_from(number).ok();
            let offset = entry.data_start().and_then(natural).ok_or_else(outside)?;
            let length = natural(entry.size()).ok_or_else(outside)?;
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
    // A magic number, the version, the system that wrote it.
    let (_, rest) = Pickle::read(all)?;
    let (_, rest) = Pickle::read(rest)?;
    let (_, rest) = Pickle::read(rest)?;
    let (pickle, rest) = Pickle::read(rest)?;
    let (keys, mut rest) = Pickle::read(rest)?;
    let classes = storage_classes(&pickle);
    let mut storages = HashMap::new();
    for &key in keys.items(keys.root).ok_or("the list of storages is missing")? {
        let key = keys.text(key).ok_or("a storage has no name")?;
        let truncated = || format!("storage {key} lies outside the file; it is truncated");
        let (count, data) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let class = classes.get(key).ok_or_else(|| format!("storage {key} is never used"))?;
        // Where the size of an element is not known, neither is where the next storage begins.
        let Some(size) = element_size(class) else { break };
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

/// Classes of the storages that a legacy pickle mentions.
fn storage_classes(pickle: &Pickle) -> HashMap<&str, &str> {
    let mut classes = HashMap::new();
    for id in 0.. {
        let Some(node) = pickle.get(id) else { break };
        if let Node::Persistent(inner) = *node
            && let Some((key, class)) = storage_reference(pickle, inner)
        {
            classes.insert(key, class);
        }
    }
    classes
}

/// Key and class of a persistent id `("storage", class, key, location, count)`.
pub(super) fn storage_reference(pickle: &Pickle, id: Id) -> Option<(&str, &str)> {
    let items = pickle.items(id)?;
    let &[tag, class, key, ..] = items else { return None };
    let Node::Global(class) = pickle.node(class) else { return None };
    (pickle.text(tag)? == "storage").then_some(())?;
    Some((pickle.text(key)?, class.as_str()))
}

/// Element type of a storage class; `None` for those that no network here has.
pub(super) fn dtype(class: &str) -> Option<Dtype> {
    Some(match class.rsplit('.').next()? {
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
    })
}

/// Bytes of one element of a storage class.
fn element_size(class: &str) -> Option<usize> {
    if let Some(dtype) = dtype(class) {
        return Some(dtype.size());
    }
    Some(match class.rsplit('.').next()? {
        "ComplexDoubleStorage" => 16,
        "ComplexFloatStorage" => 8,
        "QInt32Storage" => 4,
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => 1,
        "UntypedStorage" => 1,
        _ => return None,
    })
}

/// The bytes of one storage.
pub(super) struct Slice(pub(super) Storage);

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let Storage { bytes, offset, length } = &self.0;
        &(**bytes).as_ref()[*offset..offset + length]
    }
}
