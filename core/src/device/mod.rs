//! Choosing where to compute, and saying why.

#[cfg(all(feature = "wgpu", target_family = "wasm"))]
pub mod browser;
#[cfg(all(feature = "wgpu", target_os = "linux"))]
pub mod session;

use burn::tensor::{Device, FloatDType};

/// What a device is made of, the preferred kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory, or of which nothing is known.
    Integrated,
    /// The processor.
    Processor,
    /// The processor pretending to be a GPU.
    Software,
}

/// A device that this program can use.
#[derive(Clone, Debug)]
pub struct Found {
    /// How to ask for it: `cpu`, `cuda:0`, `wgpu:1`, …
    pub id: String,
    /// What it calls itself.
    pub description: String,
    /// What it is made of.
    pub kind: Kind,
    /// Its own memory in bytes, where the driver tells; the processor has the machine's.
    pub memory: Option<u64>,
    /// The handle.
    pub device: Device,
}

impl Found {
    /// Bytes that a network may take: what is free of the machine's memory, or all that a GPU has.
    pub fn free_memory(&self) -> Option<u64> {
        #[cfg(not(target_family = "wasm"))]
        if self.id == "cpu" {
            let mut system = sysinfo::System::new();
            system.refresh_memory();
            return Some(system.available_memory()).filter(|bytes| *bytes > 0);
        }
        self.memory
    }
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
    #[error("this program was built without {0}")]
    NotBuilt(String),
    /// The machine has none.
    #[error("no {name} device was found{list}", name = .0, list = found(.1))]
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

/// Every device that this program can use, the preferred one first: CUDA, then GPUs through Vulkan or
/// wgpu, those with memory of their own before others, then the CPU, then software GPUs.
pub fn list() -> Vec<Found> {
    let mut all: Vec<Found> = ["cuda", "vulkan", "wgpu", "cpu"].into_iter().flat_map(of).collect();
    all.sort_by_key(|found| found.kind);
    all
}

/// The devices of one backend; asking for the CPU starts no GPU driver.
fn of(backend: &str) -> Vec<Found> {
    match backend {
        #[cfg(feature = "cpu")]
        "cpu" => vec![Found {
            id: "cpu".into(),
            description: "this machine's processor".into(),
            kind: Kind::Processor,
            memory: None,
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
///
/// # Errors
///
/// * [`DeviceError::Unknown`] where it is no name of a device
/// * [`DeviceError::NotBuilt`] where the program was built without its backend
/// * [`DeviceError::Missing`] where the machine has none
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
    let software = devices.iter().any(|found| found.kind == Kind::Software);
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

/// The dtype of a sampler's state on a device: float64, except on wgpu, as WGSL has none (drivers that claim it
/// compute wrong values). What float32 loses over a whole run is about a ten-thousandth of a level of an 8-bit picture
/// (see [`crate::sampler`]).
pub fn state_dtype(device: &Device) -> FloatDType {
    if is_wgpu(device) { FloatDType::F32 } else { FloatDType::F64 }
}

fn is_wgpu(device: &Device) -> bool {
    #[cfg(feature = "wgpu")]
    {
        use burn::backend::DispatchDevice;
        // One that tracks gradients is the same device.
        match device.clone().inner().as_dispatch() {
            DispatchDevice::Wgpu(_) => true,
            #[cfg(feature = "vulkan")]
            DispatchDevice::Vulkan(_) => true,
            _ => false,
        }
    }
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = device;
        false
    }
}

/// Whether a device is the processor with its own kernels, and tracks no gradients.
pub fn is_processor(device: &Device) -> bool {
    #[cfg(feature = "cpu")]
    return matches!(device.as_dispatch(), burn::backend::DispatchDevice::Flex(_));
    #[cfg(not(feature = "cpu"))]
    {
        let _ = device;
        false
    }
}

/// Whether a device is one of CUDA's.
pub fn is_cuda(device: &Device) -> bool {
    #[cfg(feature = "cuda")]
    return matches!(device.as_dispatch(), burn::backend::DispatchDevice::Cuda(_));
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        false
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
        kind: Kind::Discrete,
        memory: None,
        device,
    };
    devices.into_iter().enumerate().map(found).collect()
}

/// What wgpu enumerates: one driver interface a system, so that no GPU is listed twice.
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
const INTERFACE: wgpu::Backends =
    if cfg!(target_vendor = "apple") { wgpu::Backends::METAL } else { wgpu::Backends::VULKAN };

#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
fn wgpu_adapters(name: &str, device: impl Fn(burn::tensor::DeviceKind) -> Device) -> Vec<Found> {
    use burn::tensor::DeviceKind;
    use wgpu::DeviceType;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: INTERFACE,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    // Burn counts adapters of one kind from 0.
    let mut of_kind = std::collections::BTreeMap::new();
    let adapters = pollster::block_on(instance.enumerate_adapters(INTERFACE));
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
        describe(format!("{name}:{n}"), &adapter, device(kind))
    };
    adapters.into_iter().enumerate().map(found).collect()
}

/// An adapter as it is listed; the kernels are told if it is a software GPU.
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
fn describe(id: String, adapter: &wgpu::Adapter, device: Device) -> Found {
    let info = adapter.get_info();
    let kind = kind_of(info.device_type, &info.name);
    tell_kernels(kind, &device);
    Found {
        id,
        description: format!("{} ({:?}, {})", info.name, info.device_type, info.backend),
        kind,
        memory: memory_of(adapter),
        device,
    }
}

/// Tells the kernels about a software GPU.
#[cfg(feature = "wgpu")]
fn tell_kernels(kind: Kind, device: &Device) {
    if kind == Kind::Software {
        tintype_shaders::note_software_gpu(device);
    }
}

/// What an adapter is by its type and by its names: a browser may say nothing of the type, and then passes a program
/// off as a GPU of which nothing is known.
#[cfg(feature = "wgpu")]
fn kind_of(device_type: wgpu::DeviceType, names: &str) -> Kind {
    const PROGRAMS: [&str; 4] = ["swiftshader", "llvmpipe", "lavapipe", "basic render"];
    let names = names.to_lowercase();
    match device_type {
        _ if PROGRAMS.iter().any(|program| names.contains(program)) => Kind::Software,
        wgpu::DeviceType::Cpu => Kind::Software,
        wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        _ => Kind::Integrated,
    }
}

/// Asks for a GPU in the way Burn does, so that both can share it: everything it can do.
#[cfg(feature = "wgpu")]
pub fn descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
    wgpu::DeviceDescriptor {
        label: Some("tintype"),
        required_features: needed(adapter),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        // SAFETY: the features are those that Burn itself enables on a device of its own.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        trace: wgpu::Trace::Off,
    }
}

/// Burn takes for granted that a device has whatever its adapter has.
#[cfg(feature = "wgpu")]
fn needed(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS
}

/// Lets Burn compute on a device that draws a window. To be called once a device. `None` where Burn
/// cannot use it: one not made with [`descriptor`], or behind another interface than the one that is
/// listed.
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
pub fn share(
    instance: wgpu::Instance,
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
) -> Option<Found> {
    use burn::backend::DispatchDevice;
    use burn::backend::wgpu::{WgpuSetup, init_device};
    if !device.features().contains(needed(&adapter)) || device.limits() != adapter.limits() {
        return None;
    }
    let info = adapter.get_info();
    let adapters = pollster::block_on(instance.enumerate_adapters(INTERFACE));
    let number = adapters.iter().position(|other| other.get_info() == info)?;
    let backend = info.backend;
    let setup = WgpuSetup { instance, adapter: adapter.clone(), device, queue, backend };
    let shared = init_device(setup, Default::default());
    let device = Device::new(DispatchDevice::Wgpu(shared));
    Some(describe(format!("wgpu:{number}"), &adapter, device))
}

/// The largest heap of a GPU's own memory.
#[cfg(all(feature = "wgpu", not(any(target_family = "wasm", target_vendor = "apple"))))]
fn memory_of(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the driver's handles are only asked for their properties while the adapter lives.
    let properties = unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(vulkan.raw_physical_device())
    };
    let own =
        |heap: &&ash::vk::MemoryHeap| heap.flags.contains(ash::vk::MemoryHeapFlags::DEVICE_LOCAL);
    properties.memory_heaps_as_slice().iter().filter(own).map(|heap| heap.size).max()
}

