//! Attention on tensor cores: its tiles, and its launches.

use super::source::Source;

/// Of a head: values of a query or key, and of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub d: usize,
    pub e: usize,
    /// Values are bfloat16, otherwise float16.
    pub bf16: bool,
}

/// Warps of a block, as in the kernels.
const WARPS: usize = 4;

/// What a pass holds of a head: tiles of 16 rows a warp, and rows of the other side at a time. The
/// most that registers hold, as the compiler reported for compute capability 9.0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub count: usize,
    pub step: usize,
}

impl Head {
    pub(super) fn forward_tiles(self) -> Tiles {
        Tiles { count: if self.d.max(self.e) <= 72 { 2 } else { 1 }, step: 64 }
    }

    pub(super) fn backward_tiles(self) -> Tiles {
        Tiles { count: 1, step: if self.d.max(self.e) <= 72 { 64 } else { 32 } }
    }

    fn definitions(self, tiles: Tiles) -> Vec<(&'static str, usize)> {
        let (d, e) = (("D", self.d), ("E", self.e));
        vec![d, e, ("BF16", self.bf16.into()), ("TILES", tiles.count), ("STEP", tiles.step)]
    }

    /// Bytes of `rows` rows of `width` values in shared memory.
    fn bytes(width: usize, rows: usize) -> usize {
        rows * (width.next_multiple_of(16) + 8) * 2
    }

    pub(super) fn forward(self) -> Source {
        let tiles = self.forward_tiles();
        let own = Self::bytes(self.d.max(self.e), tiles.rows());
        let steps = Self::bytes(self.d, tiles.step) + Self::bytes(self.e, tiles.step);
        Source {
            entry: "attention_forward",
            definitions: self.definitions(tiles),
            instructions: |_| include_str!("ampere.cuh").to_owned(),
            kernel: &[include_str!("attention.cuh"), include_str!("attention_forward.cu")],
            threads: 32 * WARPS as u32,
            shared_memory: own + 2 * steps,
        }
    }

    pub(super) fn backward(self, of_keys: bool) -> Source {
        let tiles = self.backward_tiles();
        let rows = tiles.rows() + 2 * tiles.step;
        let stats = if of_keys { 2 * tiles.step * 8 } else { 0 };
        Source {
            entry: "attention_backward",
            definitions: [self.definitions(tiles), vec![("OF_KEYS", of_keys.into())]].concat(),
            instructions: |_| include_str!("ampere.cuh").to_owned(),
            kernel: &[include_str!("attention.cuh"), include_str!("attention_backward.cu")],
            threads: 32 * WARPS as u32,
            shared_memory: Self::bytes(self.d, rows) + Self::bytes(self.e, rows) + stats,
        }
    }
}

impl Tiles {
    /// Rows of a block.
    pub(super) fn rows(self) -> usize {
        16 * self.count * WARPS
    }
}

#[cfg(feature = "cuda")]
pub(in crate::gpu) use on_device::{backward, forward, takes};

#[cfg(feature = "cuda")]
mod on_device {
    use burn::tensor::DType;
    use burn_cubecl::CubeRuntime;
    use burn_cubecl::tensor::CubeTensor;
    use cubecl::cuda::CudaRuntime;

    use super::super::super::flash::Dims;
    use super::super::super::view::View;
    use super::super::product::buffer;
    use super::super::{compute_capability, on_cuda};
    use super::*;

    impl Head {
        fn of(dims: Dims, dtype: DType) -> Self {
            Self { d: dims.d, e: dims.e, bf16: dtype == DType::BF16 }
        }
    }

    /// Whether the kernels are for such tensors: of 16 bits, on a GPU that has the instructions, in
    /// rows that are copied 16 bytes at a time.
    pub(in crate::gpu) fn takes<R: CubeRuntime>(dims: Dims, views: &[View<'_, R>]) -> bool {
        let Some(tensor) = on_cuda(views[0].tensor) else { return false };
        let head = Head::of(dims, tensor.dtype);
        let room = tensor.client.properties().hardware.max_shared_memory_size;
        tensor.dtype.size() == 2
            && dims.d.is_multiple_of(8)
            && dims.e.is_multiple_of(8)
            && views.iter().all(View::is_aligned)
            && compute_capability(&tensor.client).is_some_and(|version| version >= 80)
            && head.forward().shared_memory.max(head.backward(true).shared_memory) <= room
    }

    /// As [`softmax::forward`](super::super::super::softmax::forward).
    pub(in crate::gpu) fn forward<R: CubeRuntime>(
        dims: Dims,
        scale: f64,
        [q, k, v]: [View<'_, R>; 3],
        out: View<'_, R>,
        lse: &CubeTensor<R>,
    ) {
        let Some(first) = on_cuda(q.tensor) else { return };
        let head = Head::of(dims, first.dtype);
        start(
            head.forward(),
            dims.queries.div_ceil(head.forward_tiles().rows()) * dims.batch * dims.heads,
            [q.tensor, k.tensor, v.tensor, out.tensor, lse],
            &arguments(dims, scale, &[q, k, v, out]),
        );
    }

    /// The gradients; `stats` as [`flash::statistics`](super::super::super::flash::statistics)
    /// gives them.
    pub(in crate::gpu) fn backward<R: CubeRuntime>(
        dims: Dims,
        scale: f64,
        [q, k, v]: [View<'_, R>; 3],
        gradient: View<'_, R>,
        stats: &CubeTensor<R>,
        [dq, dk, dv]: [View<'_, R>; 3],
    ) {
        let Some(first) = on_cuda(q.tensor) else { return };
        let head = Head::of(dims, first.dtype);
        let rows = head.backward_tiles().rows();
        let given = [q.tensor, k.tensor, v.tensor, gradient.tensor, stats];
        let blocks = |count: usize| count.div_ceil(rows) * dims.batch * dims.heads;
        let [a, b, c, d, e] = given;
        start(
            head.backward(true),
            blocks(dims.keys),
            [a, b, c, d, e, dk.tensor, dv.tensor],
            &arguments(dims, scale, &[q, k, v, gradient, dk, dv]),
        );
        start(
            head.backward(false),
            blocks(dims.queries),
            [a, b, c, d, e, dq.tensor],
            &arguments(dims, scale, &[q, k, v, gradient, dq]),
        );
    }

    fn start<R: CubeRuntime, const N: usize>(
        source: Source,
        blocks: usize,
        tensors: [&CubeTensor<R>; N],
        arguments: &[u32],
    ) {
        let tensors: Vec<&CubeTensor<CudaRuntime>> =
            tensors.into_iter().filter_map(|tensor| on_cuda(tensor)).collect();
        let resources = tensors.iter().map(|tensor| buffer(tensor)).collect();
        source.launch(&tensors[0].client, blocks, resources, arguments);
    }

    /// `struct Arguments` of the kernels.
    fn arguments<R: CubeRuntime>(dims: Dims, scale: f64, views: &[View<'_, R>]) -> Vec<u32> {
        let mut numbers: Vec<u32> = views.iter().flat_map(|view| view.numbers()).collect();
        numbers.extend([dims.queries, dims.keys, dims.heads].map(|n| n as u32));
        numbers.push((scale as f32).to_bits());
        numbers
    }
}
