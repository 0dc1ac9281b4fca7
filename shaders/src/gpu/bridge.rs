//! From Burn's tensors to buffers on a GPU, whatever backend holds them, and back.

use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Shape};
use burn_backend::{Backend, BackendTypes, StreamId, TensorMetadata};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};

use cubecl::prelude::BufferArg;

/// Shape and type of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorSpec {
    pub shape: Shape,
    pub dtype: DType,
}

impl TensorSpec {
    pub(crate) fn new(shape: impl Into<Shape>, dtype: DType) -> Self {
        Self { shape: shape.into(), dtype }
    }

    /// Of each tensor.
    pub(crate) fn of<R: CubeRuntime>(tensors: &[CubeTensor<R>]) -> Vec<Self> {
        tensors.iter().map(|x| Self::new(x.meta.shape().clone(), x.dtype)).collect()
    }
}

/// An operation on the GPU: what it makes, and how it starts.
pub(crate) trait Kernel: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Its name in the queue of operations, where Burn fuses some.
    #[cfg_attr(not(feature = "fusion"), allow(dead_code))]
    const NAME: &'static str;

    /// What it makes of such inputs.
    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec>;

    /// How many of the first inputs it writes over. They are its outputs, in their order; where others refer to
    /// the memory of one, a copy of it is. 0 for kernels whose outputs have memory of their own.
    fn overwrites(&self) -> usize {
        0
    }

    /// Starts it. The outputs are contiguous and not initialised, unless it [writes over](Self::overwrites) them: then
    /// they are not among the inputs. Neither they nor the inputs have more than [`MOST`] values, so that places
    /// in them fit 32 bits.
    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, outputs: Vec<CubeTensor<R>>);
}

/// Values of the largest tensor that a kernel reads or writes. Kernels count in 32 bits, and beyond the last
/// value, too: cubes are full, and sums of a place and a stride are made before they are compared.
pub(super) const MOST: u64 = 1 << 31;

/// Whether none of the tensors has more than [`MOST`] values.
fn are_countable(tensors: &[TensorSpec]) -> bool {
    let values = |spec: &TensorSpec| {
        let mut sides = spec.shape.iter();
        sides.try_fold(1u64, |values, &side| values.checked_mul(side as u64))
    };
    tensors.iter().all(|spec| values(spec).is_some_and(|values| values <= MOST))
}

/// Runs a kernel where its inputs are; `None` for tensors that are not on one GPU, not of floats,
/// of a type that kernels are not made for, of more values than they count ([`MOST`]), or under automatic
/// differentiation.
pub(crate) fn run<K: Kernel, const M: usize>(
    kernel: K,
    inputs: Vec<DispatchTensor>,
) -> Option<[DispatchTensor; M]> {
    run_all(kernel, inputs)?.try_into().ok()
}

/// [`run`] of a kernel with any number of outputs.
#[allow(unreachable_patterns)] // where every backend is a GPU
pub(crate) fn run_all<K: Kernel>(
    kernel: K,
    inputs: Vec<DispatchTensor>,
) -> Option<Vec<DispatchTensor>> {
    match inputs.first()?.kind {
        #[cfg(feature = "wgpu")]
        DispatchTensorKind::Wgpu(_) => on::<burn::backend::Wgpu, K>(kernel, inputs),
        #[cfg(feature = "vulkan")]
        DispatchTensorKind::Vulkan(_) => on::<burn::backend::Vulkan, K>(kernel, inputs),
        #[cfg(feature = "cuda")]
        DispatchTensorKind::Cuda(_) => on::<burn::backend::Cuda, K>(kernel, inputs),
        _ => None,
    }
}

