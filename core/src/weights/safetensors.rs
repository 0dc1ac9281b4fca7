//! The safetensors container.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ::safetensors::tensor::{Dtype as Stored, Metadata, TensorInfo};

use super::source::Bytes;
use super::store::{Dtype, TensorView, Weights};

/// The largest header, which is the library's own limit.
const LARGEST_HEADER: usize = 100_000_000;
/// The name of the metadata in a header, beside those of the tensors.
const METADATA: &str = "__metadata__";

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
        let offset = data.saturating_add(info.data_offsets.0);
        let view = TensorView::new(dtype, info.shape.clone(), None, offset, bytes.clone())
            .map_err(|e| format!("tensor {name:?}: {e}"))?;
        tensors.insert(name, view);
    }
    let metadata =
        metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Weights { file: file.into(), tensors, unreadable, metadata })
}

/// Where the tensors begin, and what they are. Nothing but the header is read, and the sizes in it are added with
/// checks, which the library's reader of whole files lacks.
fn header(bytes: &Bytes) -> Result<(usize, Metadata), String> {
    let io = |e: io::Error| e.to_string();
    let length = bytes.read(0, 8).map_err(io)?;
    let length = length.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let length = usize::try_from(length).ok().filter(|&length| length <= LARGEST_HEADER);
    let length = length.ok_or("its header is too long")?;
    let data = 8 + length;
    let text = bytes.read(8, length).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if metadata.data_len().checked_add(data) != Some(bytes.len()) {
        return Err("its size does not match its header".into());
    }
    Ok((data, metadata))
}

/// Why tensors were not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The container cannot hold them.
    #[error("the tensors do not fit into a safetensors file: {0}")]
    Format(String),
    /// A tensor has the name under which the container keeps its metadata.
    #[error(
        "tensor \"__metadata__\" cannot be written: a safetensors file keeps its metadata under that name"
    )]
    Name,
    /// A tensor cannot be read, or the bytes cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serialises tensors and metadata; write the bytes under a temporary name and rename. Where the file may be
/// large, [`write_to`] needs no memory for it.
///
/// # Errors
///
/// A sentence where the header would be too large, or a tensor cannot be read or has the name `__metadata__`.
pub fn write(
    tensors: &BTreeMap<String, TensorView>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let sorted = sorted(tensors);
    let mut out = preamble(&sorted, metadata).map_err(|e| e.to_string())?;
    out.reserve_exact(sorted.iter().map(|(_, view)| size(view)).sum());
    for (_, view) in sorted {
        out.extend_from_slice(&view.read().map_err(|e| e.to_string())?);
    }
    Ok(out)
}

/// Streams tensors and metadata as a safetensors file: the header, then the bytes of one tensor after another.
/// Of contiguous tensors in memory nothing is copied. Equal tensors and metadata have equal bytes.
///
/// # Errors
///
/// * [`SaveError::Format`] where the header, or the file, would be too large
/// * [`SaveError::Name`] where a tensor has the name that the format keeps for itself
/// * [`SaveError::Io`] where a tensor cannot be read, or `out` not be written
pub fn write_to(
    out: &mut impl Write,
    tensors: &BTreeMap<String, TensorView>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), SaveError> {
    let sorted = sorted(tensors);
    out.write_all(&preamble(&sorted, metadata)?)?;
    for (_, view) in sorted {
        out.write_all(&view.read()?)?;
    }
    Ok(())
}

/// The order of the format: the widest elements first, which aligns all, then by name.
fn sorted(tensors: &BTreeMap<String, TensorView>) -> Vec<(&String, &TensorView)> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    // Stable, so names of one type stay in their order.
    sorted.sort_by_key(|(_, view)| std::cmp::Reverse(stored(view.dtype)));
    sorted
}

fn size(view: &TensorView) -> usize {
    view.len() * view.dtype.size()
}

