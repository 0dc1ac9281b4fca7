//! The losses of u and v, the same for iMF and pMF.
//!
//! Half of a batch, its first samples, learns the velocity itself (r = t); the rest learns averages over r…t. Guidance
//! is drawn, too, and the network guides its own target.

use anyhow::{Context, Result};
use tintype::burn::module::{AutodiffModule, Module};
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::diffusion::flow::Interpolant;
use tintype::diffusion::mean_flow::{
    adaptive, compound_velocity, guided_velocity, omega_at, squared_error,
};
use tintype::model::meanflow::{Condition, MeanFlow};
use tintype::weights::computing_in;

use super::batch::Batch;
use super::draws::Draw;
use crate::train::host::{classes, vector};
use crate::train::objective::{Compute, Loss};
use crate::train::recompute::Tape;

/// Step of the central difference that du/dt is. Above it the error grows with its square, below it with the rounding of
/// float32.
pub const STEP: f64 = 1e-3;

/// A pass of the network and its losses.
pub struct Pass {
    /// The losses of u and v.
    pub loss: Loss,
    /// The data as u estimates them, `z − t·u`, `[B, C, S, S]` on the graph.
    pub estimate: Tensor<4>,
    /// The data, `[B, C, S, S]`.
    pub data: Tensor<4>,
}

/// The sum of the losses of u and v of some samples over the global batch, each divided by its own value: about 2
/// whatever happens. The terms for the log are plain means of squared errors.
///
/// The velocity of the data is `(z − x)/max(t, t_floor)`, which is `e − x` but for small times; `t_floor` is that of
/// the network, 0 where it divides by none.
///
/// # Shapes
///
/// * returns `[1]` in total and for each term, and the shapes that [`Pass`] states
///
/// # Errors
///
/// If the network has no head of v.
///
/// # Panics
///
/// If the batch does not fit the network.
pub fn pass<N: AutodiffModule + MeanFlow>(
    network: &N,
    batch: Batch,
    t_floor: f64,
    compute: Compute,
    device: &Device,
) -> Result<Pass> {
    let Batch { data, noise, draws, labels, dropped, null_class, weight } = batch;
    let without_v = "the network has no head of v, which training needs";
    let plain = device.clone().inner();
    let [t, r, omega, t_min, t_max] = Draw::columns(&draws, &plain);
    let h = t.clone() - r;
    let data = data.tensor(&plain);
    let [b, c, height, width] = data.dims();
    let noise = noise.tensor(&plain);
    let (z, velocity) = Interpolant::Linear.interpolate(data.clone(), noise, t.clone());
    let v_t = velocity * floored(&draws, t_floor, &plain); // [B, C, S, S]

    // The target, guided by the network's own velocities, with a class and without in one batch.
    let still = network.valid();
    let omega_t = omega_at(omega.clone(), t.clone(), t_min.clone(), t_max.clone());
    let both = [labels.clone(), vec![null_class; b]].concat();
    let scales = Tensor::cat(vec![omega_t.clone(), omega_t.ones_like()], 0); // [2B]
    let condition = Condition {
        omega: scales.clone(),
        ..Condition::instantaneous(classes(&both, &plain), &scales)
    };
    let twice = Tensor::cat(vec![z.clone(), z.clone()], 0); // [2B, C, S, S]
    let times = Tensor::cat(vec![t.clone(), t.clone()], 0); // [2B]
    let velocities = still.v(twice, times, condition).context(without_v)?; // [2B, C, S, S]
    let v_c = velocities.clone().narrow(0, 0, b);
    let v_u = velocities.narrow(0, b, b);
    let guided = guided_velocity(v_t.clone(), v_c.clone(), v_u, omega_t);
    let told: Vec<f32> = dropped.iter().map(|&d| if d { 0.0 } else { 1.0 }).collect();
    let told: Tensor<4> = vector(&told, &plain).reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    let target = guided * told.clone() + v_t * (-told + 1.0);
    let replaced = |(&label, &dropped): (&usize, &bool)| if dropped { null_class } else { label };
    let labels: Vec<usize> = labels.iter().zip(&dropped).map(replaced).collect();

    // du/dt of those samples that average over a span; of the others it has the factor 0.
    let first = draws.iter().take_while(|d| d.r == d.t).count();
    let spans = b - first;
    let du_dt = match spans {
        0 => z.zeros_like(),
        _ => {
            let images = |x: &Tensor<4>| x.clone().narrow(0, first, spans);
            let numbers = |x: &Tensor<1>| x.clone().narrow(0, first, spans);
            let condition = Condition {
                h: numbers(&h),
                omega: numbers(&omega),
                t_min: numbers(&t_min),
                t_max: numbers(&t_max),
                y: classes(&labels[first..], &plain),
            };
            let precise = in_float32(&still, compute);
            let found = derivative(&precise, [images(&z), images(&v_c)], numbers(&t), condition);
            match first {
                0 => found,
                _ => {
                    let none = z.clone().narrow(0, 0, first).zeros_like();
                    Tensor::cat(vec![none, found], 0) // [B, C, S, S]
                }
            }
        }
    };

    let (h, t, z) = (Tensor::from_inner(h), Tensor::from_inner(t), Tensor::from_inner(z));
    let condition = Condition {
        h: h.clone(),
        omega: Tensor::from_inner(omega),
        t_min: Tensor::from_inner(t_min),
        t_max: Tensor::from_inner(t_max),
        y: classes(&labels, device),
    };
    let (u, v) = network.u_and_v(z.clone(), t.clone(), condition);
    let t: Tensor<4> = t.reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    let estimate = z - u.clone() * t; // [B, C, S, S]
    let compound = compound_velocity(u, Tensor::from_inner(du_dt), h);
    let target = Tensor::from_inner(target);
    let values = (c * height * width) as f64;
    let of_u = squared_error(compound, target.clone());
    let of_v = squared_error(v.context(without_v)?, target);
    let terms = [("mse_u", &of_u), ("mse_v", &of_v)]
        .map(|(name, error)| (name, error.clone().sum() * (weight / values)));
    let total = (adaptive(of_u) + adaptive(of_v)).sum() * weight;
    let loss = Loss { total, terms: terms.into(), tape: Tape::<3>::new(false).into() };
    Ok(Pass { loss, estimate, data: Tensor::from_inner(data) })
}