/// Whether [`run`] takes inputs of a kernel whose outputs are not larger than they. Who gives away the only tensors of
/// some memory asks before: what `run` does not take is lost.
#[allow(unreachable_patterns)] // where every backend is a GPU
pub(crate) fn takes(inputs: Vec<DispatchTensor>) -> bool {
    let Some(first) = inputs.first() else { return false };
    match first.kind {
        #[cfg(feature = "wgpu")]
        DispatchTensorKind::Wgpu(_) => floats::<burn::backend::Wgpu>(inputs).is_some(),
        #[cfg(feature = "vulkan")]
        DispatchTensorKind::Vulkan(_) => floats::<burn::backend::Vulkan>(inputs).is_some(),
        #[cfg(feature = "cuda")]
        DispatchTensorKind::Cuda(_) => floats::<burn::backend::Cuda>(inputs).is_some(),
        _ => false,
    }
}

fn on<B: Gpu, K: Kernel>(kernel: K, inputs: Vec<DispatchTensor>) -> Option<Vec<DispatchTensor>>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let (inputs, specs) = floats::<B>(inputs)?;
    if !are_countable(&kernel.outputs(&specs)) {
        return None;
    }
    let outputs = B::run(kernel, inputs);
    Some(
        outputs
            .into_iter()
            .map(|tensor| DispatchTensor::from_backend(BackendTensor::<B>::Float(tensor)))
            .collect(),
    )
}

/// Inputs as tensors of a backend, and what they are; `None` if kernels do not take one of them.
fn floats<B: Gpu>(inputs: Vec<DispatchTensor>) -> Option<(Vec<Floats<B>>, Vec<TensorSpec>)>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let float =
        |tensor| match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
            Ok(BackendTensor::Float(tensor)) => supported(&tensor).then_some(tensor),
            _ => None,
        };
    let inputs = inputs.into_iter().map(float).collect::<Option<Vec<_>>>()?;
    let specs: Vec<TensorSpec> =
        inputs.iter().map(|x| TensorSpec::new(x.shape(), x.dtype())).collect();
    are_countable(&specs).then_some((inputs, specs))
}

fn supported(tensor: &impl TensorMetadata) -> bool {
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// Whether so many values have places that kernels count in 32 bits.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(super) fn is_counted(values: usize) -> bool {
    values > 0 && u32::try_from(values).is_ok()
}

type Floats<B> = <B as BackendTypes>::FloatTensorPrimitive;

/// A backend whose tensors are buffers that kernels take.
pub(crate) trait Gpu: Backend {
    /// Runs a kernel on tensors of this backend.
    fn run<K: Kernel>(kernel: K, inputs: Vec<Floats<Self>>) -> Vec<Floats<Self>>;
}

#[cfg(not(feature = "fusion"))]
impl<R: CubeRuntime> Gpu for CubeBackend<R> {
    fn run<K: Kernel>(kernel: K, inputs: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        start(&kernel, inputs)
    }
}

/// Allocates what a kernel writes, unless it writes over its inputs, and starts it.
fn start<R: CubeRuntime, K: Kernel>(
    kernel: &K,
    mut inputs: Vec<CubeTensor<R>>,
) -> Vec<CubeTensor<R>> {
    let outputs: Vec<_> = match kernel.overwrites() {
        0 => {
            let forms = TensorSpec::of(&inputs);
            let allocated = |spec: TensorSpec| alloc(&inputs[0], spec.shape, spec.dtype);
            kernel.outputs(&forms).into_iter().map(allocated).collect()
        }
        // One by one: of two that share memory, the second one has it alone once the first one is a copy.
        written => inputs.drain(..written).map(unshared).collect(),
    };
    kernel.launch(inputs, outputs.clone());
    outputs
}

/// A contiguous tensor whose memory nothing else refers to: the tensor itself, if it is one, or a copy.
fn unshared<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let tensor = into_contiguous(tensor);
    // Others wait for what is written by the stream that the memory is of, and by no other.
    let is_here = tensor.handle.stream == StreamId::current();
    if is_here && tensor.can_mut() { tensor } else { tensor.copy() }
}

