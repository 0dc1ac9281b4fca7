//! Where tensors lie in a GPU's memory, for libraries that read and write it themselves, as NCCL does.

use std::any::Any;
use std::fmt::{Display, Formatter};
use std::pin::Pin;

use burn::backend::{Cuda, DispatchDevice};
use burn::tensor::{DType, Device, Tensor};
#[cfg(feature = "fusion")]
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;

/// The memory of tensors on one CUDA device.
pub struct CudaMemory {
    /// Where each tensor begins, valid in the device's primary context.
    pub addresses: Vec<u64>,
    /// While this lives, Burn neither gives the memory to other tensors nor computes in it in place.
    pub keep: Box<dyn Any + Send>,
    /// Ends when everything that was asked of the device before, in this thread and in those that the tensors
    /// come from, has been done. Nobody may touch the memory earlier. It blocks the thread that polls it.
    pub ready: Pin<Box<dyn Future<Output = Result<(), CudaMemoryError>> + Send>>,
}

/// Why tensors' memory cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaMemoryError {
    /// A tensor is of another type than float32, is differentiated, or is not on the CUDA device of the others.
    Elsewhere,
    /// The device has no memory left, or failed; what it says.
    Device(String),
}

impl Display for CudaMemoryError {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Elsewhere => formatter.write_str("a tensor is not of float32 on the CUDA device"),
            Self::Device(problem) => formatter.write_str(problem),
        }
    }
}

impl std::error::Error for CudaMemoryError {}

/// The index of a CUDA device among those that the driver shows to this process; `None` for other devices.
pub fn cuda_ordinal(device: &Device) -> Option<usize> {
    #[allow(unreachable_patterns)] // where CUDA is the only backend
    let ordinal = match device.clone().inner().as_dispatch() {
        DispatchDevice::Cuda(device) => Some(device.index),
        _ => None,
    };
    ordinal
}

/// The memory of tensors, one at least. The address of a tensor that is contiguous, as `Tensor::empty` makes them,
/// is that of its own memory, so it can be written; others are copied.
///
/// # Shapes
///
/// * `tensors`: `[n]` each, `n` of 1 or more
///
/// # Errors
///
/// If they are not of float32 on one CUDA device, or that has no memory left or failed.
pub fn cuda_memory(tensors: &[Tensor<1>]) -> Result<CudaMemory, CudaMemoryError> {
    let tensors = tensors.iter().map(cube).collect::<Option<Vec<_>>>();
    let tensors = tensors.ok_or(CudaMemoryError::Elsewhere)?;
    let first = tensors.first().ok_or(CudaMemoryError::Elsewhere)?;
    if tensors.iter().any(|tensor| tensor.device != first.device) {
        return Err(CudaMemoryError::Elsewhere);
    }
    let client = first.client.clone();
    let mut addresses = Vec::with_capacity(tensors.len());
    let mut keep = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        // Allocates what is not yet, and makes this thread's stream wait for the one that the tensor comes from.
        let resource = tensor.client.get_resource(tensor.handle.clone()).map_err(device)?;
        addresses.push(resource.resource().ptr);
        // The resource keeps the memory from other tensors; the tensor, which shares it, from operations in place.
        keep.push((tensor, resource));
    }
    // Records an event now, behind all of that.
    let done = client.sync();
    let ready = Box::pin(async move { done.await.map_err(device) });
    Ok(CudaMemory { addresses, keep: Box::new(keep), ready })
}

/// A tensor's buffer, contiguous.
fn cube(tensor: &Tensor<1>) -> Option<CubeTensor<CudaRuntime>> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    let tensor = tensor.clone().try_into_primitive::<Cuda>().ok()?;
    // Operations wait in a queue there: this runs them.
    #[cfg(feature = "fusion")]
    let tensor = tensor.client.clone().resolve_tensor_float::<CubeBackend<CudaRuntime>>(tensor);
    Some(into_contiguous(tensor))
}

/// What the device says, in one line and without where in its code.
fn device(error: impl Display) -> CudaMemoryError {
    let text = error.to_string();
    let said = text.split("\nBacktrace").next().unwrap_or_default();
    CudaMemoryError::Device(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_says_is_one_line() {
        let text =
            "An error happened during execution\nCaused by:\n  out of memory\nBacktrace:\n0: main";
        let wanted = "An error happened during execution Caused by: out of memory";
        assert_eq!(device(text), CudaMemoryError::Device(wanted.to_owned()));
        assert_eq!(device("busy").to_string(), "busy");
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn tensors_elsewhere_have_no_such_memory() {
        let processor = Device::flex();
        assert_eq!(cuda_ordinal(&processor), None);
        let elsewhere = [Tensor::<1>::zeros([2], &processor)];
        for tensors in [&elsewhere[..], &elsewhere[..0]] {
            let error = cuda_memory(tensors).err().expect("there is none on a CUDA device");
            assert_eq!(error, CudaMemoryError::Elsewhere);
        }
        assert_eq!(cuda_ordinal(&Device::cuda(3)), Some(3));
    }
}
