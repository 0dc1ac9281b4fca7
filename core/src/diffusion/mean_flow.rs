//! The training target and loss of mean flows (iMF, pMF); t = 1 is noise.

use burn::tensor::Tensor;

/// What is added to the loss of a sample before it is divided by that.
const FLOOR: f64 = 0.01;

/// The guidance scale of each sample at its time: ω within t_min…t_max, both included, and 1 outside.
///
/// # Shapes
///
/// * `omega`, `t`, `t_min`, `t_max`: `[B]`
/// * returns `[B]`
///
/// # Panics
///
/// If the shapes differ.
pub fn omega_at(omega: Tensor<1>, t: Tensor<1>, t_min: Tensor<1>, t_max: Tensor<1>) -> Tensor<1> {
    let outside = t_min.greater(t.clone()).bool_or(t.greater(t_max));
    omega.mask_fill(outside, 1.0)
}

/// The guided velocity `v_t + (1 − 1/ω)(v_c − v_u)` that u and v are trained towards.
///
/// # Shapes
///
/// * `v_t`, `v_c`, `v_u`: `[B, C, H, W]`, of the data and as the network predicts it with a class and without
/// * `omega`: `[B]`
/// * returns `[B, C, H, W]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn guided_velocity(
    v_t: Tensor<4>,
    v_c: Tensor<4>,
    v_u: Tensor<4>,
    omega: Tensor<1>,
) -> Tensor<4> {
    let strength: Tensor<4> = (-omega.recip() + 1.0).reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    v_t + (v_c - v_u) * strength
}

/// `V = u + h·du/dt`, the velocity at t that an average velocity means.
///
/// # Shapes
///
/// * `u`, `du_dt`: `[B, C, H, W]`
/// * `h`: `[B]`
/// * returns `[B, C, H, W]`
///
/// # Panics
///
/// If a tensor does not have the stated shape.
pub fn compound_velocity(u: Tensor<4>, du_dt: Tensor<4>, h: Tensor<1>) -> Tensor<4> {
    let h: Tensor<4> = h.reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    u + du_dt * h
}

/// Squared error of each sample, the **sum** over its values.
///
/// # Shapes
///
/// * `prediction`, `target`: `[B, C, H, W]`
/// * returns `[B]`
///
/// # Panics
///
/// If the shapes differ.
pub fn squared_error(prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let b = prediction.dims()[0];
    (prediction - target).square().sum_dims(&[1, 2, 3]).reshape([b])
}

/// The loss of each sample over itself and 0.01, of which only the former has a gradient: samples count alike, and the
/// value is about 1 whatever happens.
///
/// # Shapes
///
/// * `loss`: `[B]`
/// * returns the same
pub fn adaptive(loss: Tensor<1>) -> Tensor<1> {
    let weight = loss.clone().detach() + FLOOR;
    loss / weight
}
