//! The WGSL of every kernel, as it is generated for real sizes: valid, and modest enough for the web.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use cubecl::config::compilation::CompilationLogLevel;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use tintype_shaders::{AdamWStep, AdamWUpdate, StepGuard, adamw_all, sum_of_squares};

use super::cases::{self, Body, Flat};
use super::flat;

/// Storage buffers of a stage, and bytes of shared memory, that every desktop browser has.
const BUFFERS: usize = 8;
const SHARED_MEMORY: u32 = 32 * 1024;
/// Kernels for software GPUs, where a barrier costs more than anything else.
const ALONE: [&str; 3] = ["dots::dots", "flash::alone::forward_alone", "patches::patches"];

/// Software Vulkan, through WGSL that is written to [`log`] from the first kernel on. For every test: Mesa keeps
/// no kernel of a process with that log for one without it, and would compile each of them twice.
pub fn device() -> Device {
    log();
    let device = Device::wgpu(DeviceKind::Cpu);
    tintype_shaders::note_software_gpu(&device);
    device
}

/// The same GPU, of which nobody said that it is software: it takes the kernels that others take.
pub fn hardware() -> Device {
    log();
    Device::wgpu(DeviceKind::DefaultDevice)
}

/// The file that sources are written to.
fn log() -> &'static Path {
    static LOG: OnceLock<PathBuf> = OnceLock::new();
    LOG.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels.log");
        std::fs::write(&path, "").expect("Cargo's folder for tests");
        let mut config = CubeClRuntimeConfig::default();
        config.compilation.logger.level = CompilationLogLevel::Full;
        config.compilation.logger.file = Some(path.clone());
        CubeClRuntimeConfig::set(config);
        path
    })
}

#[test]
fn kernels_are_valid_and_modest() {
    for family in [
        cases::norms as fn(cases::Visit<'_>),
        cases::gates,
        cases::activations,
        cases::attention,
        cases::neighborhoods,
        cases::packed_attention,
        cases::group_norms,
        cases::products,
    ] {
        family(&mut run);
    }
    // Convolutions are made by a kernel where no gradient is wanted.
    cases::convolutions(&mut |inputs: &[TensorData], fused: Body<'_>, _: Body<'_>, _: f32| {
        let leaf = |data: &TensorData| -> Flat { Tensor::from_data(flat(data), &device()) };
        fused(&inputs.iter().map(leaf).collect::<Vec<_>>()).into_data();
    });
    // What GPUs that are none in disguise compute in other ways.
    for family in [
        cases::norms as fn(cases::Visit<'_>),
        cases::attention,
        cases::packed_attention,
        cases::group_norms,
        cases::products,
    ] {
        family(&mut |inputs: &[TensorData], fused: Body<'_>, _: Body<'_>, _: f32| {
            let leaf = |data: &TensorData| -> Flat { Tensor::from_data(flat(data), &hardware()) };
            fused(&inputs.iter().map(leaf).collect::<Vec<_>>()).into_data();
        });
    }
    let one = || -> Flat { Tensor::ones([5], &device()) };
    for device in [device(), hardware()] {
        optimize(&device);
    }
    assert!(tintype_shaders::overwrite(one(), &one()), "both are on the GPU");
    let names = kernels();
    let sources = written(log(), &names);
    for name in &names {
        let found = sources.get(name).unwrap_or_else(|| panic!("{name} was never compiled"));
        for source in found {
            check(name, source);
            let waits = source.contains("workgroup>") || source.contains("workgroupBarrier");
            assert!(
                !ALONE.contains(&name.as_str()) || !waits,
                "units of {name} wait for each other"
            );
        }
    }
}

/// A step of an optimizer, without an EMA and with several.
fn optimize(device: &Device) {
    let one = || -> Flat { Tensor::ones([5], device) };
    let guard = StepGuard { numbers: sum_of_squares(vec![one()]), max_norm: Some(1.0) };
    for count in [0, 2] {
        let update = AdamWUpdate {
            parameter: one(),
            gradient: one(),
            moments: [one(), one()],
            averages: (0..count).map(|_| (one(), 0.1)).collect(),
            step: AdamWStep { betas: [0.9, 0.999], decay: 1.0, rate: 1e-3, root: 1.0, eps: 1e-8 },
        };
        let after = adamw_all(vec![update], &guard).remove(0);
        for tensor in after.averages.into_iter().chain([after.parameter]) {
            tensor.into_data();
        }
    }
}

/// Computes an operation and its gradient.
fn run(inputs: &[TensorData], fused: Body<'_>, _: Body<'_>, _: f32) {
    let device = device().autodiff();
    let leaf =
        |data: &TensorData| -> Flat { Tensor::from_data(flat(data), &device).require_grad() };
    let leaves: Vec<Flat> = inputs.iter().map(leaf).collect();
    let gradients = fused(&leaves).sum().backward();
    leaves[0].grad(&gradients).expect("it has one").into_data();
}

/// `module::function` of every kernel in the source.
fn kernels() -> Vec<String> {
    let mut names = Vec::new();
    gather(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu"), "", &mut names);
    assert!(names.len() > 10, "{names:?}");
    names
}

fn gather(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for file in std::fs::read_dir(folder).expect("the kernels' folder") {
        let path = file.expect("a file").path();
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            gather(&path, &format!("{prefix}{stem}::"), names);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("a source");
        for part in source.split("#[cube(launch_unchecked)]\nfn ").skip(1) {
            let end = part.find(['<', '(']).expect("a signature");
            names.push(format!("{prefix}{stem}::{}", &part[..end]));
        }
    }
}

/// The sources of our kernels, once all are there: they are written behind the scenes.
fn written(log: &Path, names: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut sources = BTreeMap::new();
    for _ in 0..100 {
        sources = parse(&std::fs::read_to_string(log).unwrap_or_default());
        if names.iter().all(|name| sources.contains_key(name)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    sources
}

fn parse(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut sources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for block in log.split("[START_KERNEL_COMPILATION]").skip(1) {
        let Some((block, _)) = block.split_once("[END_KERNEL_COMPILATION]") else { continue };
        let Some((_, rest)) = block.split_once("name: tintype_shaders::gpu::") else { continue };
        let name: Vec<&str> = rest.split(['<', '\n']).next().expect("a name").split("::").collect();
        let (_, source) = block.split_once("```wgsl\n").expect("a source");
        let source = source.split("```").next().expect("an end").to_owned();
        // The last part is the type that the macro makes of the function.
        let name = name[..name.len() - 1].join("::");
        sources.entry(name).or_default().push(source);
    }
    sources
}

fn check(name: &str, source: &str) {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source)));
    let mut validator = naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        if source.contains("enable f16;") {
            naga::valid::Capabilities::SHADER_FLOAT16
        } else {
            naga::valid::Capabilities::empty()
        },
    );
    if let Err(error) = validator.validate(&module) {
        panic!("{name}: {}", error.emit_to_string(source));
    }
    let variables = || module.global_variables.iter().map(|(_, variable)| variable);
    let buffers =
        variables().filter(|v| matches!(v.space, naga::AddressSpace::Storage { .. })).count();
    assert!(buffers <= BUFFERS, "{name} binds {buffers} storage buffers");
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("it is valid");
    let shared: u32 = variables()
        .filter(|v| v.space == naga::AddressSpace::WorkGroup)
        .map(|v| layouter[v.ty].size)
        .sum();
    assert!(shared <= SHARED_MEMORY, "{name} takes {shared} bytes of shared memory");
}
