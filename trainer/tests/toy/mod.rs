//! A network of another crate: all that adding one takes is this file and a line that registers it.

use serde_json::{Value, json};
use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::{Device, Int, Tensor};
use tintype::diffusion::guidance::Guidance;
use tintype::model::{
    Architecture, Clock, DiffusionModel, Family, InvalidConfig, LatentSpace, Network, Process,
    Untrained,
};
use tintype::settings::{Sampler, Settings};
use tintype::weights::{Weights, WeightsError};

/// Images of one colour each.
pub static FAMILY: Family = Family { name: "Toy", recognize };

fn recognize(weights: &Weights) -> Result<Option<Architecture>, WeightsError> {
    let colors = weights.tensors.get("colors").map(|view| view.shape.clone());
    Ok(colors.map(|shape| ToyConfig { rows: shape[0] }.into()))
}

/// Its shape.
#[derive(Clone, Copy, Debug)]
pub struct ToyConfig {
    /// Classes, and one row for no class.
    pub rows: usize,
}

impl ToyConfig {
    /// The untrained network.
    pub fn init(&self, device: &Device) -> Toy {
        Toy { colors: Initializer::Zeros.init([self.rows, 3], device) }
    }
}

/// The exact velocity towards images of one colour.
#[derive(Module, Debug)]
pub struct Toy {
    /// In −1…1, `[rows, 3]`.
    colors: Param<Tensor<2>>,
}

impl Network for Toy {
    /// `v = (x_t − x₀)/t`, as `x_t = (1 − t)·x₀ + t·ε` and `v = ε − x₀`.
    fn predict(&self, x: Tensor<4>, times: Tensor<1>, labels: Tensor<1, Int>) -> Tensor<4> {
        let color = self.colors.val().select(0, labels).reshape([-1, 3, 1, 1]); // [B, 3, 1, 1]
        (x - color) / times.reshape([-1, 1, 1, 1])
    }
}

impl DiffusionModel for ToyConfig {
    fn name(&self) -> &'static str {
        FAMILY.name
    }

    fn config(&self) -> Value {
        json!({"rows": self.rows})
    }

    fn state_shape(&self) -> [usize; 3] {
        [3, 8, 16]
    }

    fn latent_space(&self) -> Option<LatentSpace> {
        None
    }

    fn num_classes(&self) -> usize {
        self.rows - 1
    }

    fn process(&self) -> Process {
        Process::Flow(Clock::NoiseAtOne)
    }

    fn samplers(&self) -> &'static [Sampler] {
        &Sampler::FLOW
    }

    fn default_settings(&self) -> Settings {
        Settings::new(Sampler::Euler, 4, Guidance::NONE)
    }

    fn untrained(&self, device: &Device) -> Result<Box<dyn Untrained>, InvalidConfig> {
        Ok(Box::new(self.init(device)))
    }
}
