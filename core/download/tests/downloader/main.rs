//! Downloads from a Hub on this machine that does what real ones do, and what they should not.
//!
//! Downloads that are killed, that meet others, or that have an environment of their own are
//! [processes of their own](child).

mod child;
mod first;
mod kept;
mod killed;
mod layout;
mod listing;
mod offline;
mod plain;
mod proxies;
mod refused;
mod removal;
mod resume;
mod space;
mod support;
mod together;
mod token;
mod waiting;
