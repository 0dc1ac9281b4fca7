//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with all of PyTorch's settings, on flat tensors by
//! name. Burn's own has other defaults, no parameter groups and clips each tensor by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::shaders::{
    AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard, adamw_all, sum_of_squares,
};
use tintype::weights::{Dtype, Flat, TensorView, Weights, views};

use super::ema::Ema;
use super::muon::{self, Adam, muon};
use super::schedule::{Schedule, WarmUp};

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
    /// Linear warm-up over so many steps.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Where it begins.
    #[serde(default)]
    pub warmup_from: WarmUp,
    /// How the rate falls after the warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// The step from which the rate is `final_lr`; default: `run.steps` of the configuration.
    #[serde(default)]
    pub decay_steps: Option<u64>,
    /// The last learning rate (not a fraction of `lr`); default: 0.
    #[serde(default)]
    pub final_lr: Option<f64>,
    /// Muon for the matrices of linear layers, and Adam with the same look-ahead for the rest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub muon: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn default_eps() -> f64 {
    1e-8
}

impl AdamWConfig {
    /// A constant learning rate, PyTorch's `eps`, neither weight decay nor clipping.
    pub fn new(lr: f64, betas: [f64; 2]) -> Self {
        Self {
            lr,
            betas,
            eps: default_eps(),
            weight_decay: 0.0,
            max_grad_norm: None,
            warmup: 0.0,
            warmup_steps: 0,
            warmup_from: WarmUp::Step,
            schedule: Schedule::Constant,
            decay_steps: None,
            final_lr: None,
            muon: false,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr_at(&self, step: u64) -> f64 {
        let lr = match step < self.warmup_steps {
            true => self.lr * self.warmup_from.share(step, self.warmup_steps),
            false => {
                let total = self.decay_steps.unwrap_or(0).saturating_sub(self.warmup_steps);
                let last = self.final_lr.unwrap_or(0.0);
                self.schedule.rate(self.lr, last, step - self.warmup_steps, total)
            }
        };
        lr * (1.0 - self.warmup.powf(step as f64 + 1.0))
    }
}

/// Why the state of an optimizer cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizerStateError {
    /// One of a parameter's tensors is missing.
    #[error("{file} lacks {tensor}")]
    Missing {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// A moment does not have the size of its parameter.
    #[error("{file}: {tensor} has {found} values, but the parameter has {expected}")]
    Size {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Values in the file.
        found: usize,
        /// Values of the parameter.
        expected: usize,
    },
    /// A moment is NaN or infinite.
    #[error("{file}: {tensor} is not finite")]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// There are moments of fewer or more parameters than the file was written with.
    #[error(
        "{file} has the moments of {found} parameters, but was written with those of {expected}"
    )]
    Count {
        /// The file.
        file: String,
        /// Parameters in the file that the network has, too.
        found: usize,
        /// Parameters that it was written with.
        expected: usize,
    },
}

/// The metadata of an optimizer's file with the number of parameters that have moments.
const COUNT: &str = "moments";

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
    /// Muon has none.
    second: Option<Tensor<1>>,
    /// Number of updates, per parameter.
    steps: u64,
}

/// The optimizer.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Its settings.
    pub config: AdamWConfig,
    groups: Groups,
    /// Shapes `[out, in]` of the matrices that Muon steps.
    matrices: BTreeMap<String, [usize; 2]>,
    moments: BTreeMap<String, Moments>,
    /// The parameters of the last step.
    last: Vec<String>,
}

impl AdamW {
    /// An optimizer with empty state.
    pub fn new(config: AdamWConfig, groups: Groups) -> Self {
        Self {
            config,
            groups,
            matrices: BTreeMap::new(),
            moments: BTreeMap::new(),
            last: Vec::new(),
        }
    }

    /// The same with Muon for these matrices, of shape `[out, in]`, where the settings want it.
    pub fn with_matrices(self, matrices: BTreeMap<String, [usize; 2]>) -> Self {
        Self { matrices, ..self }
    }

    /// The shape of a parameter that Muon steps.
    fn matrix(&self, name: &str) -> Option<[usize; 2]> {
        self.matrices.get(name).copied().filter(|_| self.config.muon)
    }

