//! What noise means: flow paths, the Karras preconditioner, guidance and the losses.

pub mod flow;
pub mod guidance;
pub mod karras;
pub mod loss;
pub mod mean_flow;
pub mod time_shift;
