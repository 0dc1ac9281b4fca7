//! The sampler of mean flows (arXiv 2505.13447): the network gives the average velocity u over a whole step, so that a
//! step has no error of its own, and one may be enough. Guidance is an input of the network; nothing is evaluated twice.

use super::{State, Step, Stop};
use crate::diffusion::flow::linspace;

/// What the sampler needs of the world.
#[allow(async_fn_in_trait)] // samplers run on the one thread that owns the device
pub trait MeanFlowModel {
    /// The average velocity over the times `t − h`…`t` at a state at time t.
    ///
    /// # Shapes
    ///
    /// * `z`: `[B, C, H, W]`
    /// * returns the same
    ///
    /// # Errors
    ///
    /// [`Stop::Device`] where the device fails.
    async fn u(&mut self, z: State, t: f64, h: f64) -> Result<State, Stop>;

    /// Told before every step; an error stops the run.
    ///
    /// # Errors
    ///
    /// [`Stop::Cancelled`] ends the run; so does any other.
    async fn on_step(&mut self, _step: Step<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// Even times from 1 (noise) to 0 (data) of so many steps, as float32 has them.
pub fn times(steps: usize) -> Vec<f64> {
    linspace(1.0, 0.0, steps + 1).into_iter().map(|t| f64::from(t as f32)).collect()
}

/// `z ← z − h·u(z; t, h)` with `h = t − t'` for each pair of times; descending, 1 is noise.
///
/// # Shapes
///
/// * `z`: `[B, C, H, W]`
/// * returns the same
///
/// # Errors
///
/// What [`MeanFlowModel::u`] and [`MeanFlowModel::on_step`] fail with.
pub async fn sample<M: MeanFlowModel>(
    model: &mut M,
    mut z: State,
    times: &[f64],
) -> Result<State, Stop> {
    let total = Some(times.len().saturating_sub(1));
    for (index, pair) in times.windows(2).enumerate() {
        let t = pair[0];
        let h = f64::from((t - pair[1]) as f32); // as the reference subtracts
        let u = model.u(z.clone(), t, h).await?;
        let clean = z.clone() - u.clone() * t;
        model.on_step(Step { index, total, time: t, state: &z, clean: &clean }).await?;
        z = z - u * h;
    }
    Ok(z)
}
