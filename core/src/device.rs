//! Choosing where to compute, and saying why.

use burn::tensor::Device;

/// A device that this program can use.
#[derive(Clone, Debug)]
pub struct Found {
    /// How to ask for it: `cpu`, `cuda:0`, `wgpu:1`, …
    pub id: String,
    /// What it calls itself.
    pub description: String,
    /// Whether it is a processor pretending to be a GPU.
    pub software: bool,
    /// The handle.
    pub device: Device,
}

/// A choice.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The device.
    pub found: Found,
    /// Why this one.
    pub reason: String,
}

/// Why there is no such device.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not a name of a device.
    #[error(
        "unknown device {0:?}; use auto, cpu, cuda, wgpu or vulkan, with an index like cuda:1 if there are several"
    )]
    Unknown(String),
    /// The program was built without it.
    #[error("this program was built without {0}; build it again with `--features {0}`")]
    NotBuilt(String),
    /// The machine has none.
    #[error("no {name} device was found{list}; `--device auto` takes what there is", name = .0, list = found(.1))]
    Missing(String, Vec<String>),
}

fn found(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!(" (found: {})", ids.join(", ")) }
}

const BACKENDS: [(&str, bool); 4] = [
    ("cpu", cfg!(feature = "cpu")),
    ("cuda", cfg!(feature = "cuda")),
    ("wgpu", cfg!(feature = "wgpu")),
    ("vulkan", cfg!(feature = "vulkan")),
];

/// Every device that this program can use, the preferred one first: CUDA, then real GPUs through
/// Vulkan or wgpu, then the CPU, then software GPUs.
pub fn list() -> Vec<Found> {
    let mut all = Vec::new();
    #[cfg(feature = "cuda")]
    all.extend(cuda());
    #[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
    all.extend(wgpu_adapters());
    #[cfg(feature = "cpu")]
    all.push(Found {
        id: "cpu".into(),
        description: "this machine's processor".into(),
        software: false,
        device: Device::flex(),
    });
    all.sort_by_key(|found| found.software);
    all
}

/// The device that a name like "auto", "cpu", "cuda:0" or "wgpu" means.
pub fn choose(name: &str) -> Result<Chosen, DeviceError> {
    let devices = list();
    let ids = || devices.iter().map(|f| f.id.clone()).collect::<Vec<_>>();
    let (backend, index) = match name.split_once(':') {
        None => (name, None),
        Some((backend, index)) => {
            let index = index.parse().map_err(|_| DeviceError::Unknown(name.into()))?;
            (backend, Some(index))
        }
    };
    if backend == "auto" && index.is_none() {
        let found = devices
            .first()
            .cloned()
            .ok_or_else(|| DeviceError::Missing("usable".into(), Vec::new()))?;
        let reason = match found.id.as_str() {
            "cpu" if devices.iter().any(|f| f.software) => {
                "no GPU was found, and the processor is faster than a software GPU".into()
            }
            "cpu" => "no GPU was found".into(),
            _ => "it is the fastest kind found".to_string(),
        };
        return Ok(Chosen { found, reason });
    }
    match BACKENDS.iter().find(|(known, _)| *known == backend) {
        None => return Err(DeviceError::Unknown(name.into())),
        Some((_, false)) => return Err(DeviceError::NotBuilt(backend.into())),
        Some((_, true)) => {}
    }
    let of_backend = |f: &&Found| f.id.split(':').next() == Some(backend);
    let found = devices
        .iter()
        .filter(of_backend)
        .find(|f| {
            index.is_none_or(|i: usize| {
                f.id == format!("{backend}:{i}") || (i == 0 && f.id == backend)
            })
        })
        .cloned()
        .ok_or_else(|| DeviceError::Missing(name.into(), ids()))?;
    Ok(Chosen { found, reason: "it was asked for".into() })
}

/// Where a sampler's float64 state lives: on the device itself, except on wgpu, where WGSL has no
/// float64 (drivers that claim it compute wrong values); there it lives on the CPU.
pub fn state_device(device: &Device) -> Device {
    #[cfg(feature = "wgpu")]
    if is_wgpu(device) {
        return Device::flex();
    }
    device.clone()
}

#[cfg(feature = "wgpu")]
fn is_wgpu(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    match device.as_dispatch() {
        DispatchDevice::Wgpu(_) => true,
        #[cfg(feature = "vulkan")]
        DispatchDevice::Vulkan(_) => true,
        _ => false,
    }
}

#[cfg(feature = "cuda")]
fn cuda() -> Vec<Found> {
    // Burn loads the driver on first use and panics where there is none.
    let driver = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
    // SAFETY: loading NVIDIA's driver runs its initialisers, as Burn would a moment later.
    if unsafe { libloading::Library::new(driver) }.is_err() {
        return Vec::new();
    }
    let devices = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    let found = |(i, device)| Found {
        id: format!("cuda:{i}"),
        description: "NVIDIA GPU".into(),
        software: false,
        device,
    };
    devices.into_iter().enumerate().map(found).collect()
}

#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
fn wgpu_adapters() -> Vec<Found> {
    use burn::tensor::DeviceKind;
    use wgpu::DeviceType;
    let backend =
        if cfg!(target_vendor = "apple") { wgpu::Backends::METAL } else { wgpu::Backends::VULKAN };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backend));
    // Burn counts adapters of one kind from 0.
    let mut of_kind = std::collections::BTreeMap::new();
    let mut found: Vec<Found> = Vec::new();
    #[cfg(feature = "vulkan")]
    let mut spirv = Vec::new();
    for adapter in adapters {
        let info = adapter.get_info();
        let index = of_kind.entry(format!("{:?}", info.device_type)).or_insert(0usize);
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu(*index),
            DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu(*index),
            DeviceType::VirtualGpu => DeviceKind::VirtualGpu(*index),
            DeviceType::Cpu => DeviceKind::Cpu,
            DeviceType::Other => DeviceKind::DefaultDevice,
        };
        *index += 1;
        let n = found.len();
        let entry = |name: &str, device: Device| Found {
            id: format!("{name}:{n}"),
            description: format!("{} ({:?}, {})", info.name, info.device_type, info.backend),
            software: info.device_type == DeviceType::Cpu,
            device,
        };
        found.push(entry("wgpu", Device::wgpu(kind.clone())));
        #[cfg(feature = "vulkan")]
        spirv.push(entry("vulkan", Device::vulkan(kind)));
    }
    #[cfg(feature = "vulkan")]
    found.splice(0..0, spirv);
    found
}
