//! Matrix products on Hopper's tensor cores: how one is divided, and its launch.

use super::source::Source;

/// The factors' axes: which of them are contiguous along the product's inner axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct Inner {
    pub a: bool,
    pub b: bool,
}

/// A product of `[m, k]` and `[k, n]`.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Sizes {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// The images whose pixels are the rows, where it is a convolution.
    pub images: Option<Images>,
}

/// Images with channels last and the window of a convolution that goes over them; its places are
/// the outer part of the product's inner axis, the channels the inner part.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Images {
    /// Odd side of the window.
    pub window: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// Pixels on a side of a tile of an image, as in the kernel.
const SIDE: usize = 16;

impl Sizes {
    /// Of matrices.
    pub(in crate::gpu) fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, images: None }
    }

    /// Tiles of so many rows.
    fn tiles(self, rows: usize) -> usize {
        match self.images {
            None => self.m.div_ceil(rows),
            Some(Images { height, width, .. }) => {
                let of_image = height.div_ceil(rows / SIDE) * width.div_ceil(SIDE);
                self.m / (height * width) * of_image
            }
        }
    }

    /// Steps along the inner axis.
    fn steps(self) -> usize {
        match self.images {
            None => self.k.div_ceil(DEPTH),
            Some(Images { window, channels, .. }) => window * window * channels.div_ceil(DEPTH),
        }
    }
}

/// Of the inner axis that a step goes, as in the kernel.
const DEPTH: usize = 64;

/// What a block may have of shared memory on Hopper, less what barriers and alignment take.
const SHARED_MEMORY: usize = 227 * 1024 - 2048;

/// How a product is divided among blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gpu) struct Plan {
    /// Groups of 64 rows that each of the two warpgroups has.
    pub groups: usize,
    /// Columns of a tile.
    pub columns: usize,
    /// Parts of the inner axis.
    pub splits: usize,
}

impl Plan {
    /// Tiles whose sums fit into registers.
    const TILES: [(usize, usize); 5] = [(2, 192), (2, 128), (1, 192), (1, 128), (1, 64)];

    /// The plan that takes the fewest clocks of a GPU with so many processors, by what bounds each
    /// step of a tile: 2,048 multiplications a clock, or 40 bytes a clock that the second-level cache
    /// has for each processor.
    pub(in crate::gpu) fn of(sizes: Sizes, processors: usize) -> Self {
        // The kernel that sums parts knows nothing of a residual, which convolutions have.
        let most = if sizes.images.is_some() { 1 } else { sizes.steps() };
        let plans = Self::TILES.into_iter().flat_map(|(groups, columns)| {
            let splits = [1, 2, 3, 4, 6, 8].into_iter().filter(move |&splits| splits <= most);
            splits.map(move |splits| Self { groups, columns, splits })
        });
        plans.min_by_key(|plan| plan.clocks(sizes, processors)).expect("one part is a plan")
    }

    fn clocks(self, sizes: Sizes, processors: usize) -> usize {
        let (rows, columns) = (128 * self.groups, self.columns);
        let step = (rows * columns * DEPTH / 2048).max((rows + columns) * DEPTH * 2 / 40);
        let results = rows * columns * if self.splits > 1 { 4 } else { 2 };
        let piece = sizes.steps().div_ceil(self.splits) * step + results / 24 + 1500;
        // The parts are read by another kernel, at 1,700 bytes a clock of the memory.
        let sum =
            if self.splits > 1 { sizes.m * sizes.n * 4 * self.splits / 1700 + 4000 } else { 0 };
        self.pieces(sizes).div_ceil(processors) * piece + sum
    }

    /// Pieces of work.
    pub(in crate::gpu) fn pieces(self, sizes: Sizes) -> usize {
        sizes.tiles(128 * self.groups) * sizes.n.div_ceil(self.columns) * self.splits
    }

    /// Bytes of a step in shared memory.
    fn step_bytes(self) -> usize {
        (128 * self.groups + self.columns) * DEPTH * 2
    }

    /// Steps that shared memory holds.
    fn stages(self) -> usize {
        (SHARED_MEMORY / self.step_bytes()).min(8)
    }

