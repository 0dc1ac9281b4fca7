//! Initialization of a diffusion network from another run or a published checkpoint: all of it, or all but
//! what a new task needs anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use tintype::burn::tensor::FloatDType;
use tintype::weights::{Rename, Weights, Which, flat, load, open, renamed, snapshot};

use super::checkpoint;
use super::diffusion::DiffusionTrainer;
use super::ema::{Ema, FILES};
use super::objective::Objective;
use super::run::is_run;
use super::tables::Init;

/// The tables of label embeddings, whose rows are the classes.
const LABEL_TABLES: [&str; 3] = [
    "y_embedder.embedding_table.weight",
    "y_embedder.embedding_table._flax_embedding.weight",
    "class_emb.weight",
];

/// The files that may lie beside a checkpoint's weights, besides the EMAs.
const BESIDE: [&str; 2] = [OPTIMIZER, DISCRIMINATOR];
/// The file with the moments of the optimizer.
const OPTIMIZER: &str = "optimizer.safetensors";
/// The file with the discriminator of an autoencoder's training.
pub const DISCRIMINATOR: &str = "discriminator.safetensors";
/// How often the latest checkpoint of a run in training is opened.
const TRIES: usize = 20;

/// A checkpoint whose files are open, so that nobody can delete them meanwhile.
#[derive(Debug)]
pub struct Opened {
    /// Its place.
    pub path: PathBuf,
    /// The raw weights, not the EMA.
    pub weights: Weights,
    /// What lies beside them, by the names of the files.
    pub beside: BTreeMap<&'static str, Weights>,
    /// What there is to say of the table of names.
    pub note: Option<String>,
}

impl Opened {
    /// Opens a run's latest checkpoint, a checkpoint folder or a file; its raw weights get the names of a table. A
    /// run in training may delete a checkpoint while it is opened; its next one is taken then.
    ///
    /// # Errors
    ///
    /// If the run has no checkpoint, a file cannot be opened, or two tensors would have one name.
    pub fn open(from: &Path, names: Option<&Path>) -> Result<Self> {
        let names = names.map(Rename::open).transpose()?.unwrap_or_default();
        for _ in 1..TRIES {
            let path = latest_of(from)?;
            let opened = Self::open_files(&path, names.clone());
            if path.exists() || !is_run(from) {
                return opened;
            }
        }
        Self::open_files(&latest_of(from)?, names)
    }

    fn open_files(path: &Path, mut names: Rename) -> Result<Self> {
        let weights = renamed(open(&raw_weights(path))?, &mut names)?;
        let mut beside = BTreeMap::new();
        for name in FILES.into_iter().chain(BESIDE) {
            let file = path.join(name);
            if file.exists() {
                beside.insert(name, open(&file)?);
            }
        }
        Ok(Self { path: path.into(), weights, beside, note: names.note() })
    }
}

/// The latest checkpoint of a run; other paths unchanged.
fn latest_of(path: &Path) -> Result<PathBuf> {
    if is_run(path) {
        return match checkpoint::latest(path)? {
            Some((checkpoint, _)) => Ok(checkpoint),
            None => bail!("the run {} has no checkpoint", path.display()),
        };
    }
    Ok(path.into())
}

/// What a run begins with: the same checkpoint for all of its ranks, or `None` if it resumes from its own.
#[derive(Debug)]
pub struct Origin {
    out: PathBuf,
    opened: Mutex<Option<Arc<Opened>>>,
}

impl Origin {
    /// Of the run in a folder.
    pub fn new(out: &Path) -> Self {
        Self { out: out.into(), opened: Mutex::new(None) }
    }

    /// The checkpoint that `init.from` names, opened once; `None` without it, and where the run has a checkpoint
    /// of its own.
    ///
    /// # Errors
    ///
    /// If the run's checkpoints cannot be listed, or as [`Opened::open`].
    pub fn of(&self, init: &Init) -> Result<Option<Arc<Opened>>> {
        let Some(from) = &init.from else { return Ok(None) };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = opened.as_ref() {
            return Ok(Some(opened.clone()));
        }
        if checkpoint::latest(&self.out)?.is_some() {
            return Ok(None);
        }
        let new = Arc::new(Opened::open(from, init.names.as_deref())?);
        *opened = Some(new.clone());
        Ok(Some(new))
    }
}

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
    pub fn continue_from(&mut self, origin: &Opened, taking: Taking<'_>) -> Result<()> {
        let Opened { path, beside, .. } = origin;
        let mut weights = origin.weights.clone();
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
        for (i, file) in FILES.into_iter().enumerate().take(self.emas.len()) {
            self.emas[i] = match beside.get(file) {
                Some(average) => self.average(i, average, &kept)?,
                // A file is all there is, and may be an EMA.
                None if !beside.contains_key(FILES[0]) => self.average(i, &weights, &kept)?,
                None => self.emas[i].begun_with(flat(&self.network, Which::All), 0),
            };
        }
        if let Some(optimizer) = beside.get(OPTIMIZER) {
            let mut parameters = flat(&self.network, Which::Trainable);
            parameters.retain(|name, _| !kept.contains(name));
            let device = self.plain_device();
            self.optimizer.take(optimizer, &parameters, &device)?;
        }
        let mut said = format!("init.from {}: {taken} tensors taken", path.display());
        for (what, names) in [("initialized again", again), ("not there, initialized", added)] {
            said += &listed(what, &names);
        }
        said.extend(origin.note.iter().map(|note| format!("; {note}")));
        self.initialized = Some(said);
        Ok(())
    }

    /// An EMA with the values of a file, but the network's own for the tensors that it keeps.
    fn average(&self, index: usize, weights: &Weights, kept: &BTreeSet<String>) -> Result<Ema> {
        self.emas[index].of_file(weights, flat(&self.network, Which::All), kept)
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
