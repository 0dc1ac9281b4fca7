//! What a training checkpoint says besides its tensors: its configuration and its arguments.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::pickle::{Id, Node, Pickle};
use super::pytorch::Container;
use super::rebuild::tensor;
use super::store::{CONFIG_UNREADABLE, Dtype, TensorView};

/// The numbers of a network, in a configuration that has nothing else.
const NUMBERS: [&str; 6] =
    ["hidden_size", "depth", "num_heads", "in_channels", "patch_size", "num_classes"];
/// Deepest value in a value that is read.
const MAX_DEPTH: usize = 16;
/// Most that is read of one entry: values, entries of dictionaries, and bytes of text. A pickle may name one text
/// a million times.
const MAX_SIZE: usize = 1 << 20;
/// Longest text that numpy describes a number by: the name of its type, or its bytes as text.
const MAX_SCALAR: usize = 16;

/// Metadata from the entries of a checkpoint's dictionary, as JSON: `config` where it describes a network, and
/// the arguments of the program that trained it, `args`. Of a configuration with a value that cannot be read
/// there is the name of that value alone, `config_unreadable`.
pub(super) fn metadata(container: &Container) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (config, unreadable) = entry(container, "config");
    if let Some(config) = config.filter(describes_a_network) {
        let describes = |key: &&String| {
            let is_of = |section: &str| key.starts_with(section);
            is_of("model.") || is_of("dataset.") || NUMBERS.contains(&key.as_str())
        };
        match unreadable.iter().find(describes) {
            Some(key) => found.insert(CONFIG_UNREADABLE.to_string(), key.clone()),
            None => found.insert("config".to_string(), config.to_string()),
        };
    }
    if let Some(arguments) = entry(container, "args").0.filter(Value::is_object) {
        found.insert("args".to_string(), arguments.to_string());
    }
    found
}

/// Whether a configuration is one that networks are recognised by: k-diffusion's, LightningDiT's, or the
/// numbers of a network themselves. Others configure a program, and the tensors say what the network is.
fn describes_a_network(config: &Value) -> bool {
    let model = &config["model"];
    let is =
        |key: &str, start: &str| model[key].as_str().is_some_and(|name| name.starts_with(start));
    is("type", "image_")
        || model["depths"].is_array()
        || is("model_type", "LightningDiT")
        || NUMBERS.iter().all(|key| config[*key].is_u64())
}

/// An entry's plain values, and the names of those in it that are none.
fn entry(container: &Container, name: &str) -> (Option<Value>, Vec<String>) {
    let pickle = &container.pickle;
    let mut reader = Reader { container, left: MAX_SIZE, unreadable: Vec::new() };
    let Node::Dict(pairs) = pickle.node(pickle.root) else { return (None, Vec::new()) };
    let found = pairs.iter().rev().find(|pair| pickle.text(pair.0) == Some(name));
    let value = found.and_then(|pair| reader.plain(pair.1, "", MAX_DEPTH));
    (value, reader.unreadable)
}

/// Reads values as JSON.
struct Reader<'a> {
    container: &'a Container,
    /// What may still be read.
    left: usize,
    /// Names of values in dictionaries that could not be read.
    unreadable: Vec<String>,
}