    /// Returns the parameters after a step with these gradients, and moves the EMAs of those that have one; parameters
    /// without a gradient keep their values and have no state. Where a number of `guard` is not finite all stay as they
    /// are, and [`take_back`](Self::take_back) has to follow. Parameters that nobody else refers to are written in place.
    ///
    /// Muon reads the numbers of `guard` first; AdamW leaves them on the device.
    ///
    /// # Shapes
    ///
    /// * `parameters`, `gradients`: `[n]` a name
    /// * returns the shapes of `parameters`
    ///
    /// # Panics
    ///
    /// If a gradient has another size than its parameter, or a matrix of
    /// [`with_matrices`](Self::with_matrices).
    pub fn update(
        &mut self,
        parameters: Flat,
        mut gradients: Flat,
        guard: &StepGuard,
        emas: &mut [Ema],
        lr: f64,
    ) -> Flat {
        self.last.clear();
        let mut after = Flat::new();
        if self.config.muon {
            let numbers = guard.read();
            let Some(scale) = StepGuard::scale(&numbers, guard.max_norm) else { return parameters };
            for (name, p) in parameters {
                let p = match gradients.remove(&name) {
                    None => p,
                    Some(g) => self.muon_step(&name, p, scaled(g, scale), lr),
                };
                after.insert(name, p);
            }
            return after;
        }
        let (mut names, mut updates) = (Vec::new(), Vec::new());
        for (name, p) in parameters {
            match gradients.remove(&name) {
                None => {
                    after.insert(name, p);
                }
                Some(g) => {
                    let (mut update, steps) = self.adamw_step(&name, p, g, lr);
                    update.averages = emas.iter_mut().filter_map(|ema| ema.take(&name)).collect();
                    debug_assert!([0, emas.len()].contains(&update.averages.len()));
                    updates.push(update);
                    names.push((name, steps));
                }
            }
        }
        for ((name, steps), updated) in names.into_iter().zip(adamw_all(updates, guard)) {
            let AdamWUpdated { parameter, moments: [first, second], averages } = updated;
            for (ema, average) in emas.iter_mut().zip(averages) {
                ema.put(&name, average);
            }
            self.moments.insert(name.clone(), Moments { first, second: Some(second), steps });
            after.insert(name.clone(), parameter);
            self.last.push(name);
        }
        after
    }

    /// Forgets that the last step was made, since its guard did not let it change anything.
    pub fn take_back(&mut self) {
        for name in self.last.drain(..) {
            let Some(moments) = self.moments.get_mut(&name) else { continue };
            moments.steps -= 1;
            if moments.steps == 0 {
                self.moments.remove(&name);
            }
        }
    }

    /// The learning rate of a parameter and what weight decay multiplies it by.
    fn rates(&self, name: &str, lr: f64) -> (f64, f64) {
        let group = (self.groups)(name);
        let lr = lr * group.lr_scale;
        (lr, if group.decay { 1.0 - lr * self.config.weight_decay } else { 1.0 })
    }

    /// The moments of a parameter, taken out of the state: while a step writes them, nobody else holds them.
    fn taken(&mut self, name: &str, g: &Tensor<1>) -> Moments {
        let new = || Moments { first: g.zeros_like(), second: None, steps: 0 };
        self.moments.remove(name).unwrap_or_else(new)
    }

    /// AdamW's step of a parameter, and the number of its steps after it.
    fn adamw_step(
        &mut self,
        name: &str,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        lr: f64,
    ) -> (AdamWUpdate, u64) {
        let AdamWConfig { betas: [beta1, beta2], eps, .. } = self.config;
        let (lr, decay) = self.rates(name, lr);
        let Moments { first, second, steps } = self.taken(name, &gradient);
        let second = second.unwrap_or_else(|| gradient.zeros_like());
        let n = (steps + 1) as i32;
        let (bias1, bias2) = (1.0 - beta1.powi(n), 1.0 - beta2.powi(n));
        let step = AdamWStep {
            betas: [beta1, beta2],
            decay,
            rate: lr / bias1,
            root: 1.0 / bias2.sqrt(),
            eps,
        };
        let moments = [first, second];
        let averages = Vec::new();
        (AdamWUpdate { parameter, gradient, moments, averages, step }, steps + 1)
    }

