//! The GPU that a browser lends to a page.

use std::sync::{Arc, Mutex};

use burn::backend::DispatchDevice;
use burn::backend::wgpu::{WgpuSetup, init_device};
use burn::tensor::Device;
use js_sys::Reflect;

use super::{DeviceError, Found, descriptor, kind_of, tell_kernels};

/// An open GPU.
#[derive(Clone, Debug)]
pub struct BrowserGpu {
    /// The device and what it is; its id is `webgpu`.
    pub found: Found,
    failure: Arc<Mutex<Option<String>>>,
}

impl BrowserGpu {
    /// What went wrong on the GPU, once something did: it was lost, it is out of memory, it refused a
    /// kernel. Results after that are worth nothing.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(|poison| poison.into_inner()).clone()
    }
}

/// Opens the fastest GPU that the browser has and hands it to Burn. To be called once: a page has
/// one.
///
/// # Errors
///
/// [`DeviceError::Missing`] where the browser has no WebGPU or lends no GPU.
pub async fn open() -> Result<BrowserGpu, DeviceError> {
    let missing = |reason: String| DeviceError::Missing(format!("WebGPU ({reason})"), Vec::new());
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::BROWSER_WEBGPU,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await.map_err(|e| missing(e.to_string()))?;
    let (device, queue) =
        adapter.request_device(&descriptor(&adapter)).await.map_err(|e| missing(e.to_string()))?;

    let failure: Arc<Mutex<Option<String>>> = Arc::default();
    let note = |failure: &Arc<Mutex<Option<String>>>, text: String| {
        let mut first = failure.lock().unwrap_or_else(|poison| poison.into_inner());
        first.get_or_insert(text);
    };
    let lost = failure.clone();
    device.set_device_lost_callback(move |_, reason| {
        note(&lost, format!("the GPU was lost ({reason})"));
    });
    let refused = failure.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        note(&refused, error.to_string());
    }));

    let info = adapter.get_info();
    let names = names(&device).unwrap_or_default();
    let (kind, description) = (kind_of(info.device_type, &names), info.name);
    let setup = WgpuSetup { backend: info.backend, instance, adapter, device, queue };
    let device = Device::new(DispatchDevice::Wgpu(init_device(setup, Default::default())));
    tell_kernels(kind, &device);
    let found = Found { id: "webgpu".into(), description, kind, memory: None, device };
    Ok(BrowserGpu { found, failure })
}

/// What a browser calls the GPU behind a device: wgpu passes its description on, which browsers leave empty, and not
/// its architecture, such as `swiftshader`. `None` where an older browser says nothing.
fn names(device: &wgpu::Device) -> Option<String> {
    let info = Reflect::get(device.as_webgpu()?.as_ref(), &"adapterInfo".into()).ok()?;
    let named = |key: &str| Reflect::get(&info, &key.into()).ok()?.as_string();
    let parts = ["vendor", "architecture", "device", "description"].into_iter().filter_map(named);
    Some(parts.collect::<Vec<_>>().join(" "))
}
