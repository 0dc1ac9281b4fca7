//! A step of training after its loss, and benchmarks of its parts.

use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::Tensor;
use tintype::weights::{Flat, Which, flat, flat_gradients, take_flat, with_flat};

use super::{Bench, Measurement};
use crate::train::adamw::{AdamW, AdamWConfig, Group, clip_scale, global_norm};
use crate::train::ema::{Ema, EmaConfig};

/// A network and its optimizer.
pub(super) struct Step<M> {
    network: M,
    optimizer: AdamW,
}

impl<M: AutodiffModule> Step<M> {
    pub(super) fn new(network: M) -> Self {
        let config = AdamWConfig {
            weight_decay: 0.01,
            max_grad_norm: Some(1.0),
            ..AdamWConfig::new(1e-4, [0.9, 0.999])
        };
        Self { network, optimizer: AdamW::new(config, |_| Group::PLAIN) }
    }

    pub(super) fn run(&mut self, loss: impl FnOnce(&M) -> Tensor<1>) {
        let gradients = flat_gradients(&self.network, &loss(&self.network).backward());
        self.update(&gradients, scale(&gradients));
    }

    fn update(&mut self, gradients: &Flat, scale: f64) {
        let parameters = take_flat(&mut self.network);
        let parameters = self.optimizer.update(parameters, gradients, scale, 1e-4);
        self.network = with_flat(self.network.clone(), &parameters);
    }
}

/// What gradients are multiplied by for a global norm of 1 at most.
fn scale(gradients: &Flat) -> f64 {
    let norm = global_norm(gradients)
        .map_or(0.0, |norm| norm.into_data().convert::<f32>().iter::<f64>().next().unwrap_or(0.0));
    clip_scale(norm, Some(1.0))
}

/// Clipping by the global norm (the norm; AdamW multiplies by the scale), AdamW and the EMA, in float32, those that are
/// wanted.
pub(super) fn after_gradients<M: AutodiffModule>(
    bench: &Bench,
    mut step: Step<M>,
) -> Vec<Measurement> {
    let all = flat(&step.network, Which::All);
    let trained = flat(&step.network, Which::Trainable);
    let gradient = |(name, parameter): (String, Tensor<1>)| {
        (name, bench.values_on(parameter.dims(), &bench.device)) // [n]
    };
    let gradients: Flat = trained.into_iter().map(gradient).collect();
    let bytes = |values: &Flat| 4.0 * values.values().map(|v| v.dims()[0] as f64).sum::<f64>();
    let mut found = Vec::new();
    let mut add = |name: &str, bytes: f64, call: &mut dyn FnMut()| {
        found.extend(bench.operation(name.into(), 0.0, bytes, call));
    };
    add("gradient norm and clip", bytes(&gradients), &mut || {
        scale(&gradients);
    });
    let clips = scale(&gradients);
    add("adamw", 7.0 * bytes(&gradients), &mut || step.update(&gradients, clips));
    let mut ema = Ema::new(EmaConfig::Constant { decay: 0.9999 }, 1, all.clone());
    add("ema", 3.0 * bytes(&all), &mut || ema.update(&all));
    found
}
