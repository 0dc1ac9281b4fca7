//! Solvers on two streams whose velocities and flow maps are known.

use super::flow_multistep::half_log_snr;
use super::hidit::{Draw, HybridModel, PixelInit, Pixels, Stepper, sample};
use super::order_tests::{flow_map, state, velocity};
use super::times::through_gate;
use super::{State, Step, Stop};
use crate::diffusion::flow::{Interpolant, linspace, ode_times, shifted_times};

const TAU: f64 = 0.3;
const START: f64 = 1.3;
const NOISE: f64 = -0.6;

/// Images are their latents here.
#[derive(Default)]
struct Twins {
    /// Whether the streams act on each other.
    coupled: bool,
    /// Times and states of the steps: latent, its clean estimate, and pixels.
    steps: Vec<(f64, f64, f64, Option<f64>)>,
    opened: Option<usize>,
    latent_alone: usize,
    with_pixels: usize,
    /// When the steps of the evaluations began.
    begun: Vec<f64>,
}

fn value(x: &State) -> f64 {
    x.clone().into_scalar::<f64>()
}

/// Velocities of streams that act on each other: half their sum flows as the latents do without pixels, and half their
/// difference w as `dw/dt = w`.
fn coupled(z: State, x: State, t: f64) -> (State, State) {
    let (mean, half) = ((z.clone() + x.clone()) * 0.5, (z - x) * 0.5);
    let v = velocity(mean, t);
    (v.clone() + half.clone(), v - half)
}

/// Where such streams go.
fn coupled_map([z, x]: [f64; 2], from: f64, to: f64) -> [f64; 2] {
    let mean = flow_map(0.5 * (z + x), from, to);
    let half = 0.5 * (z - x) * (to - from).exp();
    [mean + half, mean - half]
}

impl HybridModel for Twins {
    fn gate(&self, t: f64) -> bool {
        (t as f32) < TAU as f32
    }

    fn t_min(&self) -> f64 {
        0.01
    }

    async fn latent(&mut self, z: State, t: f64, step_time: f64) -> Result<State, Stop> {
        self.latent_alone += 1;
        self.begun.push(step_time);
        Ok(velocity(z, t))
    }

    async fn hybrid(
        &mut self,
        z: State,
        x: State,
        t: f64,
        step_time: f64,
    ) -> Result<(State, State), Stop> {
        assert!(self.gate(t), "pixels above the gate, at {t}");
        self.with_pixels += 1;
        self.begun.push(step_time);
        let (v_z, v_x) = match self.coupled {
            true => coupled(z, x.clone(), t),
            false => (velocity(z, t), velocity(x.clone(), t)),
        };
        Ok((v_z, Interpolant::Linear.clean(x, v_x, t)))
    }

    async fn decode(&mut self, z: State) -> Result<State, Stop> {
        Ok(z)
    }

    fn noise(&mut self, draw: Draw) -> State {
        assert_eq!(draw, Draw::PixelStart, "an ODE draws no other noise");
        state(NOISE)
    }

    async fn on_step(&mut self, step: Step<'_>, pixels: Option<Pixels<'_>>) -> Result<(), Stop> {
        let pixels = pixels.map(|pixels| value(pixels.state));
        self.steps.push((step.time, value(step.state), value(step.clean), pixels));
        Ok(())
    }

    fn on_open(&mut self, step: usize, _: &State) {
        self.opened = Some(step);
    }
}

/// The world after a run, the final latent and the image.
fn run_in(mut model: Twins, stepper: Stepper, times: &[f64]) -> (Twins, f64, f64) {
    let end = sample(&mut model, state(START), times, stepper, PixelInit::Decode);
    let end = pollster::block_on(end).expect("nothing stops it");
    let image = end.image.expect("the gate opens");
    (model, value(&end.latent), value(&image))
}

fn run(stepper: Stepper, times: &[f64]) -> (Twins, f64, f64) {
    run_in(Twins::default(), stepper, times)
}

const MULTISTEP: [Stepper; 3] = [Stepper::DpmPp2m, Stepper::DpmPp3m, Stepper::UniPc];

#[test]
fn both_streams_follow_their_flow() {
    for stepper in MULTISTEP.into_iter().chain([Stepper::Heun, Stepper::DpmPp2s]) {
        for times in [ode_times(200), shifted_times(201, 0.5), shifted_times(101, 2.0)] {
            let times = through_gate(times, TAU);
            let (model, latent, image) = run(stepper, &times);
            assert!((latent - flow_map(START, 1.0, 0.0)).abs() < 2e-3, "{stepper:?}: {latent}");
            let open = model.opened.expect("it opens");
            let (t, _, _, pixels) = model.steps[open];
            let expected = flow_map(pixels.expect("pixels"), t, 0.0);
            assert!((image - expected).abs() < 2e-3, "{stepper:?}: {image} {expected}");
        }
    }
}

