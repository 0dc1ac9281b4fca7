//! How many classes a table of label embeddings has, and whether its last row is the null class.
//!
//! The table has a null row where labels were dropped in training. Its number of rows alone does not tell: 11
//! rows may be ten classes and the null class, or eleven classes.

use serde_json::Value;

use super::tensors::{is_json, metadata, problem, shape};
use crate::weights::{Weights, WeightsError};

/// The table of label embeddings in checkpoints of DiTs.
pub(super) const TABLE: &str = "y_embedder.embedding_table.weight";

/// Classes of the data sets that networks are trained on (CIFAR-10, CIFAR-100, ImageNet). A table of so many rows
/// is one without a null row: one class less than a data set has is rare.
const WITHOUT_NULL: [usize; 3] = [10, 100, 1000];
/// ImageNet's classes, whose count is told by the rows: every published table has 1000 or 1001.
const IMAGENET: [usize; 2] = [1000, 1001];

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub classes: usize,
    pub null_row: bool,
    /// Whether that is known, and not assumed.
    told: bool,
}

/// Rows of the table, where there is one.
pub(super) fn rows(weights: &Weights) -> Option<usize> {
    weights.tensors.get(TABLE)?.shape.first().copied()
}

/// The classes of a checkpoint, by what its metadata says (configuration, training arguments, class names)
/// and else by the number of rows.
pub(super) fn read(weights: &Weights) -> Result<Rows, WeightsError> {
    let rows = shape(weights, TABLE, 2)?[0];
    let null_row = told(weights, rows)?;
    let assumed = !WITHOUT_NULL.contains(&rows);
    let classes = |null_row: bool| rows.saturating_sub(usize::from(null_row));
    Ok(match null_row {
        Some(null_row) => Rows { classes: classes(null_row), null_row, told: true },
        None => {
            Rows { classes: classes(assumed), null_row: assumed, told: IMAGENET.contains(&rows) }
        }
    })
}

/// Whether there is a null row, where the metadata tells.
fn told(weights: &Weights, rows: usize) -> Result<Option<bool>, WeightsError> {
    let config: Value = match metadata(weights).filter(|text| is_json(text)) {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| problem(weights, format!("its configuration cannot be read: {e}")))?,
        None => Value::Null,
    };
    // Under these keys other programs may have any text.
    let json = |key: &str| -> Value {
        let text = weights.metadata.get(key).map_or("", String::as_str);
        serde_json::from_str(text).unwrap_or_default()
    };
    let (arguments, names) = (json("args"), json("classes"));
    let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let counts = [
        number(&config["num_classes"]),
        number(&config["data"]["num_classes"]),
        number(&arguments["num_classes"]),
        names.as_array().map(Vec::len),
    ];
    for count in counts.into_iter().flatten() {
        if count == rows {
            return Ok(Some(false));
        }
        if count.checked_add(1) == Some(rows) {
            return Ok(Some(true));
        }
    }
    let dropout = [&config["class_dropout_prob"], &arguments["cfg_prob"]];
    let dropout = dropout.into_iter().find_map(Value::as_f64);
    Ok(dropout.map(|probability| probability > 0.0))
}

/// A sentence where the number of classes is assumed: neither a configuration nor anything else in the
/// checkpoint says whether it was trained with class dropout.
pub(super) fn class_note(weights: &Weights) -> Option<String> {
    if metadata(weights).is_some_and(|text| !is_json(text)) {
        return None;
    }
    let Rows { classes, null_row, told } = read(weights).ok()?;
    let rows = rows(weights)?;
    let null = match null_row {
        true => "and the null class",
        false => "without a null class, as trained without class dropout",
    };
    (!told).then(|| {
        format!(
            "{}: {rows} rows of class embeddings are taken for {classes} classes {null}; a configuration tells",
            weights.file
        )
    })
}
