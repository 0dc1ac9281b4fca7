//! Compiling and starting a [`Source`] on the stream of Burn's own work.

use std::any::Any;

use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::ComputeClient;
use cubecl::cuda::{CudaCompiler, CudaComputeKernel, CudaRuntime};
use cubecl::ir::metadata::Info;
use cubecl::ir::{ElemType, UIntKind};
use cubecl::prelude::*;
use cubecl::server::{KernelArguments, KernelResource, MetadataBindingInfo};
use cubecl::{CompilationError, Compiler, CubeTask};

use super::source::Source;

/// The compute capability of a CUDA device, 90 for Hopper.
pub(in crate::gpu) fn compute_capability(client: &ComputeClient<CudaRuntime>) -> Option<u32> {
    client.properties().identity.fingerprint.strip_prefix("ptx_sm")?.parse().ok()
}

/// A tensor that is on CUDA as what it is.
pub(in crate::gpu) fn on_cuda<R: CubeRuntime>(
    tensor: &CubeTensor<R>,
) -> Option<&CubeTensor<CudaRuntime>> {
    (tensor as &dyn Any).downcast_ref()
}

impl Source {
    fn settings(&self) -> KernelSettings {
        KernelSettings::new(
            CubeDim::new_1d(self.threads).0,
            ExecutionMode::Unchecked,
            AddressType::U32,
        )
    }

    /// Starts the kernel on `blocks` blocks. Its parameters are the resources, in their order, and
    /// behind them `arguments`, a struct of numbers of 32 bits, where there are any.
    pub(super) fn launch(
        self,
        client: &ComputeClient<CudaRuntime>,
        blocks: usize,
        resources: Vec<KernelResource>,
        arguments: &[u32],
    ) {
        let word = |pair: &[u32]| {
            u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or_default()) << 32
        };
        let data: Vec<u64> = arguments.chunks(2).map(word).collect();
        // Everything goes into the kernel's parameters, nothing into a buffer.
        let info = MetadataBindingInfo { dynamic_metadata_offset: data.len(), data };
        let arguments = KernelArguments { resources, info };
        client.launch(Box::new(self), CubeCount::Static(blocks as u32, 1, 1), arguments);
    }
}

impl KernelMetadata for Source {
    fn name(&self) -> &'static str {
        self.entry
    }

    fn id(&self) -> KernelId {
        // The text follows from these, and from the program, which caches are kept apart by.
        let id = (self.entry, self.definitions.clone());
        KernelId::new::<Self>().cube_dim(self.settings().cube_dim).info(id)
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

impl CubeTask<CudaCompiler> for Source {
    fn define(&self) -> KernelDefinition {
        let settings = self.settings();
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: Info::default() }
    }

    fn compile(
        &self,
        _: KernelDefinition,
        _: &mut CudaCompiler,
        _: &<CudaCompiler as Compiler>::CompilationOptions,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        let source = self.text();
        Ok(CompiledKernel {
            entrypoint_name: self.entry.to_owned(),
            debug_name: Some(self.entry),
            repr: Some(CudaComputeKernel {
                shared_memory_size: self.shared_memory,
                buffers: Vec::new(),
                source: source.clone(),
            }),
            source,
            cube_dim: CubeDim::new_1d(self.threads),
            debug_info: None,
        })
    }
}
