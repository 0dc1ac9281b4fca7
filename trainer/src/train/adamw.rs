//! AdamW (Loshchilov & Hutter, arXiv 1711.05101) with all of PyTorch's settings, on flat tensors by
//! name. Burn's own has other defaults, no parameter groups and clips each tensor by itself.

mod config;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tintype::burn::tensor::{Device, Tensor, TensorData};
use tintype::shaders::{
    AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard, adamw_all, sum_of_squares,
};
use tintype::weights::{Dtype, Flat, TensorView, Weights, views};

pub use self::config::AdamWConfig;
use super::ema::Ema;
use super::muon::{self, Adam, muon};

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
    /// are, and [`take_back`](Self::take_back) has to follow. Parameters that are not shared are written in place.
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

    /// The moments of a parameter, taken out of the state: while a step writes them, they are not shared.
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
