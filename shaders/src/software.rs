//! GPUs that are programs on the processor, such as Mesa's llvmpipe and SwiftShader.

use std::sync::{PoisonError, RwLock};

use burn::tensor::{Device, DeviceKind};

static FOUND: RwLock<Vec<Device>> = RwLock::new(Vec::new());

/// Tells that a device of wgpu, which has no such kind of its own, is a program on the processor: kernels are
/// then chosen by what is fast there.
pub fn note_software_gpu(device: &Device) {
    let mut found = FOUND.write().unwrap_or_else(PoisonError::into_inner);
    if !found.contains(device) {
        found.push(device.clone());
    }
}

/// Whether a device is one, by its kind or because it was told.
pub(crate) fn computes(device: &Device) -> bool {
    *device == Device::wgpu(DeviceKind::Cpu)
        || FOUND.read().unwrap_or_else(PoisonError::into_inner).contains(device)
}
