//! A network's parameters as flat tensors by the authors' names: what an optimizer, an EMA or
//! a checkpoint works on.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Gradients, Tensor};

use super::load::{layout, on_host};
use super::names::{authors_name, is_float32};
use super::store::TensorView;

/// One flat tensor a name, off the autodiff graph.
pub type Flat = BTreeMap<String, Tensor<1>>;

/// Which of a network's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that training changes.
    Trainable,
    /// All, with frozen tables and buffers.
    All,
}

/// The values of a network's tensors.
///
/// # Shapes
///
/// * returns `[n]` for each tensor of n elements
pub fn flat<M: Module>(network: &M, which: Which) -> Flat {
    struct Visitor {
        path: Vec<String>,
        which: Which,
        out: Flat,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            if self.which == Which::All || value.is_require_grad() {
                self.out.insert(authors_name(&self.path), value.inner().flatten(0, D - 1));
            }
        }
    }
    let mut visitor = Visitor { path: Vec::new(), which, out: Flat::new() };
    network.visit(&mut visitor);
    visitor.out
}

/// The values of the parameters that training changes, taken out of a network, so that nobody else holds them and a step
/// may write over them. The network is of no use until [`with_flat`] gives it values again.
///
/// # Shapes
///
/// * returns `[n]` for each parameter of n elements
pub fn take_flat<M: Module>(network: &mut M) -> Flat {
    struct Mapper {
        path: Vec<String>,
        out: Flat,
    }
    impl ModuleMapper for Mapper {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value = param.val();
            if !value.is_require_grad() {
                return param;
            }
            let (device, shape) = (value.device().inner(), value.dims());
            self.out.insert(authors_name(&self.path), value.inner().flatten(0, D - 1));
            // Of the same shape, in the memory of one value.
            let rest: Tensor<D> = Tensor::<D>::empty([1usize; D], &device).expand(shape);
            Param::initialized(param.id, Tensor::from_inner(rest).require_grad())
        }
    }
    let mut mapper = Mapper { path: Vec::new(), out: Flat::new() };
    *network = network.clone().map(&mut mapper);
    mapper.out
}

/// The gradients of a network's parameters; those that the loss does not reach are absent.
///
/// # Shapes
///
/// * returns `[n]` for each parameter of n elements
pub fn flat_gradients<M: Module>(network: &M, gradients: &Gradients) -> Flat {
    struct Visitor<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        out: Flat,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.out.insert(authors_name(&self.path), gradient.flatten(0, D - 1));
            }
        }
    }
    let mut visitor = Visitor { path: Vec::new(), gradients, out: Flat::new() };
    network.visit(&mut visitor);
    visitor.out
}

/// The gradients of a network's parameters under their shapes, read back in float32.
///
/// # Panics
///
/// If the device fails.
pub fn gradients<M: Module>(network: &M, gradients: &Gradients) -> BTreeMap<String, TensorView> {
    views(&flat_gradients(network, gradients), &layout(network))
}

/// Flat tensors read back in float32, under their shapes where these are known.
///
/// # Shapes
///
/// * `values`: `[n]` each; `shapes` are of n elements, too
///
/// # Panics
///
/// If a shape has more elements than its tensor, or the device fails.
pub fn views(values: &Flat, shapes: &BTreeMap<String, Vec<usize>>) -> BTreeMap<String, TensorView> {
    let one = |(name, value): (&String, &Tensor<1>)| {
        let shape = shapes.get(name).cloned().unwrap_or_else(|| value.dims().to_vec());
        let view =
            on_host(value.to_data(), shape).expect("a shape has no more elements than its tensor");
        (name.clone(), view)
    };
    values.iter().map(one).collect()
}

/// The network with new values for the tensors that are named.
///
/// # Shapes
///
/// * `values`: `[n]` for a tensor of n elements
///
/// # Panics
///
/// If a value has not as many elements as its tensor.
pub fn with_flat<M: Module>(network: M, values: &Flat) -> M {
    struct Mapper<'a> {
        path: Vec<String>,
        values: &'a Flat,
    }
    impl ModuleMapper for Mapper<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(value) = self.values.get(&authors_name(&self.path)) else { return param };
            let old = param.val();
            let value: Tensor<D> = value.clone().reshape(old.dims());
            let value = match old.device().is_autodiff() {
                true => Tensor::from_inner(value).set_require_grad(old.is_require_grad()),
                false => value,
            };
            Param::initialized(param.id, value)
        }
    }
    network.map(&mut Mapper { path: Vec::new(), values })
}

/// The network with the tensors of these names trained or frozen; the others stay as they are.
pub fn with_trained<M: Module>(network: M, names: &[&str], trained: bool) -> M {
    struct Mapper<'a> {
        path: Vec<String>,
        names: &'a [&'a str],
        trained: bool,
    }
    impl ModuleMapper for Mapper<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.names.contains(&authors_name(&self.path).as_str()) {
                true => param.set_require_grad(self.trained),
                false => param,
            }
        }
    }
    network.map(&mut Mapper { path: Vec::new(), names, trained })
}

/// The network with its parameters in another precision, still tied by gradients to the ones it
/// was made of: mixed precision with master weights. Normalisation statistics and frequencies stay as they are.
pub fn computing_in<M: Module>(network: &M, precision: FloatDType) -> M {
    struct Mapper {
        path: Vec<String>,
        precision: FloatDType,
    }
    impl ModuleMapper for Mapper {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match is_float32(&authors_name(&self.path)) {
                true => param,
                false => Param::initialized(param.id, param.val().cast(self.precision)),
            }
        }
    }
    network.clone().map(&mut Mapper { path: Vec::new(), precision })
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<2>>,
        table: Param<Tensor<1>>,
    }

    #[test]
    fn what_is_taken_is_put_back() {
        let device = Device::flex().autodiff();
        let weight = TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        let table = Tensor::<1>::from_floats([7.0, 8.0], &device);
        let mut layer = Layer {
            weight: Param::from_data(weight.clone(), &device),
            table: Param::initialized(burn::module::ParamId::new(), table),
        };
        let taken = take_flat(&mut layer);
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["weight"]);
        assert_eq!(layer.weight.val().dims(), [2, 3]);
        assert!(layer.weight.is_require_grad() && !layer.table.is_require_grad());
        assert_eq!(layer.table.val().into_data().iter::<f32>().collect::<Vec<_>>(), [7.0, 8.0]);
        let layer = with_flat(layer, &taken);
        layer.weight.val().into_data().assert_eq(&weight, true);
        assert!(layer.weight.is_require_grad() && layer.weight.val().device().is_autodiff());
    }

    #[test]
    fn what_is_frozen_is_not_trained() {
        let device = Device::flex().autodiff();
        let table = Tensor::<1>::from_floats([7.0, 8.0], &device);
        let layer = Layer {
            weight: Param::from_data(TensorData::new(vec![1.0f32; 6], [2, 3]), &device),
            table: Param::initialized(burn::module::ParamId::new(), table),
        };
        let names = |layer: &Layer| flat(layer, Which::Trainable).into_keys().collect::<Vec<_>>();
        let layer = with_trained(layer, &["table"], true);
        assert_eq!(names(&layer), ["table", "weight"]);
        let layer = with_trained(layer, &["table", "weight"], false);
        assert!(names(&layer).is_empty());
        assert_eq!(flat(&layer, Which::All).len(), 2);
    }
}
