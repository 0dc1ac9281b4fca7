//! The safetensors container.

use std::collections::BTreeMap;

use ::safetensors::tensor::{Dtype as Stored, Metadata, SafeTensors};

use super::source::Bytes;
use super::store::{Dtype, TensorView, Weights};

pub(super) fn read(bytes: Bytes, file: &str) -> Result<Weights, String> {
    let (data, metadata) = header(&bytes).map_err(|e| {
        format!("not a safetensors or PyTorch file, or damaged ({e}); download or copy it again")
    })?;
    let (mut tensors, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Stored::F64 => Dtype::F64,
            Stored::F32 => Dtype::F32,
            Stored::F16 => Dtype::F16,
            Stored::BF16 => Dtype::BF16,
            Stored::I64 => Dtype::I64,
            Stored::I32 => Dtype::I32,
            Stored::I16 => Dtype::I16,
            Stored::I8 => Dtype::I8,
            Stored::U8 => Dtype::U8,
            Stored::BOOL => Dtype::Bool,
            other => {
                unreadable.insert(name, format!("elements of type {other:?} are not supported"));
                continue;
            }
        };
        let offset = data + info.data_offsets.0;
        let view = TensorView::new(dtype, info.shape.clone(), None, offset, bytes.clone())
            .map_err(|e| format!("tensor {name:?}: {e}"))?;
        tensors.insert(name, view);
    }
    let metadata =
        metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Weights { file: file.into(), tensors, unreadable, metadata })
}

/// Where the tensors begin, and what they are.
fn header(bytes: &Bytes) -> Result<(usize, Metadata), String> {
    if let Bytes::Memory(memory) = bytes {
        let (length, metadata) =
            SafeTensors::read_metadata((**memory).as_ref()).map_err(|e| e.to_string())?;
        return Ok((8 + length, metadata));
    }
    // The library wants the whole file; of one that is elsewhere only the header is read.
    const LARGEST: u64 = 100 << 20;
    let io = |e: std::io::Error| e.to_string();
    let length = bytes.read(0, 8).map_err(io)?;
    let length = length.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if length > LARGEST {
        return Err("its header is too long".into());
    }
    let data = 8 + length as usize;
    let text = bytes.read(8, length as usize).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if metadata.data_len().checked_add(data) != Some(bytes.len()) {
        return Err("it has not the length that its header says".into());
    }
    Ok((data, metadata))
}

/// Serialises tensors and metadata; write the bytes under a temporary name and rename.
///
/// # Errors
///
/// A sentence where the safetensors library refuses them: the header would be too large.
pub fn write(
    tensors: &BTreeMap<String, TensorView>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    struct Entry(Stored, Vec<usize>, Vec<u8>);
    impl ::safetensors::View for &Entry {
        fn dtype(&self) -> Stored {
            self.0
        }
        fn shape(&self) -> &[usize] {
            &self.1
        }
        fn data(&self) -> std::borrow::Cow<'_, [u8]> {
            (&self.2).into()
        }
        fn data_len(&self) -> usize {
            self.2.len()
        }
    }
    let entries: BTreeMap<&String, Entry> = tensors
        .iter()
        .map(|(name, view)| {
            let dtype = match view.dtype {
                Dtype::F64 => Stored::F64,
                Dtype::F32 => Stored::F32,
                Dtype::F16 => Stored::F16,
                Dtype::BF16 => Stored::BF16,
                Dtype::I64 => Stored::I64,
                Dtype::I32 => Stored::I32,
                Dtype::I16 => Stored::I16,
                Dtype::I8 => Stored::I8,
                Dtype::U8 => Stored::U8,
                Dtype::Bool => Stored::BOOL,
            };
            (name, Entry(dtype, view.shape.clone(), view.to_bytes()))
        })
        .collect();
    let metadata = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    ::safetensors::serialize(entries.iter().map(|(name, entry)| (*name, entry)), Some(metadata))
        .map_err(|e| e.to_string())
}