    pub(super) fn definitions(
        self,
        sizes: Sizes,
        inner: Inner,
        finish: Finish,
    ) -> Vec<(&'static str, usize)> {
        let images = sizes.images;
        let number = |of: fn(Images) -> usize| images.map_or(0, of);
        vec![
            ("M", sizes.m),
            ("N", sizes.n),
            ("K", sizes.k),
            ("A_INNER", inner.a.into()),
            ("B_INNER", inner.b.into()),
            ("GROUPS", self.groups),
            ("COLUMNS", self.columns),
            ("STAGES", self.stages()),
            ("SPLITS", self.splits),
            ("BIAS", finish.bias.into()),
            ("RESIDUAL", finish.residual.into()),
            ("GELU", finish.gelu.into()),
            ("WINDOW", number(|images| images.window)),
            ("HEIGHT", number(|images| images.height)),
            ("WIDTH", number(|images| images.width)),
            ("CHANNELS", number(|images| images.channels)),
            ("BF16", finish.bf16.into()),
        ]
    }

    /// The kernel.
    pub(super) fn source(self, sizes: Sizes, inner: Inner, finish: Finish) -> Source {
        let finish =
            if self.splits > 1 { Finish { bias: false, gelu: false, ..finish } } else { finish };
        Source {
            entry: "product",
            definitions: self.definitions(sizes, inner, finish),
            instructions: |source| format!("{}{}", include_str!("hopper.cuh"), multiply(source)),
            kernel: &[include_str!("epilogue.cuh"), include_str!("product.cu")],
            threads: 384,
            // The kernel aligns what it has to 1,024 bytes itself.
            shared_memory: 1024 + self.stages() * (self.step_bytes() + 16),
        }
    }

    /// The kernel that sums the parts.
    #[cfg(feature = "cuda")]
    fn sum_source(self, sizes: Sizes, inner: Inner, finish: Finish) -> Source {
        Source {
            entry: "product_sum",
            definitions: self.definitions(sizes, inner, finish),
            instructions: |_| include_str!("hopper.cuh").to_owned(),
            kernel: &[include_str!("epilogue.cuh"), include_str!("product_sum.cu")],
            threads: 256,
            shared_memory: 0,
        }
    }
}

/// What becomes of the sums.
#[derive(Clone, Copy, Debug)]
pub(in crate::gpu) struct Finish {
    /// A bias for each column is added.
    pub bias: bool,
    /// Something of the result's shape is added.
    pub residual: bool,
    /// GELU with the tanh approximation follows.
    pub gelu: bool,
    /// Values are bfloat16, otherwise float16.
    pub bf16: bool,
}

/// The instruction for a product's columns (PTX ISA, "wgmma.mma_async"): sums in half as many registers
/// of each thread.
fn multiply(source: &Source) -> String {
    let columns = source.value("COLUMNS");
    let count = columns / 2;
    let element = if source.value("BF16") == 1 { "bf16" } else { "f16" };
    let registers: Vec<_> = (0..count).map(|i| format!("%{i}")).collect();
    let sums: Vec<_> = (0..count).map(|i| format!("\"+f\"(sums[{i}])")).collect();
    let [a, b, keep] = [count, count + 1, count + 2];
    let (registers, sums) = (registers.join(", "), sums.join(", "));
    let [across_a, across_b] = ["A_INNER", "B_INNER"].map(|inner| 1 - source.value(inner));
    format!(
        "__device__ __forceinline__ void multiply(float (&sums)[{count}], u64 a, u64 b, int keep) {{\n\
         asm volatile(\"{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{keep}, 0;\\n\"\n\
         \"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{element}.{element} \"\n\
         \"{{{registers}}}, %{a}, %{b}, p, 1, 1, {across_a}, {across_b};\\n}}\\n\"\n\
         : {sums} : \"l\"(a), \"l\"(b), \"r\"(keep));\n}}\n"
    )
}

#[cfg(feature = "cuda")]
pub(in crate::gpu) use on_device::{Added, convolution, product};

#[cfg(feature = "cuda")]
mod on_device {
    use burn::tensor::DType;
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::cuda::CudaRuntime;
    use cubecl::prelude::*;
    use cubecl::server::{KernelResource, TensorMapBinding, TensorMapMeta};
    use cubecl::zspace::{Strides, metadata::Metadata};

    use super::super::super::bridge::alloc;
    use super::super::super::rows::{Rows, elem};
    use super::*;

