//! PyTorch's tensors: the calls that `torch.save` writes for them.

use std::sync::Arc;

use super::pickle::{Id, Node, Pickle};
use super::pytorch::{Container, Slice, storage_reference};
use super::source::Bytes;
use super::store::{Dtype, TensorView};

/// Most wrappers around a tensor: a parameter with attributes of a subclass has three.
const MAX_WRAPPERS: usize = 4;
/// Most axes of a tensor. A shape is stored once and copied for each tensor that has it.
const MAX_AXES: usize = 16;

/// The tensor that a value is, if it is one; else why it cannot be read.
pub(super) fn tensor(container: &Container, id: Id) -> Option<Result<TensorView, String>> {
    let (function, arguments) = call(&container.pickle, id)?;
    let makes_tensors = function.starts_with("torch._utils._rebuild_")
        || function.starts_with("torch._tensor._rebuild_");
    makes_tensors.then(|| rebuild(container, function, arguments, MAX_WRAPPERS))
}

/// Name and arguments of a call.
fn call(pickle: &Pickle, id: Id) -> Option<(&str, &[Id])> {
    let Node::Call { global, arguments, .. } = pickle.node(id) else { return None };
    let Node::Global(function) = pickle.node(*global) else { return None };
    Some((function.as_str(), pickle.items(*arguments)?))
}

fn rebuild(
    container: &Container,
    function: &str,
    arguments: &[Id],
    wrappers: usize,
) -> Result<TensorView, String> {
    let pickle = &container.pickle;
    match (function.rsplit('.').next().unwrap_or_default(), arguments) {
        ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => strided(container, arguments, None),
        // Of types without a storage class of their own; the type is an argument.
        ("_rebuild_tensor_v3", &[_, _, _, _, _, _, dtype, ..]) => {
            let Node::Global(name) = pickle.node(dtype) else {
                return Err("its type has no name".into());
            };
            let dtype =
                named(name).ok_or_else(|| format!("elements of type {name} are not supported"))?;
            strided(container, arguments, Some(dtype))
        }
        ("_rebuild_parameter" | "_rebuild_parameter_with_state", &[inner, ..]) if wrappers > 0 => {
            let (function, arguments) =
                call(pickle, inner).ok_or("it is a parameter without a tensor")?;
            rebuild(container, function, arguments, wrappers - 1)
        }
        // A tensor with attributes, or of a subclass: the function, the type, its arguments, the attributes.
        ("_rebuild_from_type_v2" | "_rebuild_from_type", &[function, _, arguments, ..])
            if wrappers > 0 =>
        {
            let (Node::Global(function), Some(arguments)) =
                (pickle.node(function), pickle.items(arguments))
            else {
                return Err("it is a tensor of an unknown type".into());
            };
            rebuild(container, function, arguments, wrappers - 1)
        }
        (kind, _) => Err(format!("{} tensors are not supported", described(kind))),
    }
}

/// What people call the tensors that a function makes.
fn described(function: &str) -> String {
    match function {
        "_rebuild_qtensor" => "quantized".into(),
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "sparse".into(),
        "_rebuild_nested_tensor" => "nested".into(),
        "_rebuild_meta_tensor_no_storage" => "meta (without values)".into(),
        other => format!("{other}'s"),
    }
}

/// The bit of lazy arithmetic that a tensor's metadata sets: its values are not those that are stored.
fn set_bit(pickle: &Pickle, id: Id) -> Option<&str> {
    let Node::Dict(pairs) = pickle.node(id) else { return None };
    let set = pairs.iter().filter(|pair| *pickle.node(pair.1) == Node::Bool(true));
    set.filter_map(|pair| pickle.text(pair.0)).find(|name| ["neg", "conj"].contains(name))
}

/// The type of a name such as `torch.float32`.
fn named(name: &str) -> Option<Dtype> {
    Some(match name.strip_prefix("torch.")? {
        "float64" | "double" => Dtype::F64,
        "float32" | "float" => Dtype::F32,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" | "long" => Dtype::I64,
        "int32" | "int" => Dtype::I32,
        "int16" | "short" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::Bool,
        _ => return None,
    })
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, …)`; `dtype` where it is not the storage's.
fn strided(
    container: &Container,
    arguments: &[Id],
    dtype: Option<Dtype>,
) -> Result<TensorView, String> {
    let pickle = &container.pickle;
    let &[storage, offset, size, stride, ..] = arguments else {
        return Err("it has too few arguments".into());
    };
    if let Some(bit) = arguments.iter().skip(6).find_map(|id| set_bit(pickle, *id)) {
        return Err(format!("tensors with the {bit} bit are not supported"));
    }
    let Node::Persistent(reference) = *pickle.node(storage) else {
        return Err("it has no storage".into());
    };
    let (key, class) = storage_reference(pickle, reference).ok_or("its storage has no name")?;
    let elements = || {
        let name = class.rsplit('.').next().unwrap_or(class);
        format!("elements of type {} are not supported", name.trim_end_matches("Storage"))
    };
    let dtype = dtype.or_else(|| super::pytorch::dtype(class)).ok_or_else(elements)?;
    let storage = container
        .storages
        .get(key)
        .ok_or_else(|| format!("its storage {key} is not in the file; it is truncated"))?;
    let natural = |id: Id| pickle.int(id).and_then(|i| usize::try_from(i).ok());
    let axes = |id: Id| -> Option<Vec<usize>> {
        let items = pickle.items(id).filter(|items| items.len() <= MAX_AXES)?;
        items.iter().map(|&i| natural(i)).collect()
    };
    let start = natural(offset)
        .and_then(|offset| offset.checked_mul(dtype.size()))
        .ok_or("its offset is not a number")?;
    let shape = axes(size).ok_or("its shape is not a list of a few numbers")?;
    let strides = axes(stride).ok_or("its strides are not a list of a few numbers")?;
    let slice = Bytes::Memory(Arc::new(Slice(storage.clone())));
    TensorView::new(dtype, shape, Some(strides), start, slice)
}
