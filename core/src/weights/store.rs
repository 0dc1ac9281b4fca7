//! Tensors of a checkpoint as they lie in memory or in a mapped file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use half::{bf16, f16};

use super::source::Bytes;

/// Sections of a training checkpoint with the weights as training left them.
pub(super) const RAW: [&str; 6] =
    ["state_dict", "model", "model_state_dict", "net", "params", "generator"];
/// Key of the metadata with the paths of all averages that can be chosen, as a JSON list, where there are several.
pub(super) const AVERAGES: &str = "averages";
/// Key of the metadata that names averaged weights that were not understood.
pub(super) const AVERAGES_NOT_READ: &str = "averages_not_read";
/// Key of the metadata that names a value of the configuration that cannot be read.
pub(super) const CONFIG_UNREADABLE: &str = "config_unreadable";
/// Key of the metadata that names what beside the tensors is no tensor.
pub(super) const LEFT_OUT: &str = "left_out";

/// Element types that checkpoints use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Little-endian elements as float32; integers and booleans are converted.
    pub(super) fn widen(self, bytes: &[u8]) -> Vec<f32> {
        self.convert(bytes, |v| v as f32)
    }

    /// Whether no element is infinite or NaN; 16-bit and 32-bit numbers by their exponents alone.
    pub(super) fn all_finite(self, bytes: &[u8]) -> bool {
        match self {
            Dtype::F16 => bytes.chunks_exact(2).all(|b| b[1] & 0x7c != 0x7c),
            Dtype::BF16 => bytes.chunks_exact(2).all(|b| b[1] & 0x7f != 0x7f || b[0] & 0x80 == 0),
            Dtype::F32 => bytes.chunks_exact(4).all(|b| b[3] & 0x7f != 0x7f || b[2] & 0x80 == 0),
            Dtype::F64 => bytes.chunks_exact(8).all(|b| f64::from_le_bytes(array(b)).is_finite()),
            _ => true,
        }
    }

    fn convert<T>(self, bytes: &[u8], from: impl Fn(f64) -> T) -> Vec<T> {
        let chunks = bytes.chunks_exact(self.size());
        match self {
            Dtype::F64 => chunks.map(|b| from(f64::from_le_bytes(array(b)))).collect(),
            Dtype::F32 => chunks.map(|b| from(f32::from_le_bytes(array(b)) as f64)).collect(),
            Dtype::F16 => chunks.map(|b| from(f16::from_le_bytes(array(b)).to_f64())).collect(),
            Dtype::BF16 => chunks.map(|b| from(bf16::from_le_bytes(array(b)).to_f64())).collect(),
            Dtype::I64 => chunks.map(|b| from(i64::from_le_bytes(array(b)) as f64)).collect(),
            Dtype::I32 => chunks.map(|b| from(i32::from_le_bytes(array(b)) as f64)).collect(),
            Dtype::I16 => chunks.map(|b| from(i16::from_le_bytes(array(b)) as f64)).collect(),
            Dtype::I8 => chunks.map(|b| from(b[0] as i8 as f64)).collect(),
            Dtype::U8 | Dtype::Bool => chunks.map(|b| from(b[0] as f64)).collect(),
        }
    }

    /// Whether the elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

/// Most elements of a tensor that repeats its values, as `expand` makes them: a few bytes can claim any
/// number.
const MAX_REPEATED: usize = 1 << 28;

/// One tensor: a strided view of shared bytes. Bounds were checked when it was made.
#[derive(Clone)]
pub struct TensorView {
    /// Element type.
    pub dtype: Dtype,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    strides: Vec<usize>, // in elements
    offset: usize,       // of the first element, in bytes
    bytes: Bytes,
    place: Option<usize>, // among the tensors of its file, where that keeps an order
}

impl std::fmt::Debug for TensorView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}