    /// What is added to the sums before they are written, and what follows.
    #[derive(Clone, Copy, Default)]
    pub(in crate::gpu) struct Added<'a> {
        /// A value for each column.
        pub bias: Option<&'a CubeTensor<CudaRuntime>>,
        /// A value for each result.
        pub residual: Option<&'a CubeTensor<CudaRuntime>>,
        /// Whether GELU with the tanh approximation follows.
        pub gelu: bool,
    }

    /// `A B` into `to`. Rows of `a` are the result's rows where it is `inner`, otherwise they go along
    /// the inner axis; likewise rows of `b` and the result's columns. All of one 16-bit type, with
    /// rows that begin at multiples of 16 bytes.
    pub(in crate::gpu) fn product(
        a: &Rows<CudaRuntime>,
        b: &Rows<CudaRuntime>,
        inner: Inner,
        added: Added<'_>,
        to: &CubeTensor<CudaRuntime>,
        plan: Option<Plan>,
    ) {
        let (m, k) = if inner.a { (a.count, a.d) } else { (a.d, a.count) };
        let sizes = Sizes::new(m, if inner.b { b.count } else { b.d }, k);
        let plan = plan.unwrap_or_else(|| Plan::of(sizes, processors(to)));
        let a = map(a, if inner.a { [128 * plan.groups, DEPTH] } else { [DEPTH, 64] });
        start(a, b, sizes, inner, added, to, plan);
    }

    /// The convolution of `x`, contiguous `[B, H, W, C]`, with as many zeros around it as keep its
    /// size; rows of `weight` are the result's channels, `[out, window·window·C]`.
    pub(in crate::gpu) fn convolution(
        x: &CubeTensor<CudaRuntime>,
        weight: &Rows<CudaRuntime>,
        window: usize,
        added: Added<'_>,
        to: &CubeTensor<CudaRuntime>,
    ) {
        let shape = x.meta.shape();
        let (height, width, channels) = (shape[1], shape[2], shape[3]);
        let images = Some(Images { window, height, width, channels });
        let sizes = Sizes { m: shape[0] * height * width, n: weight.count, k: weight.d, images };
        let plan = Plan::of(sizes, processors(to));
        let tile = [1, 128 * plan.groups / SIDE, SIDE, DEPTH];
        let a = tensor_map(x, [shape[0], height, width, channels], x.meta.strides().to_vec(), tile);
        start(a, weight, sizes, Inner { a: true, b: true }, added, to, plan);
    }

    fn processors(beside: &CubeTensor<CudaRuntime>) -> usize {
        let processors = beside.client.properties().hardware.num_streaming_multiprocessors;
        processors.unwrap_or(132) as usize
    }

    fn start(
        a: KernelResource,
        b: &Rows<CudaRuntime>,
        sizes: Sizes,
        inner: Inner,
        added: Added<'_>,
        to: &CubeTensor<CudaRuntime>,
        plan: Plan,
    ) {
        let Added { bias, residual, gelu } = added;
        let bf16 = to.dtype == DType::BF16;
        let finish = Finish { bias: bias.is_some(), residual: residual.is_some(), gelu, bf16 };
        let b = map(b, if inner.b { [plan.columns, DEPTH] } else { [DEPTH, 64] });
        let blocks = plan.pieces(sizes).min(processors(to));
        let kernel = plan.source(sizes, inner, finish);
        let (added, result) = (bias.into_iter().chain(residual).map(buffer), buffer(to));
        if plan.splits == 1 {
            let resources = [a, b].into_iter().chain(added).chain([result]).collect();
            kernel.launch(&to.client, blocks, resources, &[]);
        } else {
            let parts = alloc(to, [plan.splits, sizes.m, sizes.n], DType::F32);
            kernel.launch(&to.client, blocks, vec![a, b, buffer(&parts)], &[]);
            let sum = plan.sum_source(sizes, inner, finish);
            let resources = [buffer(&parts)].into_iter().chain(added).chain([result]).collect();
            sum.launch(&to.client, (sizes.m * sizes.n / 8).div_ceil(256), resources, &[]);
        }
    }

    pub(in crate::gpu::cuda) fn buffer(tensor: &CubeTensor<CudaRuntime>) -> KernelResource {
        KernelResource::Buffer(tensor.handle.clone().binding())
    }

    /// Rows for the copy engine, which brings boxes of this many rows and columns.
    fn map(rows: &Rows<CudaRuntime>, tile: [usize; 2]) -> KernelResource {
        tensor_map(&rows.tensor, [rows.count, rows.d], vec![rows.stride, 1], tile)
    }

    fn tensor_map<const N: usize>(
        tensor: &CubeTensor<CudaRuntime>,
        shape: [usize; N],
        strides: Vec<usize>,
        tile: [usize; N],
    ) -> KernelResource {
        let map = TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs { tile_size: tile.into() }),
            metadata: Metadata::new(shape, Strides::new(&strides)),
            elem_stride: Strides::new(&[1; N]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B256,
            oob_fill: OobFill::Zero,
            elem_ty: elem(tensor.dtype),
        };
        let binding = tensor.handle.clone().binding();
        KernelResource::TensorMap(TensorMapBinding { binding, map })
    }
}
#[cfg(feature = "cuda")]
pub(super) use on_device::buffer;
