//! A network that is stepped as the trainer does it, and compared with a golden file after each step.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tintype::burn::module::Module;
use tintype::weights::{
    Flat, TensorView, Which, flat, layout, snapshot, take_flat, views, with_flat,
};
use tintype_trainer::train::adamw::{AdamW, AdamWConfig, Groups, guard, norm};
use tintype_trainer::train::ema::{Ema, EmaConfig};
use tintype_trainer::train::objective::Loss;

use crate::check::{Checks, Tolerance};
use crate::golden::Golden;

/// Parameters after steps, and how far they moved.
const PARAMETER: Tolerance = Tolerance::RelativeL2(1e-5);
const CHANGE: Tolerance = Tolerance::RelativeL2(1e-3);

/// A network with its optimizer and EMAs, as the trainer steps it.
pub(super) struct Stepper<M> {
    pub(super) network: M,
    start: Flat,
    pub(super) optimizer: AdamW,
    /// What the file calls the averages.
    averages: Vec<&'static str>,
    pub(super) emas: Vec<Ema>,
    /// Whether gradients of key biases are compared; without RoPE or a norm of the keys they are rounding noise.
    key_biases: bool,
}

impl<M: Module> Stepper<M> {
    pub(super) fn new(
        network: M,
        optimizer: AdamWConfig,
        emas: &[(&'static str, EmaConfig)],
        groups: Groups,
    ) -> Self {
        let start = flat(&network, Which::All);
        let optimizer = AdamW::new(optimizer, groups);
        // These averages do not count images.
        let of = |&(_, config): &(&'static str, EmaConfig)| Ema::new(config, 1, start.clone());
        let (averages, emas) =
            (emas.iter().map(|ema| ema.0).collect(), emas.iter().map(of).collect());
        Self { network, start, optimizer, averages, emas, key_biases: false }
    }

    /// The same of a network whose key biases have gradients.
    pub(super) fn with_key_biases(self) -> Self {
        Self { key_biases: true, ..self }
    }

    /// One step; returns the gradients' norm.
    pub(super) fn step(&mut self, loss: Loss) -> Result<f64> {
        self.step_with(loss, self.optimizer.config.lr)
    }

    /// The same with another learning rate.
    pub(super) fn step_with(&mut self, loss: Loss, lr: f64) -> Result<f64> {
        let gradients = loss.gradients(&self.network);
        let guard = guard(&gradients, None, self.optimizer.config.max_grad_norm);
        let parameters = take_flat(&mut self.network);
        let emas = &mut self.emas;
        let parameters = self.optimizer.update(parameters, gradients, &guard, emas, lr);
        self.network = with_flat(self.network.clone(), &parameters);
        let values = flat(&self.network, Which::All);
        for ema in emas {
            ema.move_rest(&values, &guard);
            ema.updates += 1;
        }
        let norm = norm(&guard.read());
        Ok(norm)
    }

    /// Compares parameters (with how far they moved) and EMAs that the file expects.
    pub(super) fn check(&self, checks: &mut Checks, golden: &Golden, step: usize) -> Result<()> {
        let shapes = layout(&self.network);
        let (now, start) = (snapshot(&self.network), views(&self.start, &shapes));
        let found = |tensors: &BTreeMap<String, TensorView>, parameter: &str, name: &str| {
            let (mut values, expected) = (get(tensors, parameter)?, golden.values(name)?);
            if !self.key_biases {
                skip_key_bias(parameter, &mut values, &expected);
            }
            Ok::<_, anyhow::Error>((values, expected))
        };
        let prefix = format!("out.step{step}.param.");
        for (name, parameter) in below(golden, &prefix) {
            let (values, expected) = found(&now, &parameter, &name)?;
            let before = get(&start, &parameter)?;
            checks.values(&name, &values, PARAMETER)?;
            let moved =
                |v: &[f64]| -> Vec<f64> { v.iter().zip(&before).map(|(a, b)| a - b).collect() };
            let label = format!("{name} (change)");
            checks.against(&label, &moved(&values), &moved(&expected), CHANGE)?;
        }
        for (ema, average) in self.averages.iter().zip(&self.emas) {
            let average = views(&average.values, &shapes);
            for (name, parameter) in below(golden, &format!("out.step{step}.{ema}.")) {
                checks.values(&name, &found(&average, &parameter, &name)?.0, PARAMETER)?;
            }
        }
        Ok(())
    }
}

/// The expected values whose names begin so, with the rest of their names.
fn below(golden: &Golden, prefix: &str) -> Vec<(String, String)> {
    let one = |name: &String| Some((name.clone(), name.strip_prefix(prefix)?.to_string()));
    golden.outputs().filter_map(one).collect()
}

/// The gradient of a key bias is rounding noise, which AdamW makes a full step of; it is not
/// compared.
fn skip_key_bias(parameter: &str, values: &mut [f64], expected: &[f64]) {
    if parameter.ends_with("attn.qkv.bias") {
        let d = values.len() / 3;
        values[d..2 * d].copy_from_slice(&expected[d..2 * d]);
    }
}

pub(super) fn get(tensors: &BTreeMap<String, TensorView>, name: &str) -> Result<Vec<f64>> {
    Ok(tensors.get(name).with_context(|| format!("there is no {name}"))?.to_f64())
}