impl TensorView {
    /// A view; fails with a sentence where it would reach outside the bytes, or repeat their elements
    /// to an absurd size.
    pub(super) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        offset: usize,
        bytes: Bytes,
    ) -> Result<Self, String> {
        let too_large = || "a tensor's size overflows".to_string();
        let count =
            shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        let strides = match strides {
            Some(strides) if strides.len() == shape.len() => strides,
            Some(_) => return Err("a tensor has as many strides as axes".into()),
            None => contiguous(&shape),
        };
        if count > 0 {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(0usize, |at, (&d, &s)| {
                    s.checked_mul(d - 1).and_then(|reach| at.checked_add(reach))
                })
                .ok_or_else(too_large)?;
            let end = last
                .checked_add(1)
                .and_then(|n| n.checked_mul(dtype.size()))
                .and_then(|n| n.checked_add(offset))
                .ok_or_else(too_large)?;
            let available = bytes.len();
            if end > available {
                return Err(format!(
                    "a tensor of shape {shape:?} ends at byte {end} of {available}; the file is truncated"
                ));
            }
            if count > (available - offset) / dtype.size() && count > MAX_REPEATED {
                return Err(format!("a shape of {shape:?} repeats too few values too often"));
            }
        }
        // An empty tensor may be said to lie anywhere: nothing of it is read.
        let offset = if count == 0 { 0 } else { offset };
        Ok(Self { dtype, shape, strides, offset, bytes, place: None })
    }

    /// A tensor of little-endian bytes in row-major order.
    ///
    /// # Errors
    ///
    /// A sentence where there are too few of them, or the size of the shape overflows.
    pub fn from_bytes(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, String> {
        Self::new(dtype, shape, None, 0, Bytes::Memory(Arc::new(bytes)))
    }

    /// A float32 tensor; `values` has as many elements as the shape.
    ///
    /// # Errors
    ///
    /// A sentence where there are too few of them, or the size of the shape overflows.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, String> {
        Self::from_bytes(Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements with axes of length 1 behind the others, `rank` axes in all.
    pub(super) fn with_rank(mut self, rank: usize) -> Self {
        let rank = rank.max(self.shape.len());
        self.shape.resize(rank, 1);
        self.strides.resize(rank, 1);
        self
    }

    /// The same tensor as the n-th of its file, in the order in which its network has them.
    pub(super) fn at_place(mut self, place: usize) -> Self {
        self.place = Some(place);
        self
    }

    /// The same tensor behind so many others.
    #[cfg(feature = "files")]
    pub(super) fn behind(mut self, others: usize) -> Self {
        self.place = self.place.map(|place| place.saturating_add(others));
        self
    }

    /// Its place among the tensors of its file, where the file keeps the order of its network: PyTorch's do,
    /// safetensors are sorted by name.
    pub(super) fn place(&self) -> Option<usize> {
        self.place
    }

    /// Up to `n` bytes from the first element on.
    fn head(&self, n: usize) -> io::Result<Cow<'_, [u8]>> {
        let start = self.offset.min(self.bytes.len());
        let n = n.min(self.len() * self.dtype.size()).min(self.bytes.len() - start);
        self.bytes.read(start, n)
    }

    /// The bytes of `count` elements from element `first` on, without copying; `None` where the
    /// tensor is not contiguous, not in memory, or ends before.
    pub fn slice(&self, first: usize, count: usize) -> Option<&[u8]> {
        match self.run(first, count)? {
            Cow::Borrowed(bytes) => Some(bytes),
            Cow::Owned(_) => None,
        }
    }

    /// The bytes of `count` elements from element `first` on; `None` where the tensor is not contiguous,
    /// ends before, or cannot be read.
    fn run(&self, first: usize, count: usize) -> Option<Cow<'_, [u8]>> {
        let inside = first.checked_add(count)? <= self.len();
        if !inside || self.strides != contiguous(&self.shape) {
            return None;
        }
        let start = self.offset + first * self.dtype.size();
        self.bytes.read(start, count * self.dtype.size()).ok()
    }

    /// `len` elements from the `row`-th group of `len` on, widened to float32.
    ///
    /// # Panics
    ///
    /// If the tensor ends before.
    pub fn row_f32(&self, row: usize, len: usize) -> Vec<f32> {
        match (self.dtype, self.run(row * len, len)) {
            (Dtype::F32, Some(bytes)) => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            (dtype, Some(bytes)) => dtype.widen(&bytes),
            (_, None) => self.to_f32()[row * len..(row + 1) * len].to_vec(),
        }
    }

    /// The elements' bytes in row-major order, little-endian.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where a file cannot be read.
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        let (size, count) = (self.dtype.size(), self.len());
        if self.strides == contiguous(&self.shape) || count == 0 {
            return self.bytes.read(self.offset, count * size);
        }
        let reach: usize = self.shape.iter().zip(&self.strides).map(|(d, s)| (d - 1) * s).sum();
        let storage = self.bytes.read(self.offset, (reach + 1) * size)?;
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            out.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(Cow::Owned(out))
    }

    /// Gives back what holding the bytes in memory takes, where they are a part of a mapped file.
    pub(super) fn release(&self) {
        if self.strides == contiguous(&self.shape) {
            self.bytes.release(self.offset, self.len() * self.dtype.size());
        }
    }

    /// Whether no element is infinite or NaN.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where a file cannot be read.
    pub fn is_finite(&self) -> io::Result<bool> {
        Ok(self.dtype.all_finite(&self.read()?))
    }

    /// [`Self::read`] for tensors in memory. What cannot be read of a file has all bits set, which
    /// is NaN in floating-point types.
    pub fn to_bytes(&self) -> Vec<u8> {
        let unreadable = |_| Cow::Owned(vec![0xff; self.len() * self.dtype.size()]);
        self.read().unwrap_or_else(unreadable).into_owned()
    }

    /// The same numbers in another floating-point type; `None` where a finite number would
    /// become infinite, and for types that are not floating-point.
    pub fn converted(&self, dtype: Dtype) -> Option<Self> {
        let values = self.to_f64();
        let fits = |v: &f64, rounded: f64| rounded.is_finite() || !v.is_finite();
        let mut bytes = Vec::with_capacity(values.len() * dtype.size());
        for v in &values {
            let (rounded, encoded) = match dtype {
                Dtype::F16 => {
                    let h = f16::from_f64(*v);
                    (h.to_f64(), h.to_le_bytes().to_vec())
                }
                Dtype::BF16 => {
                    let h = bf16::from_f64(*v);
                    (h.to_f64(), h.to_le_bytes().to_vec())
                }
                Dtype::F32 => ((*v as f32) as f64, (*v as f32).to_le_bytes().to_vec()),
                Dtype::F64 => (*v, v.to_le_bytes().to_vec()),
                _ => return None,
            };
            if !fits(v, rounded) {
                return None;
            }
            bytes.extend(encoded);
        }
        Self::from_bytes(dtype, self.shape.clone(), bytes).ok()
    }

    /// The elements in row-major order as float32; integers and booleans are converted.
    pub fn to_f32(&self) -> Vec<f32> {
        self.convert(|v| v as f32)
    }

    /// The elements in row-major order as float64.
    pub fn to_f64(&self) -> Vec<f64> {
        self.convert(|v| v)
    }

    /// The elements in row-major order as integers (floats are truncated).
    pub fn to_i64(&self) -> Vec<i64> {
        match self.dtype {
            Dtype::I64 => {
                self.to_bytes().chunks_exact(8).map(|b| i64::from_le_bytes(array(b))).collect()
            }
            _ => self.convert(|v| v as i64),
        }
    }

    fn convert<T>(&self, from: impl Fn(f64) -> T) -> Vec<T> {
        self.dtype.convert(&self.to_bytes(), from)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have the element's size")
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// The tensors of a checkpoint under the names they have there.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// Where they come from, for messages.
    pub file: String,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorView>,
    /// Why a tensor cannot be read, by its name: complex, quantized or sparse ones, and others that no network
    /// here has. An error only where one is needed.
    pub unreadable: BTreeMap<String, String>,
    /// Strings stored beside the tensors.
    pub metadata: BTreeMap<String, String>,
}

