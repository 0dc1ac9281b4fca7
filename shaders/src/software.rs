//! GPUs that are programs on the processor, such as Mesa's llvmpipe and SwiftShader.

use std::sync::{PoisonError, RwLock};

use burn::backend::DispatchTensor;
use burn::tensor::Device;
use burn_backend::TensorMetadata;

static FOUND: RwLock<Vec<Device>> = RwLock::new(Vec::new());

/// Says that a device is a program on the processor, which a device itself does not tell: from then on, it computes
/// with kernels that are fast there.
pub fn note_software_gpu(device: &Device) {
    let mut found = FOUND.write().unwrap_or_else(PoisonError::into_inner);
    if !found.contains(device) {
        found.push(device.clone());
    }
}

/// Whether [`note_software_gpu`] was told so of a tensor's device.
pub(crate) fn is_on_software_gpu(x: &DispatchTensor) -> bool {
    FOUND.read().unwrap_or_else(PoisonError::into_inner).contains(&Device::new(x.device()))
}
