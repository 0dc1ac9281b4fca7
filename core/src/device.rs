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
    let mut all: Vec<Found> = ["cuda", "vulkan", "wgpu", "cpu"].into_iter().flat_map(of).collect();
    all.sort_by_key(|found| found.software);
    all
}

/// The devices of one backend; asking for the CPU starts no GPU driver.
fn of(backend: &str) -> Vec<Found> {
    match backend {
        #[cfg(feature = "cpu")]
        "cpu" => vec![Found {
            id: "cpu".into(),
            description: "this machine's processor".into(),
            software: false,
            device: Device::flex(),
        }],
        #[cfg(feature = "cuda")]
        "cuda" => cuda(),
        #[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
        "wgpu" => wgpu_adapters("wgpu", Device::wgpu),
        #[cfg(all(feature = "vulkan", not(target_family = "wasm")))]
        "vulkan" => wgpu_adapters("vulkan", Device::vulkan),
        _ => Vec::new(),
    }
}

/// The device that a name like "auto", "cpu", "cuda:0" or "wgpu" means.
pub fn choose(name: &str) -> Result<Chosen, DeviceError> {
    let (backend, index) = match name.split_once(':') {
        None => (name, 0),
        Some((backend, index)) => {
            (backend, index.parse().map_err(|_| DeviceError::Unknown(name.into()))?)
        }
    };
    if name == "auto" {
        return choose_best();
    }
    match BACKENDS.iter().find(|(known, _)| *known == backend) {
        None => return Err(DeviceError::Unknown(name.into())),
        Some((_, false)) => return Err(DeviceError::NotBuilt(backend.into())),
        Some((_, true)) => {}
    }
    match of(backend).into_iter().nth(index) {
        Some(found) => Ok(Chosen { found, reason: "it was asked for".into() }),
        None => {
            let ids = list().into_iter().map(|found| found.id).collect();
            Err(DeviceError::Missing(name.into(), ids))
        }
    }
}

fn choose_best() -> Result<Chosen, DeviceError> {
    let devices = list();
    let software = devices.iter().any(|found| found.software);
    let missing = || DeviceError::Missing("usable".into(), Vec::new());
    let found = devices.into_iter().next().ok_or_else(missing)?;
    let reason = match (found.id.as_str(), software) {
        ("cpu", true) => "no GPU was found, and the processor is faster than a software GPU",
        ("cpu", false) => "no GPU was found",
        _ => "it is the fastest kind found",
    };
    Ok(Chosen { found, reason: reason.into() })
}

/// Draws numbers from a device's generator after seeding it.
///
/// The CPU's generator belongs to the whole process, so nobody else draws in between.
pub fn seeded<T>(device: &Device, seed: u64, draw: impl FnOnce() -> T) -> T {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _held = GENERATOR.lock().unwrap_or_else(|poison| poison.into_inner());
    device.seed(seed);
    draw()
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
fn wgpu_adapters(name: &str, device: impl Fn(burn::tensor::DeviceKind) -> Device) -> Vec<Found> {
    use burn::tensor::DeviceKind;
    use wgpu::DeviceType;
    let backend =
        if cfg!(target_vendor = "apple") { wgpu::Backends::METAL } else { wgpu::Backends::VULKAN };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    // Burn counts adapters of one kind from 0.
    let mut of_kind = std::collections::BTreeMap::new();
    let adapters = pollster::block_on(instance.enumerate_adapters(backend));
    let found = |(n, adapter): (usize, wgpu::Adapter)| {
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
        Found {
            id: format!("{name}:{n}"),
            description: format!("{} ({:?}, {})", info.name, info.device_type, info.backend),
            software: info.device_type == DeviceType::Cpu,
            device: device(kind),
        }
    };
    adapters.into_iter().enumerate().map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_devices_or_say_why_not() {
        assert_eq!(choose("auto").map(|c| c.found.software), Ok(false));
        let error = |name: &str| choose(name).map(|c| c.found.id).expect_err(name).to_string();
        assert!(error("tpu").contains("auto, cpu, cuda"));
        assert!(error("cuda:x").starts_with("unknown device"));
        if cfg!(feature = "cpu") {
            assert_eq!(choose("cpu").expect("it is built in").found.id, "cpu");
            assert!(error("cpu:1").contains("found: cpu"));
        }
        if !cfg!(feature = "cuda") {
            assert!(error("cuda").contains("--features cuda"));
        }
    }
}