/// What comes before the tensors: the length of the header, and the header.
fn preamble(
    sorted: &[(&String, &TensorView)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SaveError> {
    let format = |e: serde_json::Error| SaveError::Format(e.to_string());
    let mut header = serde_json::Map::new();
    header.insert(METADATA.into(), serde_json::to_value(metadata).map_err(format)?);
    let mut start: usize = 0;
    for &(name, view) in sorted {
        if name == METADATA {
            return Err(SaveError::Name);
        }
        let too_large = || SaveError::Format("they are too large".into());
        let end = start.checked_add(size(view)).ok_or_else(too_large)?;
        let info = TensorInfo {
            dtype: stored(view.dtype),
            shape: view.shape.clone(),
            data_offsets: (start, end),
        };
        header.insert(name.clone(), serde_json::to_value(info).map_err(format)?);
        start = end;
    }
    let mut text = serde_json::to_vec(&header).map_err(format)?;
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() > LARGEST_HEADER {
        return Err(SaveError::Format("the header is too large".into()));
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.append(&mut text);
    Ok(out)
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors of several types, one of them empty and one a scalar.
    fn tensors() -> BTreeMap<String, TensorView> {
        let view = |dtype: Dtype, shape: &[usize]| {
            let n = shape.iter().product::<usize>() * dtype.size();
            let bytes = (0..n).map(|i| (i * 37 % 251) as u8).collect();
            TensorView::from_bytes(dtype, shape.to_vec(), bytes).expect("it fits")
        };
        BTreeMap::from([
            ("b.weight".to_string(), view(Dtype::F32, &[3, 5])),
            ("a.weight".to_string(), view(Dtype::F32, &[2])),
            ("half".to_string(), view(Dtype::BF16, &[7])),
            ("steps".to_string(), view(Dtype::I64, &[])),
            ("none".to_string(), view(Dtype::F16, &[0, 4])),
            ("\"quoted\"".to_string(), view(Dtype::U8, &[3])),
        ])
    }

    #[test]
    fn a_streamed_file_has_the_bytes_of_the_library() {
        let tensors = tensors();
        let metadata = BTreeMap::from([("config".to_string(), "{\"a\": 1}".to_string())]);
        let mut streamed = Vec::new();
        write_to(&mut streamed, &tensors, &metadata).expect("it writes");
        assert_eq!(write(&tensors, &metadata).expect("it writes"), streamed);
        struct Entry<'a>(&'a TensorView, Vec<u8>);
        impl ::safetensors::View for Entry<'_> {
            fn dtype(&self) -> Stored {
                stored(self.0.dtype)
            }
            fn shape(&self) -> &[usize] {
                &self.0.shape
            }
            fn data(&self) -> std::borrow::Cow<'_, [u8]> {
                (&self.1).into()
            }
            fn data_len(&self) -> usize {
                self.1.len()
            }
        }
        let entries = tensors.iter().map(|(name, view)| (name, Entry(view, view.to_bytes())));
        let metadata = metadata.into_iter().collect();
        let library = ::safetensors::serialize(entries, Some(metadata)).expect("it writes");
        assert_eq!(streamed, library);
    }

    #[test]
    fn a_writer_that_is_full_is_an_error() {
        let mut small = [0u8; 40];
        let error = write_to(&mut small.as_mut_slice(), &tensors(), &BTreeMap::new());
        assert!(matches!(error, Err(SaveError::Io(_))), "{error:?}");
    }

    #[test]
    fn sizes_whose_sum_overflows_are_refused() {
        // The most bytes of one tensor: their bits are counted, too.
        let most = usize::MAX / 8;
        let tensor = |i: usize| {
            let [start, end] = [i, i + 1].map(|n| n * most);
            format!(r#""{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{start},{end}]}}"#)
        };
        let header = format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(","));
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let error = read(Bytes::Memory(std::sync::Arc::new(file)), "x").expect_err("refused");
        assert!(error.contains("its size does not match its header"), "{error}");
    }

    #[test]
    fn a_tensor_cannot_take_the_place_of_the_metadata() {
        let mut tensors = tensors();
        let stray = tensors["half"].clone();
        tensors.insert("__metadata__".into(), stray);
        let mut out = Vec::new();
        let error = write_to(&mut out, &tensors, &BTreeMap::new()).expect_err("refused");
        assert!(matches!(error, SaveError::Name), "{error}");
        assert!(error.to_string().contains("__metadata__") && out.is_empty(), "{error}");
        assert!(write(&tensors, &BTreeMap::new()).is_err());
    }

    #[test]
    fn an_empty_tensor_is_written_wherever_it_is_said_to_lie() {
        let nothing = || Bytes::Memory(std::sync::Arc::new(Vec::<u8>::new()));
        for strides in [None, Some(vec![7, 9])] {
            let view = TensorView::new(Dtype::F32, vec![0, 4], strides, usize::MAX, nothing());
            let view = view.expect("it has no elements");
            assert!(view.read().expect("nothing").is_empty());
            let tensors = BTreeMap::from([("none".to_string(), view)]);
            let file = write(&tensors, &BTreeMap::new()).expect("it writes");
            let file = Bytes::Memory(std::sync::Arc::new(file));
            assert_eq!(read(file, "x").expect("it opens").tensors["none"].shape, [0, 4]);
        }
    }
}
