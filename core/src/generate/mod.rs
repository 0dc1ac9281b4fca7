//! A request in, a stream of events out: what the command line, the desktop app and the browser
//! share.

mod autoencoder_stats;
mod batch;
mod between;
mod decoding;
mod file_stem;
mod grid;
mod guide;
mod hybrid;
mod images;
mod latent_map;
mod latent_stats;
mod load;
mod mean_flow;
mod memory;
#[cfg(feature = "files")]
mod model_files;
mod observer;
mod one_by_one;
mod origin;
mod pipeline;
mod previewer;
mod replay;
mod request;
mod run;
mod second_half;

pub use crate::settings::{Sampler, Settings};
pub use between::between;
pub use latent_map::LatentMap;
pub use latent_stats::LatentStats;
pub use load::{LoadError, Parts};
#[cfg(feature = "files")]
pub use model_files::{Inspection, ModelFiles, ModelPaths};
pub use origin::{Fingerprints, Origin, OriginError};
pub use pipeline::Pipeline;
pub use previewer::Previewer;
pub use request::{ImageSpec, Request};
pub use second_half::{Answer, Half, HalfError, Rows, SecondHalf};

use burn::tensor::Tensor;

use crate::image::Rgb;
use crate::precision::Precision;
use crate::sampler::{State, Stop};
use crate::settings::InvalidSetting;

/// What happens while a request is worked on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is about to be taken; the preview is the state of affairs before it.
    Step {
        /// Counted from 0, over all images of the batch where they are made one after the other.
        index: usize,
        /// How many there are; unknown to adaptive samplers.
        total: Option<usize>,
        /// Time of a flow, 1 (noise) to 0 (data), or noise level σ of a denoiser. Adaptive samplers begin
        /// again with each image.
        time: f64,
        /// What can be seen so far.
        preview: Preview<'a>,
    },
    /// A picture is finished.
    Image(Picture),
}

/// Clean estimates of the batch at a step.
#[derive(Clone, Copy, Debug)]
pub struct Preview<'a> {
    /// Of the latents in normalised space (or of the image in pixel models), `[B, C, H, W]`.
    pub clean: &'a State,
    /// Of the image, once Hi-DiT's gate is open: `[B, 3, H, W]` in −1…1, float32, as the network
    /// left it on its device. What the last step shows is the picture.
    pub pixels: Option<&'a Tensor<4>>,
}

/// A finished picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its place in the request.
    pub index: usize,
    /// What made it.
    pub spec: ImageSpec,
    /// The picture.
    pub image: Rgb,
    /// The decoded latent of a Hi-DiT, where the request asked for it.
    pub latent: Option<Rgb>,
    /// Evaluations of the network that it took; a guided one is two.
    pub evaluations: usize,
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The request is invalid.
    #[error(transparent)]
    Request(#[from] InvalidSetting),
    /// It was stopped, or the device failed.
    #[error(transparent)]
    Stopped(#[from] Stop),
    /// The network computed NaN or an infinite value.
    #[error("the network's values leave the range of {precision}: they are not finite")]
    NotFinite {
        /// What it computes in.
        precision: Precision,
        /// What has a larger range on its device, the narrowest first; empty in float32.
        instead: Vec<Precision>,
    },
}

/// A size in bytes for people: KiB, MiB or GiB.
pub fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / (1u64 << 30) as f64),
        n if n >= 1 << 20 => format!("{:.1} MiB", n as f64 / (1u64 << 20) as f64),
        n => format!("{:.1} KiB", n as f64 / 1024.0),
    }
}