    /// The step of Muon, or of its Adam, and the parameter after it.
    fn muon_step(&mut self, name: &str, p: Tensor<1>, g: Tensor<1>, lr: f64) -> Tensor<1> {
        let AdamWConfig { betas, eps, .. } = self.config;
        let (lr, decay) = self.rates(name, lr);
        let Moments { first, second, steps } = self.taken(name, &g);
        let step = muon::Step { lr, decay, number: steps + 1 };
        let (p, first, second) = match self.matrix(name) {
            Some(shape) => {
                let [n] = p.dims();
                let [p, g, first] = [p, g, first].map(|x| -> Tensor<2> { x.reshape(shape) });
                let (p, first) = muon(p, g, first, step);
                (p.reshape([n]), first.reshape([n]), None)
            }
            None => {
                let second = second.unwrap_or_else(|| g.zeros_like());
                let adam = Adam { betas, eps };
                let (p, [first, second]) = muon::adam(p, g, [first, second], adam, step);
                (p, first, Some(second))
            }
        };
        self.moments.insert(name.into(), Moments { first, second, steps: steps + 1 });
        p
    }

    /// The optimizer state as tensors `first.NAME`, `second.NAME` (none of Muon's matrices) and `steps.NAME` (step
    /// counts).
    ///
    /// # Panics
    ///
    /// Never: the eight bytes of a step count always make one number.
    pub fn to_tensors(&self) -> BTreeMap<String, TensorView> {
        let mut moments = Flat::new();
        let mut out = BTreeMap::new();
        for (name, Moments { first, second, steps }) in &self.moments {
            moments.insert(format!("first.{name}"), first.clone());
            if let Some(second) = second {
                moments.insert(format!("second.{name}"), second.clone());
            }
            let steps = (*steps as i64).to_le_bytes().to_vec();
            let steps = TensorView::from_bytes(Dtype::I64, vec![], steps);
            out.insert(format!("steps.{name}"), steps.expect("eight bytes make one number"));
        }
        out.extend(views(&moments, &BTreeMap::new()));
        out
    }

    /// The metadata of a file with [`to_tensors`](Self::to_tensors), by which missing moments are noticed.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let count = self.moments.len().to_string();
        BTreeMap::from([("format".to_string(), "pt".to_string()), (COUNT.to_string(), count)])
    }

    /// Restores the state of [`to_tensors`](Self::to_tensors) for the named parameters; one without moments
    /// in the file begins without. Returns how many have them.
    ///
    /// # Errors
    ///
    /// * [`OptimizerStateError::Missing`]: one of the three tensors of a parameter is missing.
    /// * [`OptimizerStateError::Size`]: a moment has another size than its parameter.
    /// * [`OptimizerStateError::NotFinite`]: a moment is NaN or infinite.
    pub fn take(
        &mut self,
        weights: &Weights,
        parameters: &Flat,
        device: &Device,
    ) -> Result<usize, OptimizerStateError> {
        self.moments.clear();
        let file = || weights.file.clone();
        for (name, parameter) in parameters {
            let kinds = ["first", "second", "steps"].map(|kind| format!("{kind}.{name}"));
            if !kinds.iter().any(|tensor| weights.tensors.contains_key(tensor)) {
                continue;
            }
            let get = |tensor: &String| {
                let missing =
                    || OptimizerStateError::Missing { file: file(), tensor: tensor.clone() };
                weights.tensors.get(tensor).ok_or_else(missing)
            };
            let [first, second, steps] = &kinds;
            let moment = |tensor: &String| -> Result<Tensor<1>, OptimizerStateError> {
                let view = get(tensor)?;
                let (found, expected) = (view.len(), parameter.dims()[0]);
                if found != expected {
                    let tensor = tensor.clone();
                    return Err(OptimizerStateError::Size {
                        file: file(),
                        tensor,
                        found,
                        expected,
                    });
                }
                let values = view.to_f32();
                if !values.iter().all(|v| v.is_finite()) {
                    let tensor = tensor.clone();
                    return Err(OptimizerStateError::NotFinite { file: file(), tensor });
                }
                Ok(Tensor::<1>::from_data(TensorData::new(values, [found]), device))
            };
            let second = match self.matrix(name) {
                Some(_) => None,
                None => Some(moment(second)?),
            };
            let first = moment(first)?;
            let missing = || OptimizerStateError::Missing { file: file(), tensor: steps.clone() };
            let steps = get(steps)?.to_i64().first().copied().ok_or_else(missing)? as u64;
            self.moments.insert(name.clone(), Moments { first, second, steps });
        }
        Ok(self.moments.len())
    }

    /// As [`take`](Self::take), of the same network: every moment that the file was written with is there.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take), and [`OptimizerStateError::Count`] if the moments of a parameter are missing
    /// or those of another network are there.
    pub fn restore(
        &mut self,
        weights: &Weights,
        parameters: &Flat,
        device: &Device,
    ) -> Result<(), OptimizerStateError> {
        let found = self.take(weights, parameters, device)?;
        let expected = match weights.metadata.get(COUNT).and_then(|count| count.parse().ok()) {
            Some(count) => count,
            // Earlier versions did not write it.
            None => weights.tensors.keys().filter(|name| name.starts_with("steps.")).count(),
        };
        match found == expected {
            true => Ok(()),
            false => {
                Err(OptimizerStateError::Count { file: weights.file.clone(), found, expected })
            }
        }
    }
}

