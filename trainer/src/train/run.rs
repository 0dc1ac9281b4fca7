//! A training run, and how it ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::checkpoint;
use super::config::Config;

/// The file of a run's folder that its owner locks.
pub const LOCK: &str = "lock";

/// A training run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Configuration.
    pub config: Config,
    /// Output folder.
    pub out: PathBuf,
    /// Set by SIGINT, SIGTERM or SIGHUP: stop after this step with a checkpoint.
    pub interrupted: Arc<AtomicBool>,
    /// Disable the progress bar.
    pub quiet: bool,
}

/// Outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After its last step.
    Done,
    /// By SIGINT, SIGTERM or SIGHUP, with a checkpoint; the same command resumes.
    Interrupted,
}

/// Whether a folder holds a run.
pub fn is_run(path: &Path) -> bool {
    path.join(checkpoint::FOLDER).is_dir()
}
