//! From a checkpoint into a network, and back.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::WeightsError;
use super::dtypes::Dtypes;
use super::names::{authors_name, is_buffer, is_ignored};
use super::report::{Report, ShapeMismatch};
use super::store::{Dtype, TensorView, Weights};

/// A network with its weights.
#[derive(Debug)]
pub struct Loaded<M> {
    /// The network.
    pub network: M,
    /// What fitted; `unexpected` may still name tensors that the network has no use for.
    pub report: Report,
}

/// Fills a network, which is on `device`, from a checkpoint, in the given precision. Normalisation
/// statistics and frequencies stay in float32.
///
/// Fails before anything is computed if a tensor is missing or of another shape, and if a weight
/// is not finite.
///
/// # Errors
///
/// * [`WeightsError::Mismatch`] where a tensor is missing, has another shape or cannot be read
/// * [`WeightsError::NotFinite`] where a weight is NaN or infinite
/// * [`WeightsError::Io`] where the file cannot be read
pub fn load<M: Module>(
    network: M,
    weights: &Weights,
    precision: FloatDType,
    device: &Device,
) -> Result<Loaded<M>, WeightsError> {
    fill(network, weights, Dtypes::new(precision), device)
}

/// [`load`] of a network that will only predict: on the processor, weights of linear layers that the file has in
/// float16 or bfloat16 stay so in memory where the precision is float32. Its outputs have the same bits.
///
/// # Errors
///
/// As of [`load`].
pub fn load_for_inference<M: Module>(
    network: M,
    weights: &Weights,
    precision: FloatDType,
    device: &Device,
) -> Result<Loaded<M>, WeightsError> {
    fill(network, weights, Dtypes::for_inference(precision, device), device)
}

fn fill<M: Module>(
    network: M,
    weights: &Weights,
    dtypes: Dtypes,
    device: &Device,
) -> Result<Loaded<M>, WeightsError> {
    let report = compare(&network, weights);
    if !report.fits() {
        return Err(WeightsError::Mismatch {
            file: weights.file.clone(),
            report: Box::new(report),
        });
    }
    let mut loader = Loader { weights, dtypes, device, path: Vec::new(), failure: None };
    let network = network.map(&mut loader);
    match loader.failure {
        Some(failure) => Err(failure),
        None => Ok(Loaded { network, report }),
    }
}

/// Compares a network with a checkpoint; allocates nothing.
pub fn compare<M: Module>(network: &M, weights: &Weights) -> Report {
    let mut report = Report::default();
    let layout = layout(network);
    for (name, expected) in &layout {
        match weights.tensors.get(name) {
            None => match weights.unreadable.get(name) {
                Some(reason) => report.unreadable.push((name.clone(), reason.clone())),
                None => report.missing.push(name.clone()),
            },
            Some(view) if view.shape != *expected => report.mismatched.push(ShapeMismatch {
                name: name.clone(),
                expected: expected.clone(),
                found: view.shape.clone(),
            }),
            Some(_) => report.matched += 1,
        }
    }
    let unknown = |name: &&String| !layout.contains_key(*name) && !is_ignored(name);
    let names = weights.tensors.keys().chain(weights.unreadable.keys());
    report.unexpected = names.filter(unknown).cloned().collect();
    report
}

/// The authors' name and the shape of every tensor of a network; allocates nothing.
pub fn layout<M: Module>(network: &M) -> BTreeMap<String, Vec<usize>> {
    layout_in_order(network).into_iter().collect()
}

/// [`layout`] in the order in which the network has its tensors.
pub fn layout_in_order<M: Module>(network: &M) -> Vec<(String, Vec<usize>)> {
    let mut lister = Lister::default();
    network.visit(&mut lister);
    lister.shapes
}

/// Parameters as the papers count them (with position tables, without buffers); allocates
/// nothing.
pub fn parameter_count<M: Module>(network: &M) -> usize {
    layout(network)
        .iter()
        .filter(|(name, _)| !is_buffer(name))
        .map(|(_, shape)| shape.iter().fold(1, |n: usize, &axis| n.saturating_mul(axis)))
        .fold(0, usize::saturating_add)
}

/// A network's tensors under the authors' names, read back from its device in float32.
///
/// # Panics
///
/// If the device fails.
pub fn snapshot<M: Module>(network: &M) -> BTreeMap<String, TensorView> {
    let mut reader = Reader::default();
    network.visit(&mut reader);
    reader.tensors
}

