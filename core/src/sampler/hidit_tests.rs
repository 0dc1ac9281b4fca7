//! Multistep solvers on two streams of normal data, whose velocities and flow map are known.

use super::hidit::{Draw, HybridModel, PixelInit, Pixels, Stepper, sample};
use super::order_tests::{flow_map, state, velocity};
use super::times::through_gate;
use super::{State, Step, Stop};
use crate::diffusion::flow::{Interpolant, ode_times};

const TAU: f64 = 0.3;
const NOISE: f64 = -0.6;

/// Images are their latents here.
#[derive(Default)]
struct Twins {
    /// Times and states of the steps: latent, its clean estimate, and pixels.
    steps: Vec<(f64, f64, f64, Option<f64>)>,
    opened: Option<usize>,
    latent_alone: usize,
}

fn value(x: &State) -> f64 {
    x.clone().into_scalar::<f64>()
}

impl HybridModel for Twins {
    fn gate(&self, t: f64) -> bool {
        (t as f32) < TAU as f32
    }

    fn t_min(&self) -> f64 {
        0.01
    }

    async fn latent(&mut self, z: State, t: f64) -> Result<State, Stop> {
        self.latent_alone += 1;
        Ok(velocity(z, t))
    }

    async fn hybrid(&mut self, z: State, x: State, t: f64) -> Result<(State, State), Stop> {
        let image = Interpolant::Linear.clean(x.clone(), velocity(x, t), t);
        Ok((velocity(z, t), image))
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
fn run(stepper: Stepper, times: &[f64]) -> (Twins, f64, f64) {
    let mut model = Twins::default();
    let end = sample(&mut model, state(1.3), times, stepper, PixelInit::Decode);
    let end = pollster::block_on(end).expect("nothing stops it");
    let image = end.image.expect("the gate opens");
    (model, value(&end.latent), value(&image))
}

const SOLVERS: [Stepper; 3] = [Stepper::DpmPp2m, Stepper::DpmPp3m, Stepper::UniPc];

#[test]
fn both_streams_follow_their_flow() {
    for stepper in SOLVERS {
        let times = through_gate(ode_times(200), TAU);
        let (model, latent, image) = run(stepper, &times);
        assert!((latent - flow_map(1.3, 1.0, 0.0)).abs() < 2e-3, "{stepper:?}: {latent}");
        let open = model.opened.expect("it opens");
        let (t, _, _, pixels) = model.steps[open];
        let expected = flow_map(pixels.expect("pixels"), t, 0.0);
        assert!((image - expected).abs() < 2e-3, "{stepper:?}: {image} {expected}");
        assert_eq!(model.latent_alone, open + 1, "once for each step before, and to open");
    }
}

/// The network is another one once it has pixels: estimates from before the gate say nothing of it.
#[test]
fn the_past_begins_anew_when_the_gate_opens() {
    for stepper in SOLVERS {
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
        let (model, ..) = run(Stepper::DpmPp2m, &through_gate(ode_times(steps), TAU));
        let (t, ..) = model.steps[model.opened.expect("it opens")];
        assert!(t < TAU && TAU - t < 1e-6, "{steps}: {t}");
    }
}
