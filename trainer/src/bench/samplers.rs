//! How close samplers come to the solution of their ODE with how many evaluations of the network: for normal data,
//! where the solution is known, and for the emoji model, against many steps of one sampler from the same noise.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tintype::Precision;
use tintype::burn::tensor::Device;
use tintype::device::Found;
use tintype::diffusion::flow::{Interpolant, ode_times};
use tintype::generate::{
    Event, ImageSpec, ModelFiles, ModelPaths, Pipeline, Request, Sampler, Settings,
};
use tintype::noise::{self, ImageKey, Stream};
use tintype::sampler::{Model, State, Stop, flow, flow_multistep};

/// Evaluations that samplers get.
const EVALUATIONS: [usize; 6] = [6, 8, 12, 16, 24, 50];

/// Distances of samplers from the solution of one problem.
#[derive(Clone, Debug, Serialize)]
pub struct Distances {
    /// What is sampled.
    pub problem: String,
    /// What the distances are from.
    pub reference: String,
    /// Evaluations, of the columns.
    pub evaluations: Vec<usize>,
    /// One row a sampler.
    pub samplers: Vec<Row>,
}

/// Distances of one sampler.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The sampler.
    pub sampler: &'static str,
    /// Its steps with these evaluations.
    pub steps: Vec<usize>,
    /// Root of the mean squared difference of the final states.
    pub rms: Vec<f64>,
}

/// Steps that take so many evaluations, or one less. A guided evaluation counts once, and Hi-DiT's additional one,
/// when its gate opens, not at all.
fn steps(sampler: Sampler, evaluations: usize) -> usize {
    match sampler {
        Sampler::Heun => evaluations.div_ceil(2), // the last step takes one
        Sampler::DpmPp2s => evaluations / 2 + 1,  // the first and the last take one
        _ => evaluations,
    }
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / a.len().max(1) as f64).sqrt()
}

/// One row of each sampler that follows the ODE with steps that can be chosen.
fn rows(
    samplers: &[Sampler],
    reference: &[f64],
    tell: &mut dyn FnMut(String),
    mut solve: impl FnMut(Sampler, usize) -> Result<Vec<f64>>,
) -> Result<Vec<Row>> {
    let follows = |sampler: &Sampler| !sampler.is_adaptive() && !sampler.is_stochastic();
    let mut rows = Vec::new();
    for sampler in samplers.iter().copied().filter(follows) {
        let steps = EVALUATIONS.map(|evaluations| steps(sampler, evaluations)).to_vec();
        let mut distances = Vec::with_capacity(steps.len());
        for &steps in &steps {
            tell(format!("{}, {steps} steps", sampler.name()));
            let found = solve(sampler, steps)?;
            ensure!(found.len() == reference.len(), "{} makes other shapes", sampler.name());
            distances.push(rms(&found, reference));
        }
        rows.push(Row { sampler: sampler.name(), steps, rms: distances });
    }
    Ok(rows)
}

/// The network of normal data `x₀ ~ N(m, s²)`.
struct Gaussian;

impl Gaussian {
    const MEAN: f64 = 0.7;
    const SPREAD: f64 = 0.4;
    /// Values that are sampled.
    const COUNT: usize = 256;
}

impl Model for Gaussian {
    async fn predict(&mut self, x: State, t: f64, _: f64) -> Result<State, Stop> {
        let alpha = 1.0 - t;
        let variance = (alpha * Self::SPREAD).powi(2) + t * t;
        let z = (x - alpha * Self::MEAN) / variance;
        let clean = z.clone() * (alpha * Self::SPREAD * Self::SPREAD) + Self::MEAN;
        Ok(z * t - clean)
    }

    /// An ODE asks for none.
    fn noise(&mut self, draw: usize) -> State {
        start(draw as u32)
    }
}

fn start(draw: u32) -> State {
    let key = ImageKey::new(0, 0);
    noise::batch(&[key], Stream::Start, draw, [1, 1, Gaussian::COUNT], &Device::flex())
}

fn values(x: State) -> Vec<f64> {
    x.into_data().convert::<f64>().iter::<f64>().collect()
}