#[derive(Default)]
struct Lister {
    path: Vec<String>,
    shapes: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Lister {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape();
        self.shapes.push((authors_name(&self.path), shape.iter().copied().collect()));
    }
}

#[derive(Default)]
struct Reader {
    path: Vec<String>,
    tensors: BTreeMap<String, TensorView>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.insert(authors_name(&self.path), view(param.val()));
    }
}

struct Loader<'a> {
    weights: &'a Weights,
    dtypes: Dtypes,
    device: &'a Device,
    path: Vec<String>,
    /// What was wrong with the first tensor that could not be loaded.
    failure: Option<WeightsError>,
}

impl Loader<'_> {
    /// A tensor's values, in this dtype where the file has the same, else in float32.
    fn values(&self, name: &str, dtype: DType) -> Result<TensorData, WeightsError> {
        let view = &self.weights.tensors[name];
        let file = || self.weights.file.clone();
        let bytes = view.read().map_err(|source| WeightsError::Io { path: file(), source })?;
        let diverged = || WeightsError::NotFinite { file: file(), tensor: name.into() };
        let same = match view.dtype {
            Dtype::F16 => dtype == DType::F16,
            Dtype::BF16 => dtype == DType::BF16,
            _ => false,
        };
        if same {
            if !view.dtype.all_finite(&bytes) {
                return Err(diverged());
            }
            return Ok(TensorData::from_bytes_vec(bytes.into_owned(), view.shape.clone(), dtype));
        }
        let values = view.dtype.widen(&bytes);
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(TensorData::new(values, view.shape.clone())),
            false => Err(diverged()),
        }
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.dtypes.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = authors_name(&self.path);
        if self.failure.is_some() {
            return param;
        }
        let dtype = self.dtypes.of(&name, self.weights);
        let data = match self.values(&name, dtype) {
            Ok(data) => data,
            Err(failure) => {
                self.failure = Some(failure);
                return param;
            }
        };
        let tensor = Tensor::from_data(data, (self.device, dtype));
        self.weights.tensors[&name].release();
        // In place of the initial value, which would be computed if it were asked for anything.
        let id = param.id;
        match self.device.is_autodiff() {
            true => param.transform_for_load(tensor, id), // trains if it did
            false => Param::initialized(id, tensor),
        }
    }
}

/// A tensor read back in float32.
fn view<const D: usize>(tensor: Tensor<D>) -> TensorView {
    let shape = tensor.dims().to_vec();
    on_host(tensor.into_data(), shape).expect("a tensor's own bytes have its shape")
}

/// Data of a device as a view in float32: one copy, which does not hold a device's staging memory.
pub(super) fn on_host(data: TensorData, shape: Vec<usize>) -> Result<TensorView, String> {
    let data = data.convert::<f32>();
    let bytes: Vec<u8> = match cfg!(target_endian = "little") {
        true => data.as_bytes().to_vec(),
        false => data.iter::<f32>().flat_map(f32::to_le_bytes).collect(),
    };
    TensorView::from_bytes(Dtype::F32, shape, bytes)
}

#[cfg(all(test, feature = "cpu", feature = "autodiff"))]
mod tests {
    use burn::module::ParamId;

    use super::*;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<1>>,
    }

    #[test]
    fn initial_values_are_not_computed() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            for trains in [false, true] {
                let initial = |_: &Device, _: bool| panic!("the initial value was computed");
                let weight = Param::uninitialized(
                    ParamId::new(),
                    initial,
                    device.clone(),
                    trains,
                    [2].into(),
                );
                let bytes = [1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
                let view = TensorView::from_bytes(Dtype::F32, vec![2], bytes).expect("two values");
                let weights = Weights {
                    file: "test".into(),
                    tensors: [("weight".to_string(), view)].into(),
                    ..Weights::default()
                };
                let loaded = load(Layer { weight }, &weights, FloatDType::F32, &device);
                let weight = loaded.expect("it fits").network.weight;
                assert_eq!(weight.is_require_grad(), trains && device.is_autodiff());
                weight.val().into_data().assert_eq(&TensorData::from([1.0f32, 2.0]), true);
            }
        }
    }

    #[derive(Module, Debug)]
    struct Wide {
        weight: Param<Tensor<2>>,
    }

    #[test]
    fn a_count_does_not_overflow() {
        let initial = |_: &Device, _: bool| panic!("the initial value was computed");
        let shape = [usize::MAX, 2].into();
        let weight = Param::uninitialized(ParamId::new(), initial, Device::flex(), false, shape);
        assert_eq!(parameter_count(&Wide { weight }), usize::MAX);
    }
}