/// What becomes of velocities at small times, `t/max(t, t_floor)`: `[B, 1, 1, 1]`
fn floored(draws: &[Draw], t_floor: f64, device: &Device) -> Tensor<4> {
    let one = |draw: &Draw| match f64::from(draw.t) {
        t if t < t_floor => (t / t_floor) as f32,
        _ => 1.0,
    };
    let shares: Vec<f32> = draws.iter().map(one).collect();
    vector(&shares, device).reshape([-1, 1, 1, 1])
}

/// The network in float32. The difference of two values over a small step is lost in bf16, whose values are 2⁻⁸ apart;
/// weights that were rounded to it are the same in both.
fn in_float32<N: Module>(network: &N, compute: Compute) -> N {
    match compute.precision {
        FloatDType::F32 => network.clone(),
        _ => computing_in(network, FloatDType::F32),
    }
}

/// du/dt along the flow, by a central difference: z moves with the velocity v and h with t, r stays.
///
/// # Shapes
///
/// * `z`, `v`: `[B, C, S, S]`
/// * `t`: `[B]`
/// * returns `[B, C, S, S]`
fn derivative<N: MeanFlow>(
    network: &N,
    [z, v]: [Tensor<4>; 2],
    t: Tensor<1>,
    condition: Condition,
) -> Tensor<4> {
    let shifted = |step: f64| {
        let condition = Condition { h: condition.h.clone() + step, ..condition.clone() };
        network.u(z.clone() + v.clone() * step, t.clone() + step, condition)
    };
    (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP)
}

#[cfg(test)]
mod tests {
    use tintype::model::imf::{Imf, ImfConfig};
    use tintype::model::meanflow::Shape;
    use tintype::model::pmf::T_FLOOR;
    use tintype::noise::{ImageKey, Stream, normals};
    use tintype::weights::{TensorView, Weights, layout, load};

    use super::super::draws::{Matched, MeanFlowLoss};
    use super::*;
    use crate::train::host::Values;