#[cfg(all(feature = "wgpu", target_vendor = "apple", not(target_family = "wasm")))]
fn memory_of(_: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "wgpu")]
    #[test]
    fn programs_are_known_by_type_or_by_name() {
        use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other};
        for (device_type, names, kind) in [
            (Cpu, "", Kind::Software),
            (Other, "google swiftshader", Kind::Software),
            (Other, "SwiftShader Device (Subzero)", Kind::Software),
            (IntegratedGpu, "llvmpipe (LLVM 15.0.6, 256 bits)", Kind::Software),
            (Other, "Microsoft Basic Render Driver", Kind::Software),
            (Other, "", Kind::Integrated),
            (Other, "nvidia turing", Kind::Integrated),
            (IntegratedGpu, "Intel(R) Graphics", Kind::Integrated),
            (DiscreteGpu, "NVIDIA GeForce RTX 4090", Kind::Discrete),
        ] {
            assert_eq!(kind_of(device_type, names), kind, "{device_type:?} {names}");
        }
    }

    #[test]
    fn names_mean_devices_or_say_why_not() {
        assert!(choose("auto").is_ok_and(|c| c.found.kind != Kind::Software));
        assert!(list().is_sorted_by_key(|found| found.kind));
        let error = |name: &str| choose(name).map(|c| c.found.id).expect_err(name).to_string();
        assert!(error("tpu").contains("auto, cpu, cuda"));
        assert!(error("cuda:x").starts_with("unknown device"));
        if cfg!(feature = "cpu") {
            assert_eq!(choose("cpu").expect("it is built in").found.id, "cpu");
            assert!(error("cpu:1").contains("found: cpu"));
        }
        if !cfg!(feature = "cuda") {
            assert_eq!(error("cuda"), "this program was built without cuda");
        }
    }
}
