//! The networks, one file a paper.
//!
//! Every network is made by a serialisable configuration: `config.init(&device)` gives the
//! untrained network with lazily created parameters, [`crate::weights::load`] fills it from a
//! checkpoint under the authors' names.

pub mod hdit;
pub mod hidit;
pub mod lightningdit;
pub mod sit;
pub mod vavae;

/// A configuration that does not describe a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration: {0}")]
pub struct InvalidConfig(pub String);

/// Fails with the message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::model::InvalidConfig(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
