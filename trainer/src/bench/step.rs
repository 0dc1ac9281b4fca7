//! A step of training after its loss, and benchmarks of its parts.

use tintype::burn::module::AutodiffModule;
use tintype::burn::tensor::Tensor;
use tintype::weights::{Flat, Which, flat, flat_gradients, take_flat, with_flat};

use super::{Bench, Measurement};
use crate::train::adamw::{AdamW, AdamWConfig, Group, guard};
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
        self.update(gradients, &mut []);
    }

    /// Gradient norm, clipping, AdamW and the EMAs.
    fn update(&mut self, gradients: Flat, emas: &mut [Ema]) {
        let guard = guard(&gradients, None, self.optimizer.config.max_grad_norm);
        let parameters = take_flat(&mut self.network);
        let parameters = self.optimizer.update(parameters, gradients, &guard, emas, 1e-4);
        self.network = with_flat(self.network.clone(), &parameters);
        if !emas.is_empty() {
            let values = flat(&self.network, Which::All);
            emas.iter_mut().for_each(|ema| ema.move_rest(&values, &guard));
        }
    }
}

/// What follows the gradients, in float32: their global norm, AdamW with the norm and clipping, and the same with an EMA;
/// those that are wanted.
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
    add("gradient norm", bytes(&gradients), &mut || {
        guard(&gradients, None, Some(1.0));
    });
    // The norm reads the gradients. A step reads them again, reads and writes parameters and moments, and then the EMA.
    add("adamw", 8.0 * bytes(&gradients), &mut || step.update(gradients.clone(), &mut []));
    let mut emas = [Ema::new(EmaConfig::Constant { decay: 0.9999 }, 1, all)];
    add("adamw and ema", 10.0 * bytes(&gradients), &mut || {
        step.update(gradients.clone(), &mut emas);
    });
    found
}
