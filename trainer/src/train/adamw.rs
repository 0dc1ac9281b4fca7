//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with all of PyTorch's settings, on flat tensors by
//! name. Burn's own has other defaults, no parameter groups and clips each tensor by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::shaders::{AdamWStep, adamw};
use tintype::weights::{Dtype, Flat, TensorView, Weights, views};

/// The settings of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay: `p ← p·(1 − lr·weight_decay)`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradients are scaled down to this global L2 norm; absent for no clipping.
    #[serde(default)]
    pub max_grad_norm: Option<f64>,
    /// k-diffusion's warm-up: the rate of step n (from 0) is `lr·(1 − warmup^(n+1))`; 0 for none.
    #[serde(default)]
    pub warmup: f64,
}

fn default_eps() -> f64 {
    1e-8
}

impl AdamWConfig {
    /// The learning rate of a step, counted from 0.
    pub fn lr_at(&self, step: u64) -> f64 {
        self.lr * (1.0 - self.warmup.powf(step as f64 + 1.0))
    }
}

/// A parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor of the learning rate.
    pub lr_scale: f64,
    /// Whether weight decay applies.
    pub decay: bool,
}

impl Group {
    /// All parameters alike.
    pub const PLAIN: Self = Self { lr_scale: 1.0, decay: true };
}

/// The group of a parameter by its name.
pub type Groups = fn(&str) -> Group;

/// Moments of one parameter.
#[derive(Clone, Debug)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
    /// Number of updates, per parameter.
    steps: u64,
}

/// The optimizer.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Its settings.
    pub config: AdamWConfig,
    groups: Groups,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimizer with empty state.
    pub fn new(config: AdamWConfig, groups: Groups) -> Self {
        Self { config, groups, moments: BTreeMap::new() }
    }

    /// Returns the updated parameters; those without a gradient keep their values and have no state.
    ///
    /// # Shapes
    ///
    /// * `parameters`, `gradients`: `[n]` a name
    /// * returns the shapes of `parameters`
    ///
    /// # Panics
    ///
    /// If a gradient has another size than its parameter.
    pub fn update(&mut self, parameters: Flat, gradients: &Flat, lr: f64) -> Flat {
        let step = |(name, p): (String, Tensor<1>)| {
            let new = match gradients.get(&name) {
                Some(gradient) => self.update_one(&name, p, gradient.clone(), lr),
                None => p,
            };
            (name, new)
        };
        parameters.into_iter().map(step).collect()
    }

    fn update_one(&mut self, name: &str, p: Tensor<1>, g: Tensor<1>, lr: f64) -> Tensor<1> {
        let AdamWConfig { betas: [beta1, beta2], eps, weight_decay, .. } = self.config;
        let group = (self.groups)(name);
        let lr = lr * group.lr_scale;
        let decay = if group.decay { 1.0 - lr * weight_decay } else { 1.0 };
        let Moments { first, second, steps } = self
            .moments
            .remove(name)
            .unwrap_or_else(|| Moments { first: g.zeros_like(), second: g.zeros_like(), steps: 0 });
        let n = (steps + 1) as i32;
        let (bias1, bias2) = (1.0 - beta1.powi(n), 1.0 - beta2.powi(n));
        let step = AdamWStep {
            betas: [beta1, beta2],
            decay,
            rate: lr / bias1,
            root: 1.0 / bias2.sqrt(),
            eps,
        };
        let (p, [first, second]) = adamw(p, g, [first, second], step);
        self.moments.insert(name.into(), Moments { first, second, steps: steps + 1 });
        p
    }

    /// The optimizer state as tensors `first.NAME`, `second.NAME` and `steps.NAME` (step counts).
    ///
    /// # Panics
    ///
    /// Never: the eight bytes of a step count always make one number.
    pub fn to_tensors(&self) -> BTreeMap<String, TensorView> {
        let mut moments = Flat::new();
        let mut out = BTreeMap::new();
        for (name, Moments { first, second, steps }) in &self.moments {
            moments.insert(format!("first.{name}"), first.clone());
            moments.insert(format!("second.{name}"), second.clone());
            let steps = (*steps as i64).to_le_bytes().to_vec();
            let steps = TensorView::from_bytes(Dtype::I64, vec![], steps);
            out.insert(format!("steps.{name}"), steps.expect("eight bytes make one number"));
        }
        out.extend(views(&moments, &BTreeMap::new()));
        out
    }

    /// Restores the state of [`to_tensors`](Self::to_tensors) for the named parameters.
    pub fn restore(&mut self, weights: &Weights, parameters: &Flat, device: &Device) {
        for (name, parameter) in parameters {
            let get = |kind: &str| weights.tensors.get(&format!("{kind}.{name}"));
            let (Some(first), Some(second), Some(steps)) =
                (get("first"), get("second"), get("steps"))
            else {
                continue;
            };
            if first.len() != parameter.dims()[0] || second.len() != first.len() {
                continue;
            }
            let tensor = |view: &TensorView| {
                let values = view.to_f32();
                let n = values.len();
                Tensor::<1>::from_data(TensorData::new(values, [n]), device)
            };
            let steps = steps.to_i64().first().copied().unwrap_or(0) as u64;
            let moments = Moments { first: tensor(first), second: tensor(second), steps };
            self.moments.insert(name.clone(), moments);
        }
    }
}

/// The global L2 norm of gradients, `[1]` on their device.
pub fn global_norm(gradients: &Flat) -> Option<Tensor<1>> {
    let squares: Vec<_> = gradients.values().map(|g| g.clone().square().sum()).collect();
    (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum().sqrt())
}

/// Gradients scaled by `min(1, max/(norm + 1e-6))`, as `clip_grad_norm_` does.
pub fn clip(gradients: Flat, norm: f64, max: f64) -> Flat {
    let factor = max / (norm + 1e-6);
    match factor < 1.0 {
        true => gradients.into_iter().map(|(name, g)| (name, g * factor)).collect(),
        false => gradients,
    }
}