/// Two tensors that would have one name.
#[derive(Debug)]
pub(super) struct Collision {
    /// What one of them is called.
    pub(super) first: String,
    /// What the other one is called.
    pub(super) second: String,
    /// What both would be called.
    pub(super) name: String,
}

impl Weights {
    /// Under other names; tensors that get none are left out.
    pub(super) fn renamed(
        self,
        mut name: impl FnMut(&str) -> Option<String>,
    ) -> Result<Self, Collision> {
        let mut renamed = Self { file: self.file, metadata: self.metadata, ..Self::default() };
        let mut olds = BTreeMap::new();
        let mut claim = |old: &str| -> Result<Option<String>, Collision> {
            let Some(new) = name(old) else { return Ok(None) };
            match olds.insert(new.clone(), old.to_string()) {
                None => Ok(Some(new)),
                Some(first) => Err(Collision { first, second: old.into(), name: new }),
            }
        };
        for (old, view) in self.tensors {
            if let Some(new) = claim(&old)? {
                renamed.tensors.insert(new, view);
            }
        }
        for (old, why) in self.unreadable {
            if let Some(new) = claim(&old)? {
                renamed.unreadable.insert(new, why);
            }
        }
        Ok(renamed)
    }

    /// The tensors whose names begin with a prefix, without it.
    pub(crate) fn below(self, prefix: &str) -> Self {
        self.with_names(|name| Some(name.strip_prefix(prefix)?.to_string()))
    }

    /// All tensors, with a prefix before their names.
    pub(crate) fn above(self, prefix: &str) -> Self {
        self.with_names(|name| Some(format!("{prefix}{name}")))
    }

