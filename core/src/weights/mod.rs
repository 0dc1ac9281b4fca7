//! Checkpoints: reading them safely, matching them to a network, writing them.
//!
//! Containers are safetensors (one file, or shards with an index) and PyTorch's `.pt`, `.ckpt` and
//! `.bin`. Nothing in a file is ever executed and no size in it is trusted. Names are the authors',
//! but that an autoencoder under diffusers' names is renamed as it is opened ([`from_diffusers`]), and
//! any checkpoint by a table of names ([`Rename`]), which [`propose`] makes. A network is compared with
//! the file's names and shapes before anything is computed; see [`Report`].

mod container;
mod diffusers;
mod dtypes;
#[cfg(feature = "files")]
mod files;
#[cfg(feature = "autodiff")]
mod flat;
mod kinds;
mod load;
mod names;
mod pattern;
mod pickle;
mod prefixes;
mod proposal;
mod pytorch;
mod rebuild;
mod rename;
mod report;
mod safetensors;
mod sections;
mod source;
mod store;
mod training;

pub use diffusers::from_diffusers;
pub use dtypes::memory_for_inference;
#[cfg(feature = "files")]
pub use files::{
    autoencoder_in, is_autoencoder_config, open, open_autoencoder, open_average, renamed,
};
#[cfg(feature = "autodiff")]
pub use flat::{
    Flat, Which, computing_in, flat, flat_gradients, gradients, take_flat, views, with_flat,
    with_trained,
};
pub use load::{
    Loaded, compare, layout, layout_in_order, load, load_for_inference, parameter_count, snapshot,
};
pub use proposal::{Absent, Ambiguous, Basis, Proposal, ProposedRule, propose, shared_shapes};
pub use rename::{Rename, RenameError, RuleProblem};
pub use report::{Report, ShapeMismatch};
pub use safetensors::{SaveError, write as write_safetensors, write_to as write_safetensors_to};
pub use source::Source;
pub use store::{Dtype, TensorView, Weights};

/// A file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Weights of the network.
    Network,
    /// Configuration of the network, where its weights do not hold it.
    Configuration,
    /// The autoencoder of a latent model.
    Autoencoder,
    /// Mean and standard deviation of the latents.
    Statistics,
    /// The network of autoguidance.
    Guide,
}

/// What can be wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is not what its name says, or is damaged.
    #[error("{file}: {problem}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong, and the way out where there is one.
        problem: String,
    },
    /// The weights do not tell all that a configuration does.
    #[error("{file}: {reason}")]
    NeedsConfiguration {
        /// The file.
        file: String,
        /// What cannot be told.
        reason: String,
    },
    /// An autoencoder where a network was expected.
    #[error("{file}: it is an autoencoder")]
    Autoencoder {
        /// The file.
        file: String,
    },
    /// The file holds another network.
    #[error("{file}: {report}")]
    Mismatch {
        /// The file.
        file: String,
        /// Tensor by tensor.
        report: Box<Report>,
    },
    /// A tensor that is needed and is of a kind that cannot be read.
    #[error("{file}: tensor {tensor:?} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{file}: tensor {tensor:?} holds values that are not finite; the training diverged, use an earlier checkpoint"
    )]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The configuration does not describe a network.
    #[error(transparent)]
    Config(#[from] crate::config::InvalidConfig),
    /// The table of names cannot be read, or does not suit the file.
    #[error(transparent)]
    Names(#[from] RenameError),
}

impl WeightsError {
    /// The file that is missing, or that this one should be given as; `None` for other errors.
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::NeedsConfiguration { .. } => Some(Part::Configuration),
            Self::Autoencoder { .. } => Some(Part::Autoencoder),
            _ => None,
        }
    }
}
