//! Writes a dictionary of float32 tensors as PyTorch's `torch.save` does, for the tools that read
//! `latents_stats.pt`.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A tensor of the file.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its key.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its values in row-major order.
    pub values: &'a [f32],
}

/// The bytes of a `.pt` file that `torch.load` opens with `weights_only`.
///
/// # Errors
///
/// If the archive cannot be written, as where it is too large for zip.
pub fn to_bytes(entries: &[Entry<'_>]) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // PyTorch maps storages directly, so they are stored and aligned.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(64);
    zip.start_file("archive/data.pkl", options)?;
    zip.write_all(&pickle(entries))?;
    zip.start_file("archive/byteorder", options)?;
    zip.write_all(b"little")?;
    for (key, entry) in entries.iter().enumerate() {
        zip.start_file(format!("archive/data/{key}"), options)?;
        let bytes: Vec<u8> = entry.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        zip.write_all(&bytes)?;
    }
    zip.start_file("archive/version", options)?;
    zip.write_all(b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The pickle (protocol 2) of `{name: torch._utils._rebuild_tensor_v2(storage, 0, shape, strides,
/// False, OrderedDict())}`.
fn pickle(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec(); // PROTO 2, EMPTY_DICT, MARK
    for (key, entry) in entries.iter().enumerate() {
        text(&mut out, entry.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n("); // GLOBAL, MARK
        // The storage: BINPERSID of ("storage", torch.FloatStorage, key, "cpu", count).
        out.push(b'(');
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        number(&mut out, entry.values.len());
        out.extend(b"tQ"); // TUPLE, BINPERSID
        number(&mut out, 0);
        let strides = (0..entry.shape.len()).map(|i| entry.shape[i + 1..].iter().product());
        for axis in [entry.shape.to_vec(), strides.collect()] {
            out.push(b'(');
            axis.iter().for_each(|&n| number(&mut out, n));
            out.push(b't');
        }
        out.push(b'\x89'); // NEWFALSE: requires_grad
        out.extend(b"ccollections\nOrderedDict\n)R"); // no hooks
        out.extend(b"tR"); // TUPLE, REDUCE
    }
    out.extend(b"u."); // SETITEMS, STOP
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X'); // BINUNICODE
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn number(out: &mut Vec<u8>, n: usize) {
    out.push(b'J'); // BININT
    out.extend((n as i32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype::weights::Weights;

    #[test]
    fn our_own_reader_reads_it() {
        let values = [1.5f32, -2.0, 0.25, 7.0, 0.0, 3.0];
        let entries = [
            Entry { name: "mean", shape: &[1, 3, 1, 1], values: &values[..3] },
            Entry { name: "std", shape: &[3], values: &values[3..] },
        ];
        let file = Weights::from_bytes(to_bytes(&entries).unwrap(), "x.pt").unwrap();
        assert_eq!(file.tensors["mean"].shape, [1, 3, 1, 1]);
        assert_eq!(file.tensors["mean"].to_f32(), values[..3]);
        assert_eq!(file.tensors["std"].to_f32(), values[3..]);
    }
}
