//! Hi-DiT's sampler: latents alone while the noise is high, latents and pixels together once the gate is
//! open (`hidit` §4). Times are on its network's clock, which is this library's: 1 is noise, 0 is data.

use super::flow::maruyama_step;
use super::flow_multistep::{Multistep, middle};
use super::karras::toward;
use super::{State, Step, Stop};
use crate::diffusion::flow::Interpolant;

/// What the hybrid sampler needs of the world.
#[allow(async_fn_in_trait)] // samplers run on the one thread that owns the device
pub trait HybridModel {
    /// Whether pixels take part at this time.
    fn gate(&self, t: f64) -> bool;

    /// The smallest time that the pixel velocity divides by.
    fn t_min(&self) -> f64;

    /// Guided velocity of the latents alone at time `t`. `step_time` is the time at which the step began, by which
    /// guidance decides, as in [`Model::predict`](super::Model::predict).
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns the same
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn latent(&mut self, z: State, t: f64, step_time: f64) -> Result<State, Stop>;

    /// Guided velocity of the latents and guided estimate of the clean image, as [`latent`](Self::latent).
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * `x`: `[B, 3, H, W]`
    /// * returns both shapes
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn hybrid(
        &mut self,
        z: State,
        x: State,
        t: f64,
        step_time: f64,
    ) -> Result<(State, State), Stop>;

    /// The image of a latent in normalised space, about −1…1.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns `[B, 3, H, W]`
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn decode(&mut self, z: State) -> Result<State, Stop>;

    /// Standard-normal noise for what `draw` names: `[B, C, h, w]` of latents, `[B, 3, H, W]` of images.
    fn noise(&mut self, draw: Draw) -> State;

    /// Told before every step, with the clean image estimate once the gate is open.
    ///
    /// # Errors
    ///
    /// [`Stop::Cancelled`] ends the run; so does any other.
    async fn on_step(&mut self, _step: Step<'_>, _pixels: Option<Pixels<'_>>) -> Result<(), Stop> {
        Ok(())
    }

    /// Told once, when the gate opens, of the decoded clean estimate, `[B, 3, H, W]`.
    fn on_open(&mut self, _step: usize, _decoded: &State) {}
}

/// The pixel stream at a step.
#[derive(Debug)]
pub struct Pixels<'a> {
    /// The state before the step.
    pub state: &'a State,
    /// The clean estimate x̂.
    pub clean: &'a State,
}

/// Which noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Of the latent at this step.
    Latent(usize),
    /// Of the image at this step.
    Pixel(usize),
    /// That the decoded estimate is noised with when the gate opens.
    PixelStart,
}

/// How both streams are stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepper {
    /// Deterministic.
    Euler,
    /// [`super::flow::heun`].
    Heun,
    /// Stochastic, [`super::flow::euler_maruyama`].
    EulerMaruyama,
    /// [`super::flow_multistep::dpmpp_2m`].
    DpmPp2m,
    /// [`super::flow_multistep::dpmpp_3m`].
    DpmPp3m,
    /// [`super::flow_multistep::dpmpp_2s`].
    DpmPp2s,
    /// [`super::flow_multistep::unipc`] of order 3.
    UniPc,
}

impl Stepper {
    /// The solver of one stream, where it has a past.
    fn multistep(self) -> Option<Multistep> {
        match self {
            Self::Euler | Self::Heun | Self::EulerMaruyama | Self::DpmPp2s => None,
            Self::DpmPp2m => Some(Multistep::predictor(2)),
            Self::DpmPp3m => Some(Multistep::predictor(3)),
            Self::UniPc => Some(Multistep::corrector(3)),
        }
    }

    /// One stream's step from `t` to `next` by its velocity at `t` alone.
    fn advance(
        self,
        past: &mut Option<Multistep>,
        x: State,
        v: State,
        [t, next]: [f64; 2],
        eps: Option<State>,
    ) -> State {
        let path = Interpolant::Linear;
        match (self, past) {
            (_, Some(solver)) => {
                let clean = path.clean(x.clone(), v, t);
                solver.step(x, clean, t, next)
            }
            (Self::EulerMaruyama, None) => maruyama_step(x, v, t, next, eps, path),
            (_, None) => x + v * (next - t),
        }
    }
}

/// Where the pixel stream starts when the gate opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PixelInit {
    /// The decoded clean estimate, noised to the current time.
    #[default]
    Decode,
    /// Pure noise at the current time.
    Noise,
}

/// Both results.
#[derive(Debug)]
pub struct Hybrid {
    /// The final latent, in normalised space.
    pub latent: State,
    /// The picture, about −1…1; absent where the gate never opened.
    pub image: Option<State>,
}

/// Something of each stream: states, velocities or clean estimates. Pixels are absent until the gate opens.
#[derive(Clone, Debug)]
struct Streams {
    latent: State,
    pixels: Option<State>,
}

impl Streams {
    /// Something of both, stream by stream.
    fn with(self, other: Self, make: impl Fn(State, State) -> State) -> Self {
        Self {
            latent: make(self.latent, other.latent),
            pixels: self.pixels.zip(other.pixels).map(|(a, b)| make(a, b)),
        }
    }
}

