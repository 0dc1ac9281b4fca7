//! Orders of convergence of the flow's solvers where the data are normal, `x₀ ~ N(m, s²)`: velocity and flow map
//! are known.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::flow_multistep::{dpmpp_2m, dpmpp_2s, dpmpp_3m, half_log_snr, unipc};
use super::{Model, State, Stop, flow};
use crate::diffusion::flow::{Interpolant, linspace, ode_times};

const MEAN: f64 = 0.7;
const SPREAD: f64 = 0.4;
const START: f64 = 1.3;

/// The network of these data.
#[derive(Default)]
struct Gaussian {
    evaluations: usize,
}

/// Variance of `x_t`.
fn variance(t: f64) -> f64 {
    ((1.0 - t) * SPREAD).powi(2) + t * t
}

/// Where the ODE takes a state.
pub(super) fn flow_map(x: f64, from: f64, to: f64) -> f64 {
    let z = (x - (1.0 - from) * MEAN) / variance(from).sqrt();
    (1.0 - to) * MEAN + variance(to).sqrt() * z
}

/// `E[ε] − E[x₀]` at a state.
pub(super) fn velocity(x: State, t: f64) -> State {
    let alpha = 1.0 - t;
    let z = (x - alpha * MEAN) / variance(t);
    let clean = z.clone() * (alpha * SPREAD * SPREAD) + MEAN;
    z * t - clean
}

/// A state of one number.
pub(super) fn state(value: f64) -> State {
    let data = TensorData::new(vec![value], [1, 1, 1, 1]);
    Tensor::from_data(data, (&Device::default(), DType::F64))
}

impl Model for Gaussian {
    async fn predict(&mut self, x: State, t: f64, _: f64) -> Result<State, Stop> {
        self.evaluations += 1;
        Ok(velocity(x, t))
    }

    fn noise(&mut self, _: usize) -> State {
        unreachable!("an ODE draws no noise")
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Solver {
    Euler,
    Heun,
    TwoM,
    ThreeM,
    TwoS,
    UniPc(usize),
}

/// The end, and how often the network was asked.
fn solve(solver: Solver, times: &[f64]) -> (f64, usize) {
    let x = state(START);
    let mut model = Gaussian::default();
    let m = &mut model;
    let end = pollster::block_on(async {
        match solver {
            Solver::Euler => flow::euler(m, x, times, Interpolant::Linear).await,
            Solver::Heun => flow::heun(m, x, times, Interpolant::Linear).await,
            Solver::TwoM => dpmpp_2m(m, x, times).await,
            Solver::ThreeM => dpmpp_3m(m, x, times).await,
            Solver::TwoS => dpmpp_2s(m, x, times).await,
            Solver::UniPc(order) => unipc(m, x, times, order).await,
        }
    });
    (end.expect("nothing stops it").into_scalar::<f64>(), model.evaluations)
}

/// Steps even in λ from t = 0.9 to 0.1, where no step is infinite. The first one is cut to pieces that shrink as h²,
/// since all multistep solvers begin with order one.
fn times(steps: usize) -> Vec<f64> {
    let mut lambdas = linspace(half_log_snr(0.9), half_log_snr(0.1), steps + 1);
    let (first, h) = (lambdas[0], lambdas[1] - lambdas[0]);
    lambdas.splice(1..1, [first + h * h / 4.0, first + h * h / 2.0]);
    lambdas.into_iter().map(|lambda| 1.0 / (1.0 + lambda.exp())).collect()
}

fn error(solver: Solver, times: &[f64]) -> f64 {
    let exact = flow_map(START, times[0], times[times.len() - 1]);
    (solve(solver, times).0 - exact).abs()
}

#[test]
fn solvers_converge_with_their_order() {
    for (solver, least) in [
        (Solver::Euler, 0.9),
        (Solver::Heun, 1.8),
        (Solver::TwoM, 1.8),
        (Solver::ThreeM, 2.6),
        (Solver::TwoS, 1.8),
        (Solver::UniPc(2), 1.8),
        (Solver::UniPc(3), 2.6),
    ] {
        let [coarse, fine] = [80, 160].map(|steps| error(solver, &times(steps)));
        let order = (coarse / fine).log2();
        assert!(order >= least, "{solver:?}: order {order}, errors {coarse} and {fine}");
    }
}

#[test]
fn a_higher_order_is_closer() {
    let times = times(40);
    let by_error = [Solver::Euler, Solver::TwoM, Solver::ThreeM, Solver::UniPc(3)];
    let errors = by_error.map(|solver| error(solver, &times));
    assert!(errors.is_sorted_by(|before, after| before > after), "{errors:?}");
}

/// λ is infinite at both ends, and the step to either is of order one.
#[test]
fn both_ends_are_reached() {
    for solver in [
        Solver::TwoM,
        Solver::ThreeM,
        Solver::TwoS,
        Solver::UniPc(1),
        Solver::UniPc(2),
        Solver::UniPc(3),
    ] {
        // What the network makes of pure noise is the mean.
        let (end, evaluations) = solve(solver, &[1.0, 0.0]);
        assert!((end - MEAN).abs() < 1e-12 && evaluations == 1, "{solver:?}: {end}");
        let [coarse, fine] = [25, 100].map(|steps| error(solver, &ode_times(steps)));
        assert!(fine < 0.5 * coarse && fine < 0.005, "{solver:?}: {coarse} {fine}");
        let (_, evaluations) = solve(solver, &ode_times(8));
        assert_eq!(evaluations, if solver == Solver::TwoS { 14 } else { 8 }, "{solver:?}");
    }
}

/// A strong time shift rounds times near the ends together.
#[test]
fn equal_times_are_no_steps() {
    for solver in [Solver::TwoM, Solver::ThreeM, Solver::TwoS, Solver::UniPc(3)] {
        let (end, _) = solve(solver, &[1.0, 0.8, 0.5, 0.2, 0.0]);
        let (twice, _) = solve(solver, &[1.0, 1.0, 0.8, 0.5, 0.5, 0.2, 0.0, 0.0]);
        assert_eq!(end, twice, "{solver:?}");
    }
}
