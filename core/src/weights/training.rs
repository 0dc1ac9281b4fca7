//! What a training checkpoint says besides its tensors: its configuration and its arguments.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::pickle::{Id, Node, Pickle};

/// Deepest value in a value that is read.
const MAX_DEPTH: usize = 16;
/// Most that is read of one entry: values, and bytes of text. A pickle may name one text a million times.
const MAX_SIZE: usize = 1 << 20;

/// Metadata from the entries of a checkpoint's dictionary, as JSON: `config` where it describes a network, and
/// the arguments of the program that trained it, `args`.
pub(super) fn metadata(pickle: &Pickle) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Some(config) = entry(pickle, "config").filter(describes_a_network) {
        found.insert("config".to_string(), config.to_string());
    }
    if let Some(arguments) = entry(pickle, "args").filter(Value::is_object) {
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
    let numbers = ["hidden_size", "depth", "num_heads", "in_channels", "patch_size", "num_classes"];
    is("type", "image_")
        || model["depths"].is_array()
        || is("model_type", "LightningDiT")
        || numbers.iter().all(|key| config[*key].is_u64())
}

fn entry(pickle: &Pickle, name: &str) -> Option<Value> {
    let Node::Dict(pairs) = pickle.node(pickle.root) else { return None };
    let &(_, value) = pairs.iter().rev().find(|pair| pickle.text(pair.0) == Some(name))?;
    let mut left = MAX_SIZE;
    plain(pickle, value, MAX_DEPTH, &mut left)
}

/// A value as JSON; `None` where it is no plain value, or there is too much of it.
fn plain(pickle: &Pickle, id: Id, depth: usize, left: &mut usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    match pickle.node(id) {
        Node::None => Some(Value::Null),
        Node::Bool(value) => Some(Value::Bool(*value)),
        Node::Int(value) => Some(Value::from(*value)),
        Node::Float(value) => Number::from_f64(*value).map(Value::Number),
        Node::Text(text) => {
            *left = left.checked_sub(text.len())?;
            Some(Value::String(text.clone()))
        }
        Node::Tuple(items) | Node::List(items) => {
            let mut values = Vec::new();
            for &item in items {
                values.push(plain(pickle, item, depth, left)?);
            }
            Some(Value::Array(values))
        }
        Node::Dict(pairs) => object(pickle, pairs, depth, left),
        Node::Call { global, state: Some(state), .. } => {
            let namespace = matches!(pickle.node(*global), Node::Global(name)
                if name == "argparse.Namespace");
            match pickle.node(*state) {
                Node::Dict(pairs) if namespace => object(pickle, pairs, depth, left),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The plain values of a dictionary by their keys.
fn object(pickle: &Pickle, pairs: &[(Id, Id)], depth: usize, left: &mut usize) -> Option<Value> {
    let mut map = Map::new();
    for &(key, value) in pairs {
        let key = match pickle.node(key) {
            Node::Text(text) => text.clone(),
            Node::Int(number) => number.to_string(),
            _ => continue,
        };
        *left = left.checked_sub(key.len())?;
        if let Some(value) = plain(pickle, value, depth, left) {
            map.insert(key, value);
        }
    }
    Some(Value::Object(map))
}
