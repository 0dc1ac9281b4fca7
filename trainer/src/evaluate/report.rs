//! The result of an evaluation, for people and for programs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::gather::Gathered;
use super::judge::Judge;
use super::protocol::Protocol;
use super::score::Score;

/// A set that was compared.
#[derive(Clone, Debug)]
pub struct SetInfo {
    path: PathBuf,
    /// Images that were judged; `None` where the file's statistics were enough.
    n: Option<usize>,
    sizes: BTreeSet<[usize; 2]>,
}

impl SetInfo {
    /// A set and what was judged of it.
    pub fn new(path: &Path, gathered: &[(&Judge, Gathered)]) -> Self {
        let first = gathered.first().map(|(_, gathered)| gathered);
        Self {
            path: path.into(),
            n: first.map(|gathered| gathered.n),
            sizes: first.map_or_else(BTreeSet::new, |gathered| gathered.sizes().clone()),
        }
    }

    /// What a reader must know about the images.
    pub fn notes(sets: &[Self]) -> Vec<String> {
        let mixed = sets.iter().filter(|set| set.sizes.len() > 1).map(|set| {
            format!(
                "{} has images of {} sizes; each was resized from its own",
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
            None => format!("{}: its statistics", self.path.display()),
        }
    }

    fn json(&self) -> Value {
        let sizes: Vec<&[usize; 2]> = self.sizes.iter().take(16).collect();
        json!({"path": self.path.display().to_string(), "images": self.n, "sizes": sizes})
    }
}

/// The numbers of an evaluation.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose way it followed.
    pub protocol: Protocol,
    /// Networks, what they see, and their weights.
    pub judges: Vec<String>,
    /// Samples and reference.
    pub sets: Vec<SetInfo>,
    /// The metrics.
    pub scores: Vec<Score>,
    /// What a reader of the numbers must know.
    pub notes: Vec<String>,
}

impl Report {
    /// The same for programs: `metrics` has torch-fidelity's keys where it has one.
    pub fn json(&self) -> Value {
        let sets: Map<String, Value> = ["samples", "reference"]
            .into_iter()
            .zip(&self.sets)
            .map(|(name, set)| (name.into(), set.json()))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "protocol": self.protocol,
            "networks": self.judges, "sets": sets, "metrics": metrics(&self.scores),
            "notes": self.notes,
        })
    }
}

/// Scores by key; one with a deviation is two numbers, as torch-fidelity names them.
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

/// Lines of a name and a number each.
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
        for judge in &self.judges {
            writeln!(f, "network    {judge}")?;
        }
        writeln!(f)?;
        table(f, &self.scores)?;
        for note in &self.notes {
            write!(f, "\nnote: {note}.")?;
        }
        Ok(())
    }
}
