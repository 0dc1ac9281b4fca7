//! The networks, one file (or folder) a paper.
//!
//! Every network is made by a serialisable configuration: `config.init(&device)` gives the
//! untrained network with lazily created parameters, [`crate::weights::load`] fills it from a
//! checkpoint under the authors' names.
//!
//! What the rest of the library asks of a network is [`DiffusionModel`]. To add one, write its file and name
//! it in [`FAMILIES`]; programs that embed the library may [`register`] theirs.

mod architecture;
mod autoencoder;
mod classes;
mod detect;
pub mod dinov2;
pub mod ditdh;
pub mod hdit;
pub mod hidit;
pub mod imf;
pub mod jit;
pub mod lightningdit;
pub mod meanflow;
pub mod pmf;
pub mod rae;
mod registry;
mod shapes;
pub mod sit;
mod tensors;
pub mod vavae;

pub use crate::config::InvalidConfig;
pub(crate) use crate::config::ensure;
pub use crate::diffusion::guidance::Interval;
pub use architecture::{
    Architecture, Clock, DiffusionModel, Family, LatentSpace, Network, Process, Untrained,
};
pub use autoencoder::{Autoencoder, Decoder, autoencoder_config};
pub use detect::{detect, notes, vae_config};
pub use registry::{FAMILIES, families, is_known, register};
pub use sit::sit_config;

/// Most blocks of a network, in all of its levels, and most teachers: far more than any has, and few enough to list.
const MAX_DEPTH: usize = 4096;
/// Largest width, and most channels: far more than any network has. With the other sizes here few enough that no size of
/// a tensor overflows 64 bits, nor a number of tokens or of a patch's values 32.
const MAX_WIDTH: usize = 1 << 16;
/// Most classes of a network.
pub const MAX_CLASSES: usize = 1 << 20;
/// Largest side of an image or a latent, in its pixels.
const MAX_SIDE: usize = 1 << 14;
/// Most values of a patch, which a layer takes and another one gives: those of an image of 512² pixels are fewer.
const MAX_PATCH: usize = 1 << 20;

/// Values of a patch of these sides.
fn patch_values([height, width]: [usize; 2], channels: usize) -> usize {
    height.saturating_mul(width).saturating_mul(channels)
}

/// Refuses sizes above the most that they may be.
///
/// * `sizes`: name, value and the most of each
fn bounded<const N: usize>(sizes: [(&str, usize, usize); N]) -> Result<(), InvalidConfig> {
    for (name, value, most) in sizes {
        ensure!(value <= most, "{name} {value} is above {most}");
    }
    Ok(())
}
