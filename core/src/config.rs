//! Configurations that do not describe a network.

/// A configuration that does not describe a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration: {0}")]
pub struct InvalidConfig(pub String);

/// Fails with the message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::config::InvalidConfig(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