/// Distances for normal data, on even times.
///
/// # Errors
///
/// If the device fails.
pub fn gaussian_distances() -> Result<Distances> {
    let exact: Vec<f64> =
        values(start(0)).into_iter().map(|x| Gaussian::MEAN + Gaussian::SPREAD * x).collect();
    let samplers = rows(&Sampler::FLOW, &exact, &mut |_: String| {}, |sampler, steps| {
        let (times, path) = (ode_times(steps), Interpolant::Linear);
        let (model, x) = (&mut Gaussian, start(0));
        let end = pollster::block_on(async {
            match sampler {
                Sampler::Heun => flow::heun(model, x, &times, path).await,
                Sampler::DpmPp2m => flow_multistep::dpmpp_2m(model, x, &times).await,
                Sampler::DpmPp3m => flow_multistep::dpmpp_3m(model, x, &times).await,
                Sampler::DpmPp2s => flow_multistep::dpmpp_2s(model, x, &times).await,
                Sampler::UniPc => flow_multistep::unipc(model, x, &times, 3).await,
                _ => flow::euler(model, x, &times, path).await,
            }
        })?;
        Ok(values(end))
    })?;
    Ok(Distances {
        problem: format!("normal data, mean {}, deviation {}", Gaussian::MEAN, Gaussian::SPREAD),
        reference: "the exact solution".into(),
        evaluations: EVALUATIONS.to_vec(),
        samplers,
    })
}

/// Distances for the emoji model with its usual guidance: of the final images in −1…1. The reference is
/// DPM-Solver++(2M), of the second order, with `reference_steps` steps from the same noise.
///
/// # Errors
///
/// If the emoji model is not in the program or does not fit the device, or the device fails.
pub fn emoji_distances(
    found: &Found,
    precision: Precision,
    images: usize,
    reference_steps: usize,
    tell: &mut dyn FnMut(String),
) -> Result<Distances> {
    let pipeline = ModelFiles::open(&ModelPaths::default())?.load(precision, found)?;
    let samplers = pipeline.architecture().samplers();
    let reference = Sampler::DpmPp2m;
    let name = format!("{}, {reference_steps} steps", reference.name());
    tell(format!("reference: {name}"));
    let exact = final_state(&pipeline, reference, reference_steps, images)?;
    let samplers = rows(samplers, &exact, tell, |sampler, steps| {
        final_state(&pipeline, sampler, steps, images)
    })?;
    Ok(Distances {
        problem: format!("emoji, {images} images"),
        reference: name,
        evaluations: EVALUATIONS.to_vec(),
        samplers,
    })
}

/// What the last step shows, which is where all of these samplers end: the image, or the latent without one.
fn final_state(
    pipeline: &Pipeline,
    sampler: Sampler,
    steps: usize,
    images: usize,
) -> Result<Vec<f64>> {
    let usual = pipeline.architecture().default_settings();
    let settings = Settings { sampler, steps, ..usual };
    let classes = pipeline.labels().len();
    let spec = |i: usize| ImageSpec::new(i.checked_rem(classes), i as u64, 0);
    let request = Request { settings, images: (0..images).map(spec).collect() };
    let mut last: Option<State> = None;
    let mut keep = async |event: Event<'_>| {
        if let Event::Step { preview, .. } = event {
            last = Some(preview.pixels.unwrap_or(preview.clean).clone());
        }
        Ok(())
    };
    pollster::block_on(pipeline.generate(&request, &mut keep))?;
    Ok(values(last.context("there was no step")?))
}

impl fmt::Display for Distances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: RMS distance from {}, by evaluations", self.problem, self.reference)?;
        write!(f, "{:<16}", "sampler")?;
        for evaluations in &self.evaluations {
            write!(f, " {evaluations:>9}")?;
        }
        for row in &self.samplers {
            write!(f, "\n{:<16}", row.sampler)?;
            for distance in &row.rms {
                write!(f, " {distance:>9.2e}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_kept() {
        // Evaluations of Heun's method are 2n − 1, of the midpoint 2n − 2.
        assert_eq!(steps(Sampler::Heun, 6), 3);
        assert_eq!(steps(Sampler::Heun, 7), 4);
        assert_eq!(steps(Sampler::DpmPp2s, 6), 4);
        assert_eq!(steps(Sampler::UniPc, 6), 6);
    }

    #[test]
    fn solvers_of_higher_order_come_closer() {
        let distances = gaussian_distances().expect("the processor computes it");
        let of = |name: &str| {
            let row = distances.samplers.iter().find(|row| row.sampler == name);
            row.expect("it is one of them").rms.clone()
        };
        assert_eq!(distances.samplers.len(), 6, "neither the SDE's nor the adaptive one");
        // With few steps two evaluations each do not pay.
        for (name, columns) in
            [("dpmpp-2m", 0), ("dpmpp-3m", 0), ("unipc", 0), ("heun", 3), ("dpmpp-2s", 3)]
        {
            for (other, euler) in of(name).iter().zip(of("euler")).skip(columns) {
                assert!(*other < euler, "{name}: {other} {euler}");
            }
        }
        let table = distances.to_string();
        assert!(table.lines().count() == 8 && table.contains("unipc"), "{table}");
    }
}
