//! PyTorch's tensors: the calls that `torch.save` writes for them.

use std::sync::Arc;

use super::pickle::{Id, Node, Pickle};
use super::pytorch::{Container, Slice, storage_reference};
use super::source::Bytes;
use super::store::{Dtype, TensorView};

/// Most wrappers around a tensor: a parameter with attributes of a subclass has three.
const MAX_WRAPPERS: usize = 4;
/// Most axes of a tensor, as PyTorch has it, and most arguments and metadata. A pickle may give one list, or one text, to
/// a million tensors.
const MAX_LISTED: usize = 64;
/// Longest name of a function, a type or a storage, in bytes.
const MAX_NAME: usize = 256;

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
    match (brief(function)?.rsplit('.').next().unwrap_or_default(), arguments) {
        ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => strided(container, arguments, None),
        // Of types without a storage class of their own; the type is an argument.
        ("_rebuild_tensor_v3", &[_, _, _, _, _, _, dtype, ..]) => {
            let Node::Global(name) = pickle.node(dtype) else {
                return Err("its type has no name".into());
            };
            let dtype = named(brief(name)?)
                .ok_or_else(|| format!("elements of type {name} are not supported"))?;
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

/// Refuses a bit of lazy arithmetic that a tensor's metadata sets: its values are not those that are stored.
fn refuse_bits(pickle: &Pickle, metadata: Id) -> Result<(), String> {
    let Node::Dict(pairs) = pickle.node(metadata) else { return Ok(()) };
    if pairs.len() > MAX_LISTED {
        return Err(format!("it has {} entries of metadata, above {MAX_LISTED}", pairs.len()));
    }
    let set = pairs.iter().filter(|pair| *pickle.node(pair.1) == Node::Bool(true));
    let bit = set.filter_map(|pair| pickle.text(pair.0)).find(|bit| ["neg", "conj"].contains(bit));
    bit.map_or(Ok(()), |bit| Err(format!("tensors with the {bit} bit are not supported")))
}

/// A name of the file where it is one that PyTorch has.
fn brief(name: &str) -> Result<&str, String> {
    match name.len() <= MAX_NAME {
        true => Ok(name),
        false => Err(format!("one of its names has {} bytes", name.len())),
    }
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
    if arguments.len() > MAX_LISTED {
        return Err(format!("it has {} arguments", arguments.len()));
    }
    for &metadata in arguments.iter().skip(6) {
        refuse_bits(pickle, metadata)?;
    }
    let Node::Persistent(reference) = *pickle.node(storage) else {
        return Err("it has no storage".into());
    };
    let (key, class) = storage_reference(pickle, reference).ok_or("its storage has no name")?;
    let (key, class) = (brief(key)?, brief(class)?);
    let elements = || {
        let name = class.rsplit('.').next().unwrap_or(class);
        format!("elements of type {} are not supported", name.trim_end_matches("Storage"))
    };
    let dtype = dtype.or_else(|| super::pytorch::dtype(class)).ok_or_else(elements)?;
    let storage = container
        .storages
        .get(key)
        .ok_or_else(|| format!("its storage {key} is not in the file; it is truncated"))?;
    let start = natural(pickle, offset)
        .and_then(|offset| offset.checked_mul(dtype.size()))
        .ok_or("its offset is not a number")?;
    let shape = axes(pickle, size, "shape is")?;
    let strides = axes(pickle, stride, "strides are")?;
    let slice = Bytes::Memory(Arc::new(Slice(storage.clone())));
    TensorView::new(dtype, shape, Some(strides), start, slice)
}

fn natural(pickle: &Pickle, id: Id) -> Option<usize> {
    pickle.int(id).and_then(|i| usize::try_from(i).ok())
}

/// The numbers of the axes; `what` begins a sentence on those that are none.
fn axes(pickle: &Pickle, id: Id, what: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("its {what} not a list of numbers");
    let items = pickle.items(id).ok_or_else(wrong)?;
    if items.len() > MAX_LISTED {
        return Err(format!("it has {} axes, above {MAX_LISTED}", items.len()));
    }
    items.iter().map(|&item| natural(pickle, item).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use tintype_test_models::pickles::{
        archive, arguments, called, dict, number, pickle, tensor, text,
    };

    use crate::weights::Weights;

    fn open(entries: &[(&str, Vec<u8>)]) -> Weights {
        let file = archive(&pickle(&dict(entries)), &[1.0]);
        Weights::from_bytes(file, "x.pt").expect("one tensor can be read")
    }

    #[test]
    fn a_tensor_has_as_many_axes_as_pytorch_lets_it() {
        let of_rank = |rank| tensor("FloatStorage", &vec![1; rank], &vec![1; rank]);
        let weights = open(&[("w", of_rank(64)), ("deep", of_rank(65))]);
        assert_eq!(weights.tensors["w"].shape, [1; 64]);
        assert_eq!(weights.unreadable["deep"], "it has 65 axes, above 64");
    }

    /// What a million tensors may share is not read whole for each of them.
    #[test]
    fn what_describes_a_tensor_is_short() {
        let described = |metadata: &[(&str, Vec<u8>)], more: usize| {
            let mut list = arguments("FloatStorage", &[1], &[1]);
            list.pop();
            list.extend(dict(metadata));
            list.extend(number(0).repeat(more));
            list.push(b't');
            called("torch._utils _rebuild_tensor_v2", &list)
        };
        let long = "x".repeat(257);
        let function = format!("torch._utils _rebuild_{long}");
        let weights = open(&[
            ("w", described(&[("note", text("x"))], 0)),
            ("entries", described(&vec![("note", text("x")); 65], 0)),
            ("arguments", described(&[], 60)),
            ("class", tensor(&long, &[1], &[1])),
            ("function", called(&function, &arguments("FloatStorage", &[1], &[1]))),
        ]);
        assert_eq!(weights.tensors["w"].to_f32(), [1.0]);
        for (name, reason) in [
            ("entries", "it has 65 entries of metadata, above 64"),
            ("arguments", "it has 67 arguments"),
            ("class", "one of its names has 263 bytes"),
            ("function", "one of its names has 279 bytes"),
        ] {
            assert_eq!(weights.unreadable[name], reason);
        }
    }
}
