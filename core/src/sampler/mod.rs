//! Samplers: free functions of one shape, a paper reference each.
//!
//! A sampler moves a state from noise to data and asks a [`Model`] for predictions, which computes in a precision of
//! its own. The state is a tensor of the model's device, in float64 where that has it (see
//! [`crate::device::state_dtype`]), and coefficients are numbers in float64. Nothing in a step is read back but the
//! error of an adaptive method. Functions are async because a browser can read a GPU in no other way.
//!
//! In float32 a step rounds the state as often as it is added to. So a step of an ODE adds one change, which is put
//! together first, and moves along a line from the end that it stays nearer to: a thousand steps then err by some ten
//! units in the last place, about 10⁻⁶, where a level of an 8-bit picture is 8·10⁻³. Steps with noise add more often,
//! but they shrink what earlier ones rounded. No error term is carried along.
//!
//! Flows are sampled on this library's clock, from t = 1 (noise) to t = 0 (data); denoisers from the
//! largest noise level σ to 0.

pub mod dpm_solver;
pub mod flow;
pub mod flow_multistep;
pub mod hidit;
pub mod karras;
pub mod mean_flow;
pub mod schedules;
pub mod times;

use burn::tensor::{FloatDType, Tensor, TensorData};

/// What a sampler moves: `[B, C, H, W]`, in float64 where the device has it.
pub type State = Tensor<4>;

/// Why a sampler ended early.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The network computed NaN or an infinite value.
    #[error("the network's values are not finite")]
    NotFinite,
}

/// One step about to be taken, for progress, previews and cancelling.
#[derive(Debug)]
pub struct Step<'a> {
    /// Counted from 0.
    pub index: usize,
    /// How many there are; unknown to adaptive samplers.
    pub total: Option<usize>,
    /// Time t of a flow (1 is noise, 0 data), noise level σ of a denoiser.
    pub time: f64,
    /// The state before the step.
    pub state: &'a State,
    /// The clean estimate at this point.
    pub clean: &'a State,
}

/// What a sampler needs of the world.
#[allow(async_fn_in_trait)] // samplers run on the one thread that owns the device
pub trait Model {
    /// The prediction at a state: the velocity at time t (flows), the denoised image at noise level
    /// σ (Karras). `step_time` is the time at which the step began: guidance of a closed
    /// [`Interval`](crate::model::Interval) decides by it even where a corrector evaluates elsewhere.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn predict(&mut self, x: State, time: f64, step_time: f64) -> Result<State, Stop>;

    /// The `draw`-th standard-normal tensor that this run consumes, shaped like the state.
    fn noise(&mut self, draw: usize) -> State;

    /// Told before every step; an error stops the run.
    ///
    /// # Errors
    ///
    /// [`Stop::Cancelled`] ends the run; so does any other.
    async fn on_step(&mut self, _step: Step<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// Reads a tensor back: in a browser without blocking, which is all that it allows. Elsewhere Burn's blocking
/// way, which is compiled once, in Burn; of the other, each crate that awaits it compiles its own copy of
/// the backends' code.
pub(crate) async fn read<const D: usize>(x: Tensor<D>) -> Result<TensorData, Stop> {
    #[cfg(target_family = "wasm")]
    let data = x.into_data_async().await;
    #[cfg(not(target_family = "wasm"))]
    let data = x.try_into_data();
    data.map_err(|error| Stop::Device(format!("{error:?}")))
}

/// [`read`] in float32, of values that have to be finite: NaN would become a black image.
pub(crate) async fn read_finite(x: Tensor<4>) -> Result<TensorData, Stop> {
    let data = read(x.cast(FloatDType::F32)).await?;
    let values = data.as_slice::<f32>().map_err(|error| Stop::Device(format!("{error:?}")))?;
    let finite = values.iter().all(|value| value.is_finite());
    if finite { Ok(data) } else { Err(Stop::NotFinite) }
}

/// Waits until a device has computed a tensor, by reading its sum: it is not finite where a value is not.
pub(crate) async fn wait_for(x: &Tensor<4>) -> Result<(), Stop> {
    let sum = read(x.clone().sum()).await?;
    if sum.iter::<f64>().all(f64::is_finite) { Ok(()) } else { Err(Stop::NotFinite) }
}

#[cfg(test)]
mod hidit_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;
