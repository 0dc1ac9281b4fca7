//! Hi-DiT's sampler: latents alone while the noise is high, latents and pixels together once the gate is
//! open (`hidit` §4). Times are on its network's clock, which is this library's: 1 is noise, 0 is data.

use super::flow::maruyama_step;
use super::flow_multistep::Multistep;
use super::{State, Step, Stop};
use crate::diffusion::flow::Interpolant;

/// What the hybrid sampler needs of the world.
#[allow(async_fn_in_trait)] // samplers run on the one thread that owns the device
pub trait HybridModel {
    /// Whether pixels take part at this time.
    fn gate(&self, t: f64) -> bool;

    /// The smallest time that the pixel velocity divides by.
    fn t_min(&self) -> f64;

    /// Guided velocity of the latents alone.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, h, w]`
    /// * returns the same
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn latent(&mut self, z: State, t: f64) -> Result<State, Stop>;

    /// Guided velocity of the latents and guided estimate of the clean image.
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
    async fn hybrid(&mut self, z: State, x: State, t: f64) -> Result<(State, State), Stop>;

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
    /// Stochastic, [`super::flow::euler_maruyama`].
    EulerMaruyama,
    /// [`super::flow_multistep::dpmpp_2m`].
    DpmPp2m,
    /// [`super::flow_multistep::dpmpp_3m`].
    DpmPp3m,
    /// [`super::flow_multistep::unipc`] of order 3.
    UniPc,
}

impl Stepper {
    /// The solver of one stream, where it has a past.
    fn multistep(self) -> Option<Multistep> {
        match self {
            Self::Euler | Self::EulerMaruyama => None,
            Self::DpmPp2m => Some(Multistep::predictor(2)),
            Self::DpmPp3m => Some(Multistep::predictor(3)),
            Self::UniPc => Some(Multistep::corrector(3)),
        }
    }

    /// One stream's step from `t` to `next` with velocity `v`.
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

/// Samples latent and image. One evaluation more than there are steps: at the first time below τ
/// the network is asked once without pixels, for the clean estimate the pixel stream starts from. With pixels the
/// network is another one, so that the past of a multistep solver begins anew there, in both streams.
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
    mut z: State,
    times: &[f64],
    stepper: Stepper,
    pixel_init: PixelInit,
) -> Result<Hybrid, Stop> {
    let steps = times.len() - 1;
    let path = Interpolant::Linear;
    let mut pixels: Option<State> = None;
    let (mut latent_past, mut pixel_past) = (stepper.multistep(), stepper.multistep());
    for (index, pair) in times.windows(2).enumerate() {
        let (t, next) = (pair[0], pair[1]);
        let last = index + 1 == steps;
        let stochastic = stepper == Stepper::EulerMaruyama && !last;
        if model.gate(t) && pixels.is_none() {
            pixels = Some(open_pixels(model, &z, index, t, pixel_init).await?);
            latent_past = stepper.multistep();
        }
        let eps_z = stochastic.then(|| model.noise(Draw::Latent(index)));
        match pixels.take() {
            None => {
                let v = model.latent(z.clone(), t).await?;
                let clean = path.clean(z.clone(), v.clone(), t);
                let step = Step { index, total: Some(steps), time: t, state: &z, clean: &clean };
                model.on_step(step, None).await?;
                z = stepper.advance(&mut latent_past, z, v, [t, next], eps_z);
            }
            Some(x) => {
                let eps_x = stochastic.then(|| model.noise(Draw::Pixel(index)));
                let (v, image) = model.hybrid(z.clone(), x.clone(), t).await?;
                let clean = path.clean(z.clone(), v.clone(), t);
                let step = Step { index, total: Some(steps), time: t, state: &z, clean: &clean };
                model.on_step(step, Some(Pixels { state: &x, clean: &image })).await?;
                z = stepper.advance(&mut latent_past, z, v, [t, next], eps_z);
                pixels = Some(if last {
                    image
                } else {
                    let v_x = (x.clone() - image) / t.max(model.t_min());
                    stepper.advance(&mut pixel_past, x, v_x, [t, next], eps_x)
                });
            }
        }
    }
    Ok(Hybrid { latent: z, image: pixels })
}

/// The pixel state at the moment the gate opens: `(1 − t)·x̂0 + t·ε`.
async fn open_pixels<M: HybridModel>(
    model: &mut M,
    z: &State,
    index: usize,
    t: f64,
    init: PixelInit,
) -> Result<State, Stop> {
    let v = model.latent(z.clone(), t).await?;
    let decoded = model.decode(Interpolant::Linear.clean(z.clone(), v, t)).await?;
    model.on_open(index, &decoded);
    let eps = model.noise(Draw::PixelStart);
    Ok(match init {
        PixelInit::Decode => decoded * (1.0 - t) + eps * t,
        PixelInit::Noise => eps,
    })
}