impl Reader<'_> {
    /// A value as JSON; `None` where it is no plain value, or there is too much of it.
    fn plain(&mut self, id: Id, path: &str, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.left = self.left.checked_sub(1)?;
        let container = self.container;
        let pickle = &container.pickle;
        match pickle.node(id) {
            Node::None => Some(Value::Null),
            Node::Bool(value) => Some(Value::Bool(*value)),
            Node::Int(value) => Some(Value::from(*value)),
            Node::Float(value) => Number::from_f64(*value).map(Value::Number),
            Node::Text(text) => {
                self.left = self.left.checked_sub(text.len())?;
                Some(Value::String(text.clone()))
            }
            Node::Tuple(items) | Node::List(items) => {
                let mut values = Vec::new();
                for &item in items {
                    values.push(self.plain(item, path, depth)?);
                }
                Some(Value::Array(values))
            }
            Node::Dict(pairs) => self.object(pairs, path, depth),
            Node::Call { global, arguments, state } => {
                if let Some(tensor) = tensor(container, id) {
                    return scalar_of(&tensor.ok()?);
                }
                let Node::Global(name) = pickle.node(*global) else { return None };
                let arguments = pickle.items(*arguments)?;
                match (name.as_str(), arguments, state) {
                    ("argparse.Namespace", _, Some(state)) => match pickle.node(*state) {
                        Node::Dict(pairs) => self.object(pairs, path, depth),
                        _ => None,
                    },
                    ("torch.Size", &[items], _) => self.plain(items, path, depth),
                    (
                        "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
                        &[dtype, bytes],
                        _,
                    ) => numpy_scalar(pickle, dtype, bytes),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The plain values of a dictionary by their keys.
    fn object(&mut self, pairs: &[(Id, Id)], path: &str, depth: usize) -> Option<Value> {
        let container = self.container;
        let mut map = Map::new();
        for &(key, value) in pairs {
            // Also an entry without a name here counts: a million dictionaries may be one.
            self.left = self.left.checked_sub(1)?;
            let Some(key) = name(&container.pickle, key) else { continue };
            self.left = self.left.checked_sub(path.len())?.checked_sub(key.len())?;
            let inner = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            match self.plain(value, &inner, depth) {
                Some(value) => {
                    map.insert(key.into_owned(), value);
                }
                None => self.unreadable.push(inner),
            }
        }
        Some(Value::Object(map))
    }
}

/// What a key of a dictionary is called.
fn name(pickle: &Pickle, key: Id) -> Option<Cow<'_, str>> {
    let number = || pickle.int(key).map(|number| number.to_string().into());
    pickle.text(key).map(Cow::from).or_else(number)
}

/// The number of a tensor without axes.
fn scalar_of(tensor: &TensorView) -> Option<Value> {
    if !tensor.shape.is_empty() {
        return None;
    }
    number(tensor.dtype, &tensor.to_bytes())
}

/// A number by its little-endian bytes.
fn number(dtype: Dtype, bytes: &[u8]) -> Option<Value> {
    let view = TensorView::from_bytes(dtype, Vec::new(), bytes.to_vec()).ok()?;
    match dtype {
        Dtype::Bool => Some(Value::Bool(*view.to_i64().first()? != 0)),
        _ if dtype.is_float() => Number::from_f64(*view.to_f64().first()?).map(Value::Number),
        _ => Some(Value::from(*view.to_i64().first()?)),
    }
}

/// `numpy.core.multiarray.scalar(dtype('f8'), bytes)`; bytes are a text of protocol 2, which is encoded.
fn numpy_scalar(pickle: &Pickle, dtype: Id, bytes: Id) -> Option<Value> {
    let Node::Call { arguments, state, .. } = pickle.node(dtype) else { return None };
    let text = |id: Id| pickle.text(id).filter(|text| text.len() <= MAX_SCALAR);
    let name = text(*pickle.items(*arguments)?.first()?)?;
    let order = state.and_then(|state| pickle.text(*pickle.items(state)?.get(1)?));
    if order == Some(">") {
        return None;
    }
    let bytes = match pickle.node(bytes) {
        Node::Bytes(bytes) => bytes.clone(),
        Node::Call { arguments, .. } => {
            let text = text(*pickle.items(*arguments)?.first()?)?;
            let latin1 = text.chars().map(|c| u8::try_from(u32::from(c)).ok());
            latin1.collect::<Option<Vec<u8>>>()?
        }
        _ => return None,
    };
    let unsigned = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(wide))
    };
    let (dtype, size) = match name.trim_start_matches(['<', '|', '=']) {
        "f8" => (Dtype::F64, 8),
        "f4" => (Dtype::F32, 4),
        "f2" => (Dtype::F16, 2),
        "i8" => (Dtype::I64, 8),
        "i4" => (Dtype::I32, 4),
        "i2" => (Dtype::I16, 2),
        "i1" => (Dtype::I8, 1),
        "b1" => (Dtype::Bool, 1),
        "u1" | "u2" | "u4" | "u8" => return unsigned(&bytes).map(Value::from),
        _ => return None,
    };
    (bytes.len() == size).then(|| number(dtype, &bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tintype_test_models::pickles::{called, text, tuple};

    use super::*;
    use crate::weights::pytorch;

    /// A value with so much left and of such a depth, and how many names in it are unreadable.
    fn read(value: &[u8], left: usize, depth: usize) -> (Option<Value>, usize) {
        // The legacy format: magic number, protocol and system before the value, behind it the names of storages.
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        let parts = [magic.as_slice(), b"\x80\x02K\x01.\x80\x02}.\x80\x02", value, b".\x80\x02]."];
        let container = pytorch::read(Arc::new(parts.concat())).expect("it opens");
        let mut reader = Reader { container: &container, left, unreadable: Vec::new() };
        let value = reader.plain(container.pickle.root, "", depth);
        (value, reader.unreadable.len())
    }

    /// A dictionary of 100 entries without a value.
    fn hundred(key: &[u8]) -> Vec<u8> {
        [b"}(".as_slice(), &[key, b"N"].concat().repeat(100), b"u"].concat()
    }

    #[test]
    fn every_entry_of_a_dictionary_counts() {
        let without_name = hundred(b"N");
        assert_eq!(read(&without_name, 101, MAX_DEPTH), (Some(Value::Object(Map::new())), 0));
        assert_eq!(read(&without_name, 100, MAX_DEPTH), (None, 0));
        // Too deep, under a name without letters.
        let too_deep = hundred(b"X\0\0\0\0");
        assert_eq!(read(&too_deep, 101, 1), (Some(Value::Object(Map::new())), 100));
        assert_eq!(read(&too_deep, 51, 1), (None, 50));
    }

    #[test]
    fn a_number_of_numpy_is_no_long_text() {
        let scalar = |name: &str| {
            let dtype = called("numpy dtype", &tuple(&[text(name)]));
            let arguments = tuple(&[dtype, b"C\x01\x07".to_vec()]);
            read(&called("numpy.core.multiarray scalar", &arguments), MAX_SIZE, MAX_DEPTH).0
        };
        assert_eq!(scalar("i1"), Some(Value::from(7)));
        assert_eq!(scalar(&format!("{}i1", "<".repeat(20))), None);
    }
}