/// What lets a step happen: the global norm of its gradients, and other numbers that must be finite.
///
/// # Shapes
///
/// * `gradients`: `[n]` a name
/// * `numbers`: `[k]`
pub fn guard(gradients: &Flat, numbers: Option<Tensor<1>>, max_norm: Option<f64>) -> StepGuard {
    let gradients: Vec<_> = gradients.values().cloned().collect();
    let squares = match (gradients.is_empty(), &numbers) {
        (false, _) => sum_of_squares(gradients),
        (true, Some(numbers)) => Tensor::zeros([1], &numbers.device()),
        (true, None) => Tensor::zeros([1], &Device::flex()),
    };
    let numbers = match numbers {
        Some(numbers) => Tensor::cat(vec![squares, numbers], 0), // [1 + k]
        None => squares,
    };
    StepGuard { numbers, max_norm }
}

/// The global L2 norm of gradients from the numbers of a guard.
pub fn norm(numbers: &[f32]) -> f64 {
    f64::from(numbers.first().map_or(0.0, |squares| squares.sqrt()))
}

/// The global L2 norm of gradients, read back; 0 of none.
pub fn norm_of(gradients: &Flat) -> f64 {
    norm(&guard(gradients, None, None).read())
}

/// A gradient that is clipped; one that is not costs nothing.
fn scaled(g: Tensor<1>, scale: f64) -> Tensor<1> {
    if scale == 1.0 { g } else { g * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ema::EmaConfig;

    #[test]
    fn clipping_is_part_of_a_step() {
        let row = |v: [f32; 3]| Tensor::<1>::from_floats(v, &Device::flex());
        let of = |v: [f32; 3]| Flat::from([("a".to_string(), row(v))]);
        let gradients = of([3.0, -7.0, 0.1]);
        let norm = norm_of(&gradients);
        assert!((norm - 58.01f64.sqrt()).abs() < 1e-5, "{norm}");
        assert_eq!(norm_of(&Flat::new()), 0.0);
        let clipping = guard(&gradients, None, Some(0.25));
        let scale = StepGuard::scale(&clipping.read(), Some(0.25)).expect("it is finite");
        for muon in [false, true] {
            let config = AdamWConfig { muon, ..AdamWConfig::new(0.1, [0.9, 0.999]) };
            let [mut inside, mut before] = [0, 1].map(|_| AdamW::new(config, |_| Group::PLAIN));
            let (mut a, mut b) = (of([1.0, 2.0, 3.0]), of([1.0, 2.0, 3.0]));
            for _ in 0..3 {
                let clipped = Flat::from([("a".to_string(), gradients["a"].clone() * scale)]);
                let free = guard(&clipped, None, None);
                a = inside.update(a, gradients.clone(), &clipping, &mut [], 0.1);
                b = before.update(b, clipped, &free, &mut [], 0.1);
            }
            a["a"].to_data().assert_eq(&b["a"].to_data(), true);
            let moments = |adam: &AdamW| adam.to_tensors()["second.a"].to_f32();
            assert_eq!(moments(&inside), moments(&before));
        }
    }

    #[test]
    fn a_step_that_is_not_finite_leaves_no_trace() {
        let row = |v: [f32; 2]| Tensor::<1>::from_floats(v, &Device::flex());
        let of = |v: [f32; 2]| Flat::from([("a".to_string(), row(v))]);
        let bits =
            |x: &Tensor<1>| -> Vec<u32> { x.to_data().iter::<f32>().map(f32::to_bits).collect() };
        for muon in [false, true] {
            let config = AdamWConfig { muon, ..AdamWConfig::new(0.1, [0.9, 0.999]) };
            let run = |bad: &[usize]| {
                let mut adam = AdamW::new(config, |_| Group::PLAIN);
                let mut ema = [Ema::new(EmaConfig::Constant { decay: 0.5 }, 1, of([1.0, 2.0]))];
                let mut p = of([1.0, 2.0]);
                for step in 0..5 {
                    let is_bad = bad.contains(&step);
                    let g = of(if is_bad { [1.0, f32::NAN] } else { [0.5, -3.0] });
                    // A loss can be at fault alone, too.
                    let loss = if step == 0 && is_bad { f32::INFINITY } else { 1.0 };
                    let loss = Tensor::from_floats([loss], &Device::flex());
                    let guard = guard(&g, Some(loss), Some(1.0));
                    p = adam.update(p, g, &guard, &mut ema, 0.1);
                    ema[0].move_rest(&p, &guard);
                    match StepGuard::scale(&guard.read(), None).is_some() {
                        true => ema[0].updates += 1,
                        false => adam.take_back(),
                    }
                }
                (bits(&p["a"]), bits(&ema[0].values["a"]), ema[0].updates, adam.to_tensors())
            };
            let (p, average, updates, state) = run(&[0, 3]);
            let mut three = AdamW::new(config, |_| Group::PLAIN);
            let mut expected = of([1.0, 2.0]);
            for _ in 0..3 {
                let g = of([0.5, -3.0]);
                let guard = guard(&g, None, Some(1.0));
                expected = three.update(expected, g, &guard, &mut [], 0.1);
            }
            assert_eq!((p, updates), (bits(&expected["a"]), 3));
            assert_eq!(state["steps.a"].to_i64(), [3]);
            assert_eq!(state["first.a"].to_f32(), three.to_tensors()["first.a"].to_f32());
            assert!(average.iter().all(|&bits| f32::from_bits(bits).is_finite()));
            // All of them bad: no state at all.
            let (p, average, updates, state) = run(&[0, 1, 2, 3, 4]);
            let start = bits(&row([1.0, 2.0]));
            assert_eq!((p, average, updates, state.len()), (start.clone(), start, 0, 0));
        }
    }

    #[test]
    fn missing_and_misshapen_moments_are_noticed() {
        let device = Device::flex();
        let of = |n: usize| Tensor::<1>::from_data(TensorData::new(vec![1.0f32; n], [n]), &device);
        let parameters = Flat::from([("a".to_string(), of(3)), ("b".to_string(), of(2))]);
        let mut adam = AdamW::new(AdamWConfig::new(0.1, [0.9, 0.999]), |_| Group::PLAIN);
        let new = || AdamW::new(AdamWConfig::new(0.1, [0.9, 0.999]), |_| Group::PLAIN);
        let saved = |adam: &AdamW| Weights {
            file: "optimizer".into(),
            tensors: adam.to_tensors(),
            metadata: adam.metadata(),
            ..Weights::default()
        };
        // Nothing was stepped: nothing to restore.
        assert_eq!(new().restore(&saved(&adam), &parameters, &device), Ok(()));
        let free = guard(&parameters, None, None);
        adam.update(parameters.clone(), parameters.clone(), &free, &mut [], 0.1);
        let whole = saved(&adam);
        assert_eq!(new().restore(&whole, &parameters, &device), Ok(()));
        let without = |names: &[&str]| {
            let mut weights = whole.clone();
            weights.tensors.retain(|name, _| !names.contains(&name.as_str()));
            new().restore(&weights, &parameters, &device).expect_err("a hole").to_string()
        };
        assert!(without(&["second.a"]).contains("second.a"), "{}", without(&["second.a"]));
        let message = without(&["first.b", "second.b", "steps.b"]);
        assert!(message.contains("1 parameters") && message.contains("of 2"), "{message}");
        let mut weights = whole.clone();
        weights.tensors.insert("first.b".into(), whole.tensors["first.a"].clone());
        let message = new().restore(&weights, &parameters, &device).expect_err("misshapen");
        assert!(message.to_string().contains("first.b has 3 values"), "{message}");
        let mut weights = whole.clone();
        let bad = TensorView::from_f32(vec![2], &[1.0, f32::NAN]).expect("they fit");
        weights.tensors.insert("second.b".into(), bad);
        let message = new().restore(&weights, &parameters, &device).expect_err("NaN").to_string();
        assert_eq!(message, "optimizer: second.b is not finite");
    }
}
