//! Reads that a device makes between the work that it was given before and after.

use std::pin::Pin;
use std::task::Poll;

use burn::tensor::{DType, Tensor};
#[cfg(feature = "fusion")]
use burn_cubecl::CubeBackend;
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Values on their way. What the device says if it fails.
pub type Reading = Pin<Box<dyn Future<Output = Result<Vec<f32>, String>>>>;

/// Reads a tensor of float32 on a GPU; `None` elsewhere. The first poll asks for it, so that the copy is made at once and
/// not behind what the device is given later; it is never ready. The next one waits.
///
/// # Shapes
///
/// * `x`: `[n]`
pub(crate) fn read(x: &Tensor<1>) -> Option<Reading> {
    if x.dtype() != DType::F32 {
        return None;
    }
    #[cfg(feature = "wgpu")]
    if let Ok(x) = x.clone().try_into_primitive::<burn::backend::Wgpu>() {
        #[cfg(feature = "fusion")]
        let x = x.client.clone().resolve_tensor_float::<CubeBackend<cubecl::wgpu::WgpuRuntime>>(x);
        return Some(of(x));
    }
    #[cfg(feature = "vulkan")]
    if let Ok(x) = x.clone().try_into_primitive::<burn::backend::Vulkan>() {
        #[cfg(feature = "fusion")]
        let x = x.client.clone().resolve_tensor_float::<CubeBackend<cubecl::wgpu::WgpuRuntime>>(x);
        return Some(of(x));
    }
    #[cfg(feature = "cuda")]
    if let Ok(x) = x.clone().try_into_primitive::<burn::backend::Cuda>() {
        #[cfg(feature = "fusion")]
        let x = x.client.clone().resolve_tensor_float::<CubeBackend<cubecl::cuda::CudaRuntime>>(x);
        return Some(of(x));
    }
    None
}

fn of<R: CubeRuntime>(x: CubeTensor<R>) -> Reading {
    let x = into_contiguous(x);
    Box::pin(async move {
        let reading = x.client.read_async(vec![x.handle.clone()]);
        let mut asked = false;
        std::future::poll_fn(|context| match std::mem::replace(&mut asked, true) {
            false => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            true => Poll::Ready(()),
        })
        .await;
        let bytes = reading.await.map_err(|error| error.to_string())?;
        let count = x.meta.shape().num_elements();
        let values = bytes.iter().flat_map(|bytes| bytes.chunks_exact(4)).take(count);
        let value = |four: &[u8]| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        Ok(values.map(value).collect())
    })
}