/// A contiguous tensor, not initialised, on the device of another.
pub(super) fn alloc<R: CubeRuntime>(
    beside: &CubeTensor<R>,
    shape: impl Into<Shape>,
    dtype: DType,
) -> CubeTensor<R> {
    let (client, device, shape) = (beside.client.clone(), beside.device.clone(), shape.into());
    let handle = client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

/// The buffers of a kernel's tensors, in the order of its arguments, which come first. A tensor
/// that is named again is bound once: the web forbids a second binding of what a kernel may write,
/// and counts bindings.
pub(super) fn buffers<R: CubeRuntime, const N: usize>(
    tensors: [&CubeTensor<R>; N],
) -> [BufferArg<R>; N] {
    let mut bound: Vec<&CubeTensor<R>> = Vec::new();
    tensors.map(|tensor| match bound.iter().position(|&other| std::ptr::eq(other, tensor)) {
        Some(place) => {
            BufferArg::alias(place, tensor.handle.size_in_used() as usize / tensor.dtype.size())
        }
        None => {
            bound.push(tensor);
            tensor.clone().into_buffer_arg()
        }
    })
}

#[cfg(feature = "fusion")]
mod fused {
    //! With fusion, operations wait in a queue until they are needed; a kernel waits with them.

    use burn_cubecl::fusion::FusionCubeRuntime;
    use burn_fusion::stream::{Operation, StreamId};
    use burn_fusion::{Fusion, FusionTensor};
    use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};

    use super::*;

    #[derive(Clone, Debug)]
    struct Queued<K> {
        kernel: K,
        description: CustomOpIr,
    }

    impl<R: CubeRuntime, K: Kernel> Operation<FusionCubeRuntime<R>> for Queued<K> {
        fn execute(&self, handles: &mut HandleContainer<burn_cubecl::fusion::CubeFusionHandle<R>>) {
            let inputs = &self.description.inputs;
            let inputs = inputs.iter().map(|x| handles.get_float_tensor::<CubeBackend<R>>(x));
            let outputs = start(&self.kernel, inputs.collect());
            for (ir, tensor) in self.description.outputs.iter().zip(outputs) {
                handles.register_float_tensor::<CubeBackend<R>>(&ir.id, tensor);
            }
        }
    }

    impl<R: CubeRuntime> Gpu for Fusion<CubeBackend<R>> {
        fn run<K: Kernel>(
            kernel: K,
            inputs: Vec<FusionTensor<FusionCubeRuntime<R>>>,
        ) -> Vec<FusionTensor<FusionCubeRuntime<R>>> {
            let client = inputs[0].client.clone();
            let forms: Vec<TensorSpec> =
                inputs.iter().map(|x| TensorSpec::new(x.shape.clone(), x.dtype)).collect();
            let empty = |form: TensorSpec| {
                TensorIr::uninit(client.create_empty_handle(), form.shape, form.dtype)
            };
            let outputs: Vec<TensorIr> = kernel.outputs(&forms).into_iter().map(empty).collect();
            let inputs: Vec<TensorIr> = inputs.into_iter().map(|x| x.into_ir()).collect();
            let description = CustomOpIr::new(K::NAME, &inputs, &outputs);
            let operation = Queued { kernel, description: description.clone() };
            client.register(StreamId::current(), OperationIr::Custom(description), operation)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_get_no_more_values_than_they_count() {
        let of = |sides: &[usize]| TensorSpec::new(sides.to_vec(), DType::F16);
        let small = || of(&[2, 3]);
        assert!(are_countable(&[]));
        assert!(are_countable(&[small(), of(&[1 << 16, 1 << 15])]));
        assert!(are_countable(&[of(&[0, 4])]));
        assert!(!are_countable(&[small(), of(&[1 << 16, (1 << 15) + 1])]));
        // 512 images of 1024 by 1024 with 16 channels wrap to 0 in 32 bits.
        assert!(!are_countable(&[of(&[512, 16, 1024, 1024]), small()]));
        assert!(!are_countable(&[of(&[usize::MAX, usize::MAX])]));
    }
}
