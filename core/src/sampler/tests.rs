//! Samplers on flows and denoisers whose solutions are known in closed form.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Model, State, Stop, dpm_solver, flow, karras, mean_flow, schedules};
use crate::diffusion::flow::{Interpolant, linspace, ode_times, sde_times};

/// A prediction that is a function of state and time.
struct Field<F>(F);

impl<F: FnMut(State, f64) -> State> Model for Field<F> {
    async fn predict(&mut self, x: State, time: f64, _: f64) -> Result<State, Stop> {
        Ok((self.0)(x, time))
    }
    fn noise(&mut self, draw: usize) -> State {
        state(&[(draw as f64).sin()])
    }
}

fn state(values: &[f64]) -> State {
    let data = TensorData::new(values.to_vec(), [1, 1, 1, values.len()]);
    Tensor::from_data(data, (&Device::default(), DType::F64))
}

fn value(x: State) -> f64 {
    x.into_scalar::<f64>()
}

/// `dx/dt = x` from t = 1 to 0 shrinks by e.
fn error_of<M>(
    sampler: impl AsyncFn(&mut M, State, &[f64]) -> State,
    steps: usize,
    model: &mut M,
) -> f64 {
    let end = pollster::block_on(sampler(model, state(&[1.0]), &ode_times(steps)));
    (value(end) - (-1f64).exp()).abs()
}

#[test]
fn euler_converges_with_order_one_and_heun_with_order_two() {
    let path = Interpolant::Linear;
    let mut model = Field(|x: State, _| x);
    let euler = async |m: &mut Field<_>, x, t: &[f64]| flow::euler(m, x, t, path).await.unwrap();
    let [coarse, fine] = [50, 100].map(|n| error_of(euler, n, &mut model));
    let rate = coarse / fine;
    assert!((1.9..2.1).contains(&rate), "Euler: {rate}");
    // The last of Heun's steps is Euler's, whose local error is of order two as well.
    let heun = async |m: &mut Field<_>, x, t: &[f64]| flow::heun(m, x, t, path).await.unwrap();
    let [coarse, fine] = [50, 100].map(|n| error_of(heun, n, &mut model));
    let rate = coarse / fine;
    assert!((3.7..4.3).contains(&rate), "Heun: {rate}");
}

#[test]
fn dopri5_meets_its_tolerance_at_every_output() {
    let mut model = Field(|x: State, _| x);
    let times = linspace(1.0, 0.0, 6);
    let tolerance = flow::Tolerance { relative: 1e-6, absolute: 1e-9 };
    let states = flow::dopri5(&mut model, state(&[1.0]), &times, tolerance);
    let states = pollster::block_on(states).unwrap();
    assert_eq!(states.len(), times.len());
    for (x, t) in states.into_iter().zip(times) {
        assert!((value(x) - (t - 1.0).exp()).abs() < 1e-6, "at {t}");
    }
}

#[test]
fn euler_maruyama_without_noise_in_the_data_ends_at_the_mean() {
    // All data at 0.7: v = (x − 0.7)/t on the linear path, whatever the noise was.
    let mut model = Field(|x: State, t| (x - 0.7) / t);
    let times = sde_times(40);
    let end = flow::euler_maruyama(&mut model, state(&[1.3]), &times, Interpolant::Linear);
    // The last step keeps its score, which overshoots the mean by a few per cent of t = 0.04.
    assert!((value(pollster::block_on(end).unwrap()) - 0.7).abs() < 0.1);
}

#[test]
fn a_perfect_denoiser_is_found_by_every_karras_sampler() {
    let sigmas = schedules::karras(20, 0.02, 10.0, 7.0);
    let mut model = Field(|x: State, _| x.zeros_like() + 0.3);
    let start = || state(&[9.0]);
    let none = karras::Stochastic { eta: 0.0, s_noise: 1.0 };
    let churn = karras::Churn::default();
    let s = &sigmas;
    let ends = pollster::block_on(async {
        let m = &mut model;
        Ok::<_, Stop>(vec![
            ("euler", karras::euler(m, start(), s, churn).await?),
            ("heun", karras::heun(m, start(), s, churn).await?),
            ("dpm_2", karras::dpm_2(m, start(), s, churn).await?),
            ("ancestral", karras::euler_ancestral(m, start(), s, none).await?),
            ("lms", karras::lms(m, start(), s, 4).await?),
            ("2s", karras::dpmpp_2s_ancestral(m, start(), s, none).await?),
            ("sde", karras::dpmpp_sde(m, start(), s, none).await?),
            ("2m", karras::dpmpp_2m(m, start(), s).await?),
            ("2m_sde", karras::dpmpp_2m_sde(m, start(), s, none, Default::default()).await?),
            ("3m_sde", karras::dpmpp_3m_sde(m, start(), s, none).await?),
        ])
    });
    for (name, end) in ends.unwrap() {
        let error = (value(end) - 0.3).abs();
        assert!(error < 1e-6, "{name}: {error}");
    }
}

#[test]
fn a_slope_whose_square_is_not_finite_stops_dopri5() {
    let mut model = Field(|x: State, _| x.zeros_like() + 1e200);
    let tolerance = flow::Tolerance { relative: 1e-3, absolute: 1e-6 };
    let result = flow::dopri5(&mut model, state(&[1.0]), &[1.0, 0.0], tolerance);
    assert_eq!(pollster::block_on(result).err(), Some(Stop::NotFinite));
}

#[test]
fn a_prediction_that_is_not_finite_stops_adaptive_samplers() {
    let mut model = Field(|x: State, _| x * f64::NAN);
    let tolerance = flow::Tolerance { relative: 1e-3, absolute: 1e-6 };
    let result = flow::dopri5(&mut model, state(&[1.0]), &[1.0, 0.0], tolerance);
    assert!(matches!(pollster::block_on(result), Err(Stop::NotFinite)));
    let result =
        dpm_solver::dpm_adaptive(&mut model, state(&[1.0]), 0.01, 10.0, Default::default());
    assert!(matches!(pollster::block_on(result), Err(Stop::NotFinite)));
}

/// The average velocity of a flow to one point, over whatever time.
struct Straight;

impl mean_flow::MeanFlowModel for Straight {
    async fn u(&mut self, z: State, t: f64, h: f64) -> Result<State, Stop> {
        assert!(0.0 < h && h <= t, "{h} from {t}");
        Ok((z - 0.7) / t)
    }
}

#[test]
fn a_mean_flow_arrives_in_any_number_of_steps() {
    for steps in [1, 2, 3, 7] {
        let times = mean_flow::times(steps);
        assert_eq!((times.len(), times[0], times[steps]), (steps + 1, 1.0, 0.0));
        let mut straight = Straight;
        let end = mean_flow::sample(&mut straight, state(&[1.3]), &times);
        let end = value(pollster::block_on(end).expect("it arrives"));
        assert!((end - 0.7).abs() < 1e-6, "{end} after {steps}");
    }
}
