//! Initialization of a diffusion network from another run or a published checkpoint: all of it, or all but
//! what a new task needs anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use tintype::burn::tensor::{FloatDType, Tensor, TensorData};
use tintype::weights::{Weights, Which, flat, load, open, snapshot};

use super::diffusion::DiffusionTrainer;
use super::ema::{Ema, FILES, UPDATES};
use super::objective::Objective;

/// The tables of label embeddings, whose rows are the classes.
const LABEL_TABLES: [&str; 2] = ["y_embedder.embedding_table.weight", "class_emb.weight"];

/// What is taken from a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    /// Beginnings of the names of parameters that keep their initialization.
    pub reinit: &'a [String],
    /// Parameters that may be missing there and then keep their initialization.
    pub may_miss: fn(&str) -> bool,
}

impl<O: Objective> DiffusionTrainer<O> {
    /// Initializes network, EMAs and optimizer from a checkpoint of the same or an earlier stage. The table of
    /// labels keeps its initialization where the number of classes is another one. An EMA that the checkpoint
    /// does not have begins with its weights.
    ///
    /// # Errors
    ///
    /// * A file cannot be read, or a weight is not finite.
    /// * A tensor is missing or has another shape, and `taking` does not name it.
    /// * A beginning in `taking.reinit` is that of no parameter.
    pub fn continue_from(&mut self, path: &Path, taking: Taking<'_>) -> Result<()> {
        let mut weights = open(&raw_weights(path))?;
        let own = snapshot(&self.network);
        for start in taking.reinit {
            ensure!(
                own.keys().any(|name| name.starts_with(start)),
                "init.reinit: no parameter's name begins with {start:?}"
            );
        }
        let (mut taken, mut again, mut added) = (0, Vec::new(), Vec::new());
        let mut kept = BTreeSet::new();
        for (name, value) in &own {
            let is_labels = LABEL_TABLES.contains(&name.as_str());
            match weights.tensors.get(name) {
                _ if taking.reinit.iter().any(|start| name.starts_with(start)) => {
                    again.push(name.clone());
                }
                Some(found) if found.shape == value.shape => {
                    taken += 1;
                    continue;
                }
                Some(found) if is_labels && found.shape.get(1..) == value.shape.get(1..) => {
                    let [there, here] = [found, value].map(|view| view.shape[0]);
                    again.push(format!("{name} ({there} rows there, {here} here)"));
                }
                Some(found) => bail!(
                    "{}: {name} has shape {:?}, but the network expects {:?}; add it to init.reinit to initialize it",
                    weights.file,
                    found.shape,
                    value.shape
                ),
                None if is_labels || (taking.may_miss)(name) => added.push(name.clone()),
                None => {
                    bail!("{} lacks {name}; add it to init.reinit to initialize it", weights.file)
                }
            }
            kept.insert(name.clone());
            weights.tensors.insert(name.clone(), value.clone());
        }
        let network = self.network.clone();
        self.network = load(network, &weights, FloatDType::F32, &self.device)?.network;
        let first = path.join(FILES[0]);
        for (i, file) in FILES.iter().enumerate().take(self.emas.len()) {
            let beside = path.join(file);
            self.emas[i] = match beside.exists() {
                true => self.average(i, &open(&beside)?, &kept)?,
                // A file is all there is, and may be an EMA.
                false if !first.exists() => self.average(i, &weights, &kept)?,
                false => self.emas[i].begun_with(flat(&self.network, Which::All), 0),
            };
        }
        let optimizer = path.join("optimizer.safetensors");
        if optimizer.exists() {
            let mut parameters = flat(&self.network, Which::Trainable);
            parameters.retain(|name, _| !kept.contains(name));
            let device = self.plain_device();
            self.optimizer.take(&open(&optimizer)?, &parameters, &device)?;
        }
        let mut said = format!("init.from {}: {taken} tensors taken", path.display());
        for (what, names) in [("initialized again", again), ("not there, initialized", added)] {
            said += &listed(what, &names);
        }
        self.initialized = Some(said);
        Ok(())
    }

    /// An EMA with the values of a file and the network's own for the tensors that it keeps, after as many
    /// updates as the file says.
    ///
    /// # Errors
    ///
    /// If another tensor is missing or has another size.
    pub(super) fn average(
        &self,
        index: usize,
        weights: &Weights,
        kept: &BTreeSet<String>,
    ) -> Result<Ema> {
        let mut values = flat(&self.network, Which::All);
        let device = self.plain_device();
        for (name, value) in &mut values {
            if kept.contains(name) {
                continue;
            }
            let n = value.dims()[0];
            match weights.tensors.get(name) {
                Some(view) if view.len() == n => {
                    *value = Tensor::from_data(TensorData::new(view.to_f32(), [n]), &device);
                }
                Some(view) => bail!(
                    "{}: {name} has {} values, but the network expects {n}",
                    weights.file,
                    view.len()
                ),
                None => bail!("{} lacks {name}", weights.file),
            }
        }
        let updates = weights.metadata.get(UPDATES).and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(self.emas[index].begun_with(values, updates))
    }
}

/// The file of a checkpoint folder with the raw weights, not the EMA.
fn raw_weights(path: &Path) -> PathBuf {
    let raw = path.join("model.safetensors");
    if raw.exists() { raw } else { path.into() }
}

/// The first names of a kind of tensors, for a sentence.
fn listed(what: &str, names: &[String]) -> String {
    const SHOWN: usize = 4;
    if names.is_empty() {
        return String::new();
    }
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("; {what}: {}{more}", names[..names.len().min(SHOWN)].join(", "))
}
