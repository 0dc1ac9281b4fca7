//! Checkpoints as `torch.save` writes them, value by value.

use std::io::{Cursor, Write};

use tintype::burn::module::Module;
use tintype::weights::layout;

/// Numbers in the one storage of a checkpoint, at least as many as its largest tensor has.
const NUMBERS: usize = 1 << 16;

/// A checkpoint of these entries, such as the [sections](section) `model` and `ema`.
pub fn checkpoint(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    saved(&dict(entries))
}

/// The file of one value, such as a section that is the whole checkpoint.
pub fn saved(value: &[u8]) -> Vec<u8> {
    archive(&pickle(value), &vec![0.02; NUMBERS])
}

/// A section of a checkpoint: every tensor of a network, over the one storage.
pub fn section<M: Module>(network: &M) -> Vec<u8> {
    let of_shape = |shape: &[usize]| {
        let shape: Vec<u32> = shape.iter().map(|&n| n as u32).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        tensor("FloatStorage", &shape, &strides)
    };
    let layout = layout(network);
    let tensors = layout.iter().map(|(name, shape)| (name.as_str(), of_shape(shape)));
    dict(&tensors.collect::<Vec<_>>())
}

/// A PyTorch archive with this pickle and a storage "0" of these numbers.
pub fn archive(pickle: &[u8], values: &[f32]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("x/data.pkl", stored).expect("zip");
    zip.write_all(pickle).expect("zip");
    zip.start_file("x/data/0", stored).expect("zip");
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    zip.write_all(&bytes).expect("zip");
    zip.finish().expect("zip").into_inner()
}

/// A whole pickle of one value.
pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02".as_slice(), value, b"."].concat()
}

/// A dictionary.
pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"}(".to_vec();
    for (key, value) in entries {
        out.extend(text(key));
        out.extend(value);
    }
    out.push(b'u');
    out
}

/// A text.
pub fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// An integer below 2³¹.
pub fn number(n: u32) -> Vec<u8> {
    [b"J".as_slice(), &n.to_le_bytes()].concat()
}

/// Arguments of a tensor over the storage "0" of a class such as `FloatStorage`.
pub fn arguments(class: &str, size: &[u32], stride: &[u32]) -> Vec<u8> {
    let mut out = b"((".to_vec();
    out.extend(text("storage"));
    out.extend(format!("ctorch\n{class}\n").into_bytes());
    out.extend(text("0"));
    out.extend(text("cpu"));
    out.extend(number(4));
    out.extend(b"tQ");
    out.extend(number(0));
    for axes in [size, stride] {
        out.push(b'(');
        axes.iter().for_each(|&n| out.extend(number(n)));
        out.push(b't');
    }
    out.extend(b"\x89}t");
    out
}

/// `_rebuild_tensor_v2` of [`arguments`].
pub fn tensor(class: &str, size: &[u32], stride: &[u32]) -> Vec<u8> {
    called("torch._utils _rebuild_tensor_v2", &arguments(class, size, stride))
}

/// A function, named "module name", called with a tuple.
pub fn called(function: &str, arguments: &[u8]) -> Vec<u8> {
    [global(function).as_slice(), arguments, b"R"].concat()
}

/// A global, named "module name".
pub fn global(name: &str) -> Vec<u8> {
    let (module, name) = name.split_once(' ').expect("module and name");
    format!("c{module}\n{name}\n").into_bytes()
}

/// A tuple.
pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".as_slice(), &items.concat(), b"t"].concat()
}