    const F32: Compute = Compute { precision: FloatDType::F32, recompute: false };
    const BF16: Compute = Compute { precision: FloatDType::BF16, recompute: false };
    const SAMPLES: usize = 8;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        normals(ImageKey::new(seed, 0), Stream::Noise, 0, count)
    }

    /// A small iMF with random weights, so that every part of it matters.
    fn network(device: &Device) -> Imf {
        let shape = Shape {
            input_size: 2,
            patch_size: 1,
            in_channels: 2,
            hidden_size: 16,
            depth: 2,
            aux_head_depth: 1,
            num_heads: 2,
            mlp_hidden: 20,
            num_classes: 3,
            num_class_tokens: 1,
            num_time_tokens: 1,
            num_cfg_tokens: 1,
            num_interval_tokens: 1,
            v_heads: true,
        };
        let network = ImfConfig { shape }.init(device).expect("valid");
        let tensor = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
            let values = random(seed as u64, shape.iter().product());
            let values: Vec<f32> = values.iter().map(|v| v * 0.3).collect();
            (name, TensorView::from_f32(shape, &values).expect("as many as the shape"))
        };
        let tensors = layout(&network).into_iter().enumerate().map(tensor).collect();
        let weights = Weights { file: "test".into(), tensors, ..Weights::default() };
        load(network, &weights, FloatDType::F32, device).expect("it fits").network
    }

    fn images(seed: u64) -> Values<4> {
        Values::new(random(seed, SAMPLES * 8), [SAMPLES, 2, 2, 2])
    }

    fn draws() -> Vec<Draw> {
        let draw = |i: usize| {
            let key = ImageKey::new(3, i as u64);
            Draw::new(&MeanFlowLoss::default(), Matched::Later, key, i < SAMPLES / 2)
        };
        (0..SAMPLES).map(draw).collect()
    }

    /// How far `a` is from `b`, relative to `b`.
    fn distance(a: &Tensor<4>, b: &Tensor<4>) -> f64 {
        let square = |x: Tensor<4>| -> f64 {
            x.square().sum().into_data().iter::<f64>().next().expect("a number")
        };
        (square(a.clone() - b.clone()) / square(b.clone())).sqrt()
    }

    #[test]
    fn the_derivative_is_in_float32_whatever_the_rest_is_in() {
        let device = Device::flex();
        let network = network(&device);
        let rounded = computing_in(&network, FloatDType::BF16);
        let [t, r, omega, t_min, t_max] = Draw::columns(&draws(), &device);
        let y = classes(&[0, 1, 2, 0, 1, 2, 3, 3], &device);
        let condition = Condition { h: t.clone() - r, omega, t_min, t_max, y };
        let flow = [images(20).tensor(&device), images(21).tensor(&device)];
        let of = |network: &Imf| derivative(network, flow.clone(), t.clone(), condition.clone());
        let exact = of(&network);
        let found = distance(&of(&in_float32(&rounded, BF16)), &exact);
        assert!(found < 0.05, "{found}");
        // In bf16 nothing is left of it.
        let lost = distance(&of(&rounded), &exact);
        assert!(lost > 1.0, "{lost}");
    }

    #[test]
    fn losses_in_bf16_are_near_those_in_float32() {
        let device = Device::flex().autodiff();
        let network = network(&device);
        let batch = || Batch {
            data: images(20),
            noise: images(22),
            draws: draws(),
            labels: vec![0, 1, 2, 0, 1, 2, 0, 1],
            dropped: vec![true, false, false, false, false, false, false, false],
            null_class: 3,
            weight: 1.0 / SAMPLES as f64,
        };
        let terms = |network: &Imf, compute: Compute| -> Vec<f64> {
            let pass = pass(network, batch(), 0.0, compute, &device).expect("there is a head of v");
            let term = |(_, x): &(&str, Tensor<1>)| x.to_data().iter::<f64>().next().expect("one");
            pass.loss.terms.iter().map(term).collect()
        };
        let exact = terms(&network, F32);
        let found = terms(&computing_in(&network, FloatDType::BF16), BF16);
        for (found, exact) in found.iter().zip(&exact) {
            assert!((found / exact - 1.0).abs() < 0.05, "{found} and {exact}");
        }
    }

    #[test]
    fn velocities_are_smaller_below_the_floor() {
        let device = Device::flex();
        let draw = |t: f32| Draw { t, r: 0.0, omega: 1.0, t_min: 0.0, t_max: 1.0 };
        let shares = |t_floor: f64| -> Vec<f32> {
            let draws = [0.0, 0.01, 0.05, 0.5].map(draw);
            floored(&draws, t_floor, &device).into_data().iter::<f32>().collect()
        };
        assert_eq!(shares(0.0), [1.0; 4]);
        let found = shares(T_FLOOR);
        assert_eq!((found[0], found[2], found[3]), (0.0, 1.0, 1.0));
        assert!((found[1] - 0.2).abs() < 1e-6, "{found:?}");
    }
}
