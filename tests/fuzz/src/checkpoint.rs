//! Reads all of a checkpoint, and asks what network it holds.

use std::io;
use std::sync::Arc;

use tintype::generate::LatentStats;
use tintype::model::{autoencoder_config, detect, notes};
use tintype::weights::{Source, Weights};

/// Elements that are read of one checkpoint, counted once for each axis and once more. A tensor may repeat
/// its values up to 2²⁸ times.
const MOST_ELEMENTS: usize = 1 << 18;

/// Reads tensors, names and metadata.
pub fn read(weights: &Weights) {
    let mut left = MOST_ELEMENTS;
    let mut is_whole = true;
    for (name, view) in &weights.tensors {
        let cost = view.len().saturating_mul(view.shape.len() + 1);
        let Some(rest) = left.checked_sub(cost) else {
            is_whole = false;
            continue;
        };
        left = rest;
        let bytes = view.to_bytes();
        assert_eq!(bytes.len(), view.len() * view.dtype.size(), "{name}");
        assert_eq!(view.to_f32().len(), view.len(), "{name}");
        assert_eq!(view.to_i64().len(), view.len(), "{name}");
        if let Some(slice) = view.slice(0, view.len()) {
            assert_eq!(slice, bytes, "{name}");
        }
        assert!(view.is_finite().is_ok(), "{name} ends behind the file");
    }
    weights.fingerprint();
    weights.averages();
    weights.clone().take_left_out();
    notes(weights);
    if let Ok(architecture) = detect(weights) {
        let _ = architecture.default_settings().validate(&architecture);
    }
    let _ = autoencoder_config(weights);
    if is_whole && let Ok(stats) = LatentStats::from_weights(weights) {
        let values: usize = stats.shape.iter().product();
        assert_eq!([stats.mean.len(), stats.std.len()], [values; 2]);
    }
}

/// A file that is read piece by piece, as in a browser.
pub struct Pieces(Vec<u8>);

impl Pieces {
    /// A file of these bytes.
    pub fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self(bytes.to_vec()))
    }
}

impl Source for Pieces {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(into.len());
        let bytes = end.and_then(|end| self.0.get(start..end));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
