//! The report of an evaluation, as text and as JSON.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::extraction::ExtractedFeatures;
use super::extractor::FeatureExtractor;
use super::protocol::Protocol;
use super::score::Score;

/// A set that was evaluated.
#[derive(Clone, Debug)]
pub struct SetInfo {
    path: PathBuf,
    /// Number of images; `None` if only precomputed statistics were used.
    n: Option<usize>,
    sizes: BTreeSet<[usize; 2]>,
}

impl SetInfo {
    /// Describes a set by its path and extracted features.
    pub fn new(path: &Path, extracted: &[(&FeatureExtractor, ExtractedFeatures)]) -> Self {
        let first = extracted.first().map(|(_, extracted)| extracted);
        Self {
            path: path.into(),
            n: first.map(|extracted| extracted.n),
            sizes: first.map_or_else(BTreeSet::new, |extracted| extracted.sizes().clone()),
        }
    }

    /// Caveats about image sizes.
    pub fn notes(sets: &[Self]) -> Vec<String> {
        let mixed = sets.iter().filter(|set| set.sizes.len() > 1).map(|set| {
            format!(
                "{} has images of {} sizes; each was resized from its own size",
                set.path.display(),
                set.sizes.len()
            )
        });
        let mut notes: Vec<String> = mixed.collect();
        if let [a, b] = sets
            && let (1, 1) = (a.sizes.len(), b.sizes.len())
            && a.sizes != b.sizes
        {
            notes.push(format!("the samples are {} and the reference is {}", a.size(), b.size()));
        }
        notes
    }

    fn size(&self) -> String {
        match self.sizes.first() {
            Some([w, h]) if self.sizes.len() == 1 => format!("{w} × {h}"),
            _ => format!("{} sizes", self.sizes.len()),
        }
    }

    fn describe(&self) -> String {
        match self.n {
            Some(n) => format!("{}: {n} images of {}", self.path.display(), self.size()),
            None => format!("{}: precomputed statistics", self.path.display()),
        }
    }

    fn json(&self) -> Value {
        let sizes: Vec<&[usize; 2]> = self.sizes.iter().take(16).collect();
        json!({"path": self.path.display().to_string(), "images": self.n, "sizes": sizes})
    }
}

/// The result of an evaluation.
#[derive(Clone, Debug)]
pub struct Report {
    /// Evaluation protocol.
    pub protocol: Protocol,
    /// Feature extractors: network, preprocessing and weights.
    pub extractors: Vec<String>,
    /// Samples and reference.
    pub sets: Vec<SetInfo>,
    /// The metrics.
    pub scores: Vec<Score>,
    /// Caveats.
    pub notes: Vec<String>,
}

impl Report {
    /// The report as JSON; `metrics` uses torch-fidelity's keys if they exist.
    pub fn json(&self) -> Value {
        let sets: Map<String, Value> = ["samples", "reference"]
            .into_iter()
            .zip(&self.sets)
            .map(|(name, set)| (name.into(), set.json()))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "protocol": self.protocol,
            "networks": self.extractors, "sets": sets, "metrics": metrics(&self.scores),
            "notes": self.notes,
        })
    }
}

/// Scores by key; one with a standard deviation becomes `_mean` and `_std`, as in torch-fidelity.
pub fn metrics(scores: &[Score]) -> Value {
    let mut all = Map::new();
    for Score { key, value, deviation, .. } in scores {
        match deviation {
            None if key == "inception_score" => {
                all.insert(format!("{key}_mean"), json!(value));
            }
            None => {
                all.insert(key.clone(), json!(value));
            }
            Some(deviation) => {
                all.insert(format!("{key}_mean"), json!(value));
                all.insert(format!("{key}_std"), json!(deviation));
            }
        }
    }
    Value::Object(all)
}

/// Formats scores as a table.
///
/// # Errors
///
/// What `f` gives.
pub fn table(f: &mut impl fmt::Write, scores: &[Score]) -> fmt::Result {
    let width = scores.iter().map(|score| score.label.chars().count()).max().unwrap_or(0);
    for Score { label, value, deviation, .. } in scores {
        // Kernel distances are small.
        let digits = if value.abs() < 0.01 { 6 } else { 4 };
        write!(f, "{label:<width$}  {value:>10.digits$}")?;
        match deviation {
            Some(deviation) => writeln!(f, " ± {deviation:.digits$}")?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, set) in ["samples  ", "reference"].iter().zip(&self.sets) {
            writeln!(f, "{name}  {}", set.describe())?;
        }
        writeln!(f, "protocol   {}", self.protocol.name())?;
        for extractor in &self.extractors {
            writeln!(f, "network    {extractor}")?;
        }
        writeln!(f)?;
        table(f, &self.scores)?;
        for note in &self.notes {
            write!(f, "\nnote: {note}.")?;
        }
        Ok(())
    }
}
