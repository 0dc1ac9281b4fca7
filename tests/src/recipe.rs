//! Weights by recipe: seeded values that are computed instead of stored, described by a manifest.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tintype::weights::{TensorView, Weights};

/// A manifest of tensors.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    tag: String,
    tensors: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    #[serde(default)]
    offset: f64,
    #[serde(default)]
    scale: f64,
    #[serde(default)]
    stored: bool,
    sum: f64,
}

impl Manifest {
    /// Reads `x_manifest.json`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a manifest.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// All tensors; those that are stored come from `file` as `stored.NAME`.
    ///
    /// # Errors
    ///
    /// If a stored tensor is missing in `file`, or the sum of a computed one differs from the
    /// manifest's.
    pub fn weights(&self, file: &Weights) -> Result<Weights> {
        let mut tensors = BTreeMap::new();
        for entry in &self.tensors {
            let view = if entry.stored {
                let name = format!("stored.{}", entry.name);
                file.tensors.get(&name).with_context(|| format!("{name} is missing"))?.clone()
            } else {
                let n = entry.shape.iter().product();
                let values = values(&self.tag, &entry.name, entry.offset, entry.scale, n);
                let sum: f64 = values.iter().map(|&v| v as f64).sum();
                ensure!(
                    (sum - entry.sum).abs() <= 1e-9 * (1.0 + n as f64),
                    "{}: {sum}",
                    entry.name
                );
                TensorView::from_f32(entry.shape.clone(), &values).map_err(anyhow::Error::msg)?
            };
            tensors.insert(entry.name.clone(), view);
        }
        Ok(Weights { file: self.tag.clone(), tensors, ..Weights::default() })
    }
}

/// `offset + scale·(2u − 1)` with u from SplitMix64 at counter FNV-1a("tag/name") + index.
pub fn values(tag: &str, name: &str, offset: f64, scale: f64, n: usize) -> Vec<f32> {
    let u = uniforms(tag, name, n);
    u.into_iter().map(|u| (offset + scale * (2.0 * u - 1.0)) as f32).collect()
}

/// The recipe's u, multiples of 2⁻²⁴ in 0…1.
pub fn uniforms(tag: &str, name: &str, n: usize) -> Vec<f64> {
    let key = format!("{tag}/{name}").bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
    });
    let one = |i: u64| {
        let mut z = key.wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / (1u64 << 24) as f64
    };
    (0..n as u64).map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_recipe_has_its_known_first_values() {
        let values = super::values("eval-dev-1", "a", 0.0, 1.0, 4);
        assert_eq!(values, [0.8095604, 0.9768319, -0.8345268, -0.9671664]);
    }
}