/// Errors of the latent where the gate opens, and of the two streams from there to the beginning of the last step: on
/// times even in λ, from 0.9 to 0.1.
fn errors(stepper: Stepper, steps: usize) -> [f64; 2] {
    let lambdas = linspace(half_log_snr(0.9), half_log_snr(0.1), steps + 1);
    let times = lambdas.into_iter().map(|lambda| 1.0 / (1.0 + lambda.exp())).collect();
    let times = through_gate(times, TAU);
    let (model, ..) = run_in(Twins { coupled: true, ..Twins::default() }, stepper, &times);
    let (gate, z, _, x) = model.steps[model.opened.expect("it opens")];
    let (end, last_z, _, last_x) = model.steps[model.steps.len() - 1];
    let [exact_z, exact_x] = coupled_map([z, x.expect("pixels")], gate, end);
    let below = (last_z - exact_z).abs().max((last_x.expect("pixels") - exact_x).abs());
    [(z - flow_map(START, times[0], gate)).abs(), below]
}

#[test]
fn solvers_keep_their_order_on_both_sides_of_the_gate() {
    for (stepper, least) in [(Stepper::Euler, 0.9), (Stepper::Heun, 1.8), (Stepper::DpmPp2s, 1.8)] {
        let (coarse, fine) = (errors(stepper, 80), errors(stepper, 160));
        for (side, (coarse, fine)) in ["above", "below"].iter().zip(coarse.iter().zip(fine)) {
            let order = (coarse / fine).log2();
            assert!(
                order >= least,
                "{stepper:?} {side}: order {order}, errors {coarse} and {fine}"
            );
        }
    }
}

/// Where a step begins above the gate, its end and its middle are the latents' alone, too, and guidance is that of its
/// beginning.
#[test]
fn a_step_has_one_network_and_one_guidance() {
    // One grid steps over the gate, the other one onto it.
    for times in [ode_times(5), through_gate(ode_times(20), TAU)] {
        for (stepper, [first, each, last]) in [
            (Stepper::Euler, [1, 1, 1]),
            (Stepper::UniPc, [1, 1, 1]),
            (Stepper::Heun, [2, 2, 1]),
            (Stepper::DpmPp2s, [1, 2, 1]),
        ] {
            let (model, ..) = run(stepper, &times);
            let (steps, open) = (times.len() - 1, model.opened.expect("it opens"));
            assert_eq!(model.steps.len(), steps);
            let alone = first + each * (open - 1) + 1;
            assert_eq!(model.latent_alone, alone, "{stepper:?}, with one to open the gate");
            assert_eq!(model.with_pixels, each * (steps - open - 1) + last, "{stepper:?}");
            assert!(model.begun.iter().all(|t| times.contains(t)), "{stepper:?}");
            assert!(model.begun.is_sorted_by(|before, after| before >= after), "{stepper:?}");
        }
    }
}

/// The network is another one once it has pixels: estimates from before the gate say nothing of it.
#[test]
fn the_past_begins_anew_when_the_gate_opens() {
    for stepper in MULTISTEP {
        let (model, ..) = run(stepper, &ode_times(20));
        let open = model.opened.expect("it opens");
        let first_order = |k: usize| {
            let ((t, z, clean, _), (next, ..)) = (model.steps[k], model.steps[k + 1]);
            let ratio = next / t;
            z * ratio + clean * (1.0 - ratio)
        };
        // The step of the opening goes straight to the estimate; the one before it and the one after it do not.
        assert!((first_order(open) - model.steps[open + 1].1).abs() < 1e-12, "{stepper:?}");
        for other in [open - 1, open + 1] {
            let difference = first_order(other) - model.steps[other + 1].1;
            let bent = difference.abs() > 1e-6;
            assert!(bent, "{stepper:?}: {other} {difference}");
        }
    }
}

/// However many steps there are, the pixels begin at the same time, and so the results converge.
#[test]
fn the_gate_is_a_point_of_the_grid() {
    for steps in [6, 8, 12, 50] {
        for times in [ode_times(steps), shifted_times(steps + 1, 0.5)] {
            let (model, ..) = run(Stepper::DpmPp2m, &through_gate(times, TAU));
            let (t, ..) = model.steps[model.opened.expect("it opens")];
            assert!(t < TAU && TAU - t < 1e-6, "{steps}: {t}");
        }
    }
}
