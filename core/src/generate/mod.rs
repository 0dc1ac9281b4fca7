//! A request in, a stream of events out: what the command line, the desktop app and the browser
//! share.

mod hybrid;
mod pipeline;
mod request;
mod run;

pub use pipeline::{LatentStats, LoadError, Parts, Pipeline};
pub use request::{ImageSpec, InvalidRequest, Request, Sampler, Settings};

use crate::image::Rgb;
use crate::sampler::{State, Stop};

/// What happens while a request is worked on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is about to be taken; the preview is the state of affairs before it.
    Step {
        /// Counted from 0.
        index: usize,
        /// How many there are; unknown to adaptive samplers.
        total: Option<usize>,
        /// Time of a flow (1 is noise), noise level of a denoiser.
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
    /// Of the image, once Hi-DiT's gate is open: `[B, 3, H, W]` in −1…1.
    pub pixels: Option<&'a State>,
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
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// It was stopped, or the device failed.
    #[error(transparent)]
    Stopped(#[from] Stop),
}