    /// Under names of which no two are one; tensors that get none are left out.
    fn with_names(self, name: impl Fn(&str) -> Option<String>) -> Self {
        fn named<V>(
            map: BTreeMap<String, V>,
            name: impl Fn(&str) -> Option<String>,
        ) -> BTreeMap<String, V> {
            map.into_iter().filter_map(|(old, value)| Some((name(&old)?, value))).collect()
        }
        Self {
            file: self.file,
            tensors: named(self.tensors, &name),
            unreadable: named(self.unreadable, &name),
            metadata: self.metadata,
        }
    }

    /// Tells networks apart: 64 bits over names, shapes and the first bytes of every tensor.
    pub fn fingerprint(&self) -> String {
        // FNV-1a; identity, not security.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut eat = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for (name, view) in &self.tensors {
            eat(name.as_bytes());
            // 64 bits on every machine.
            view.shape.iter().for_each(|&d| eat(&(d as u64).to_le_bytes()));
            // A file that cannot be read fails to load; here it only has a fingerprint of its own.
            eat(&view.head(64).unwrap_or_default());
        }
        format!("{hash:016x}")
    }

    /// Only the tensors for which `keep` holds.
    pub fn filtered(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.tensors.retain(|name, _| keep(name));
        self.unreadable.retain(|name, _| keep(name));
        self
    }

    /// Whether there is a tensor of this name, be it one that cannot be read.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name) || self.unreadable.contains_key(name)
    }

    /// A sentence where these are a training checkpoint's raw weights, which make worse images than
    /// their moving average.
    pub fn raw_note(&self) -> Option<String> {
        let section = self.metadata.get("section")?.split('.').next()?;
        let raw = RAW.contains(&section) || section.is_empty();
        match self.metadata.get(AVERAGES_NOT_READ) {
            Some(names) if raw => Some(format!(
                "{}: raw training weights are used; it also holds {names}, which is not read",
                self.file
            )),
            None if raw && !section.is_empty() => {
                Some(format!("{}: no EMA weights; raw training weights are used", self.file))
            }
            _ => None,
        }
    }

    /// The averages that a checkpoint holds, in the order of their numbers: their paths in a PyTorch file, and the files of a
    /// training run that was opened by its folder. Empty where there are fewer than two, and of other files.
    pub fn averages(&self) -> Vec<String> {
        let listed = self.metadata.get(AVERAGES).map(|list| serde_json::from_str(list));
        // Somebody else's text under that key names none.
        listed.and_then(Result::ok).unwrap_or_default()
    }

    /// The name of a value that cannot be read, where there would be a configuration but for that.
    pub(crate) fn unreadable_config(&self) -> Option<&str> {
        let key = self.metadata.get(CONFIG_UNREADABLE)?;
        (!self.metadata.contains_key("config")).then_some(key.as_str())
    }

    /// Takes what the metadata say of this file alone, and names what it holds beside the tensors that were
    /// read, where it does: numbers, lists and dictionaries.
    pub fn take_left_out(&mut self) -> Option<String> {
        self.metadata.remove(AVERAGES);
        self.metadata.remove(AVERAGES_NOT_READ);
        self.metadata.remove(LEFT_OUT)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A file that counts the bytes that are read of it.
    struct Counted {
        bytes: Vec<u8>,
        read: AtomicUsize,
    }

    impl super::super::Source for Counted {
        fn len(&self) -> usize {
            self.bytes.len()
        }

        fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()> {
            self.read.fetch_add(into.len(), Ordering::Relaxed);
            into.copy_from_slice(&self.bytes[start..start + into.len()]);
            Ok(())
        }
    }

    #[test]
    fn a_row_is_widened_without_the_others() {
        let values: Vec<f32> = (0..48).map(|i| i as f32 / 4.0).collect();
        let whole = TensorView::from_f32(vec![6, 8], &values).expect("as many values");
        for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
            let bytes = whole.converted(dtype).expect("it fits").to_bytes();
            let file = Arc::new(Counted { bytes, read: AtomicUsize::new(0) });
            let view = TensorView::new(dtype, vec![6, 8], None, 0, Bytes::Source(file.clone()));
            let view = view.expect("as many bytes");
            assert_eq!(view.row_f32(3, 8), values[24..32], "{dtype:?}");
            assert_eq!(file.read.load(Ordering::Relaxed), 8 * dtype.size(), "{dtype:?}");
        }
        // Where a row is no piece of the file.
        let strides = Some(vec![1, 8]);
        let turned = TensorView::new(Dtype::F32, vec![8, 6], strides, 0, whole.bytes.clone());
        let row = turned.expect("as many bytes").row_f32(2, 6);
        assert_eq!(row, [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]);
    }
}