/// Samples latent and image. One evaluation more than the solver takes: at the first time below τ
/// the network is asked once without pixels, for the clean estimate the pixel stream starts from. With pixels the
/// network is another one, so that the past of a multistep solver begins anew there, in both streams.
///
/// A step has one network, that of its beginning. Where this lies before the gate, so do all of its evaluations: that
/// of Heun's method at the end, and that of DPM-Solver++(2S) in the middle are of the latents alone, though their time
/// may be below τ.
///
/// The image is x̂ at the beginning of the last step. In that one Heun's method is Euler's, and DPM-Solver++(2S) to
/// t = 0 has no middle: either evaluates once.
///
/// # Shapes
///
/// * `z`: `[B, C, h, w]`
/// * returns [`Hybrid`]: `[B, C, h, w]` and `[B, 3, H, W]`
///
/// # Errors
///
/// What the methods of [`HybridModel`] fail with.
///
/// # Panics
///
/// If `times` is empty and the build checks overflow.
pub async fn sample<M: HybridModel>(
    model: &mut M,
    z: State,
    times: &[f64],
    stepper: Stepper,
    pixel_init: PixelInit,
) -> Result<Hybrid, Stop> {
    let steps = times.len() - 1;
    let path = Interpolant::Linear;
    let mut state = Streams { latent: z, pixels: None };
    let (mut latent_past, mut pixel_past) = (stepper.multistep(), stepper.multistep());
    for (index, pair) in times.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let last = index + 1 == steps;
        if model.gate(t) && state.pixels.is_none() {
            state.pixels = Some(open_pixels(model, &state.latent, index, t, pixel_init).await?);
            latent_past = stepper.multistep();
        }
        let stochastic = stepper == Stepper::EulerMaruyama && !last;
        let eps_z = stochastic.then(|| model.noise(Draw::Latent(index)));
        let eps_x = (stochastic && state.pixels.is_some()).then(|| model.noise(Draw::Pixel(index)));
        let (velocity, image) = evaluate(model, &state, t, t).await?;
        let clean = path.clean(state.latent.clone(), velocity.latent.clone(), t);
        let step = Step { index, total: Some(steps), time: t, state: &state.latent, clean: &clean };
        let pixels = state.pixels.as_ref().zip(image.as_ref());
        model.on_step(step, pixels.map(|(state, clean)| Pixels { state, clean })).await?;
        let span = [t, next];
        state = match stepper {
            Stepper::Heun if !last => heun_step(model, state, velocity, span).await?,
            Stepper::DpmPp2s => midpoint_step(model, state, velocity, span).await?,
            _ => {
                let (z, v) = (state.latent, velocity.latent);
                let pixels = state.pixels.zip(velocity.pixels);
                Streams {
                    latent: stepper.advance(&mut latent_past, z, v, span, eps_z),
                    pixels: pixels
                        .map(|(x, v)| stepper.advance(&mut pixel_past, x, v, span, eps_x)),
                }
            }
        };
        if last {
            state.pixels = image;
        }
    }
    Ok(Hybrid { latent: state.latent, image: state.pixels })
}

/// Velocities of the streams that there are at time `t` and, with pixels, the estimate of the clean image.
async fn evaluate<M: HybridModel>(
    model: &mut M,
    state: &Streams,
    t: f64,
    step_time: f64,
) -> Result<(Streams, Option<State>), Stop> {
    let z = state.latent.clone();
    let Some(x) = state.pixels.clone() else {
        let latent = model.latent(z, t, step_time).await?;
        return Ok((Streams { latent, pixels: None }, None));
    };
    let (latent, image) = model.hybrid(z, x.clone(), t, step_time).await?;
    let pixels = (x - image.clone()) / t.max(model.t_min());
    Ok((Streams { latent, pixels: Some(pixels) }, Some(image)))
}

/// Euler's step, corrected by the velocities at its end.
async fn heun_step<M: HybridModel>(
    model: &mut M,
    state: Streams,
    velocity: Streams,
    [t, next]: [f64; 2],
) -> Result<Streams, Stop> {
    let ahead = state.clone().with(velocity.clone(), |x, v| x + v * (next - t));
    let (corrected, _) = evaluate(model, &ahead, next, t).await?;
    let sum = velocity.with(corrected, |v, corrected| v + corrected);
    Ok(state.with(sum, |x, sum| x + sum * (0.5 * (next - t))))
}

/// DPM-Solver++(2S): by the clean estimates in the middle of the step, where it has one.
async fn midpoint_step<M: HybridModel>(
    model: &mut M,
    state: Streams,
    velocity: Streams,
    [t, next]: [f64; 2],
) -> Result<Streams, Stop> {
    let path = Interpolant::Linear;
    let mut clean = state.clone().with(velocity, |x, v| path.clean(x, v, t));
    if let Some(middle) = middle(t, next) {
        let half = state.clone().with(clean, |x, clean| toward(x, clean, t, middle));
        let (velocity, _) = evaluate(model, &half, middle, t).await?;
        clean = half.with(velocity, |x, v| path.clean(x, v, middle));
    }
    Ok(state.with(clean, |x, clean| toward(x, clean, t, next)))
}

/// The pixel state at the moment the gate opens: `(1 − t)·x̂0 + t·ε`.
async fn open_pixels<M: HybridModel>(
    model: &mut M,
    z: &State,
    index: usize,
    t: f64,
    init: PixelInit,
) -> Result<State, Stop> {
    let v = model.latent(z.clone(), t, t).await?;
    let decoded = model.decode(Interpolant::Linear.clean(z.clone(), v, t)).await?;
    model.on_open(index, &decoded);
    let eps = model.noise(Draw::PixelStart);
    Ok(match init {
        PixelInit::Decode => decoded * (1.0 - t) + eps * t,
        PixelInit::Noise => eps,
    })
}
