//! Training: the four recipes, the training loop, checkpoints, logging.

pub mod adamw;
pub mod checkpoint;
pub mod classes;
pub mod comm;
pub mod config;
pub mod diffusion;
pub mod ema;
pub mod epoch_sampler;
pub mod hdit;
pub mod hidit;
pub mod host;
pub mod latents;
pub mod lightningdit;
pub mod log;
pub mod objective;
pub mod prefetch;
pub mod preview;
pub mod recipe;
pub mod recompute;
pub mod run;
pub mod teacher;
pub mod trainer;
pub mod vae;
