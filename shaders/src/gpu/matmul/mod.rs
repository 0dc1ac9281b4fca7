//! Matrix products for GPUs through wgpu, divided by arithmetic: a [`Plan`] follows from the sizes alone.
//!
//! Burn tunes its product where it runs: each new size waits until many kernels are compiled and timed, which
//! delays the first image and which a browser does not allow. CUDA has products of its own, and so have
//! [software GPUs](super::dots), where shared memory and barriers cost more than they gain.

mod few_rows;
mod plan;
mod tiles;

use burn::backend::wgpu::WgpuRuntime;
use burn::backend::{DispatchTensor, DispatchTensorKind};
use burn::tensor::{DType, Shape};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::activation::{Activation, with_derivative};
use super::bridge::{Kernel, TensorSpec, is_counted, run};
use super::patches::rows_of;
use super::rows::{Rows, vector_size};
use crate::gradient::of_one_type;
use crate::software::is_on_software_gpu;
use plan::{Plan, Sizes};

/// Which factors' values lie together along the axis that is summed over; rows of the others go along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    pub a: bool,
    pub b: bool,
}

/// Whether products of such inputs are made here: in float32, and in float16 where Burn has no matrix units to
/// use.
pub(super) fn takes(inputs: &[DispatchTensor]) -> bool {
    of_one_type(inputs) && multiplies(&inputs[0]) && !is_on_software_gpu(&inputs[0])
}

#[allow(unreachable_patterns)] // where every backend is named
fn multiplies(x: &DispatchTensor) -> bool {
    let half = match x.dtype() {
        DType::F32 => false,
        DType::F16 => true,
        _ => return false,
    };
    match &x.kind {
        DispatchTensorKind::Wgpu(x) => !(half && has_matrix_units::<WgpuRuntime>(&x.device())),
        #[cfg(feature = "vulkan")]
        DispatchTensorKind::Vulkan(x) => {
            type OfVulkan = WgpuRuntime<cubecl::wgpu::SpirvCompiler>;
            !(half && has_matrix_units::<OfVulkan>(&x.device()))
        }
        _ => false,
    }
}

fn has_matrix_units<R: Runtime>(device: &R::Device) -> bool {
    !R::client(device).properties().features.matmul.cmma.is_empty()
}

/// The product of `a` and `b`, plus a bias for each column where there is one, and GELU with the tanh
/// approximation after that if `gelu`; `None` where the shapes do not fit, and where there are more values than
/// 32 bits count.
pub(super) fn multiply(
    a: &DispatchTensor,
    b: &DispatchTensor,
    inner: Inner,
    bias: Option<&DispatchTensor>,
    gelu: bool,
) -> Option<DispatchTensor> {
    let plan = Plan::of(sizes(a, b, inner)?, inner);
    with_plan(plan, a, b, inner, bias, gelu)
}

/// As [`multiply`], by a plan that suits the sizes.
fn with_plan(
    plan: Plan,
    a: &DispatchTensor,
    b: &DispatchTensor,
    inner: Inner,
    bias: Option<&DispatchTensor>,
    gelu: bool,
) -> Option<DispatchTensor> {
    let Sizes { m, n, k } = sizes(a, b, inner)?;
    let fits = bias.is_none_or(|bias| bias.shape() == Shape::from([n]))
        && [m * n, m * k, n * k].into_iter().all(is_counted);
    let inputs = [a, b].into_iter().chain(bias).cloned().collect();
    let [result] = fits.then(|| run(Product { plan, inner, gelu }, inputs))??;
    Some(result)
}

/// `None` where the factors do not agree on the axis that is summed over.
fn sizes(a: &DispatchTensor, b: &DispatchTensor, inner: Inner) -> Option<Sizes> {
    // Along the result, and along the sum.
    let sides = |x, inner| match (rows_of(x), inner) {
        ((rows, d), true) => (rows, d),
        ((rows, d), false) => (d, rows),
    };
    let ((m, k), (n, depth)) = (sides(a, inner.a), sides(b, inner.b));
    (k == depth).then_some(Sizes { m, n, k })
}

/// Inputs `a`, `b` and, where there is one, a bias. The result has `a`'s leading axes, or is `[m, n]` where `a`'s
/// rows are summed over.
#[derive(Clone, Copy, Debug)]
struct Product {
    plan: Plan,
    inner: Inner,
    gelu: bool,
}

impl Kernel for Product {
    const NAME: &'static str = "matrix product";

    fn outputs(&self, inputs: &[TensorSpec]) -> Vec<TensorSpec> {
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let last = |shape: &Shape| shape[shape.num_dims() - 1];
        let n = if self.inner.b { b.num_elements() / last(b) } else { last(b) };
        let leading: Vec<usize> = match self.inner.a {
            true => a.iter().copied().take(a.num_dims() - 1).collect(),
            false => vec![last(a)],
        };
        let shape: Vec<usize> = leading.into_iter().chain([n]).collect();
        vec![TensorSpec::new(shape, inputs[0].dtype)]
    }

    fn launch<R: CubeRuntime>(&self, inputs: Vec<CubeTensor<R>>, mut outputs: Vec<CubeTensor<R>>) {
        let to = Rows::of(outputs.remove(0));
        let inputs: Vec<Rows<R>> = inputs.into_iter().map(Rows::of).collect();
        let every: Vec<&Rows<R>> = inputs.iter().chain([&to]).collect();
        // Vectors as long as registers hold; `few_rows` has as many columns at a time.
        let width = vector_size(&every).min(plan::BLOCK as usize);
        match self.plan {
            Plan::FewRows => few_rows::start(&inputs, &to, self.gelu, width),
            Plan::Tiles(tile) => tiles::start(tile, self.inner, &inputs, &to, self.gelu, width),
        }
    }
}

/// Sums of the result's vector `column` of a row, as they are written.
#[cube]
fn finished<F: Float, N: Size>(
    sums: Vector<f32, N>,
    bias: &[Vector<F, N>],
    column: u32,
    #[comptime] has_bias: bool,
    #[comptime] gelu: bool,
) -> Vector<F, N> {
    let mut value = Vector::<f32, N>::new(0.0f32);
    if has_bias {
        value = Vector::<f32, N>::cast_from(bias[column as usize]);
    }
    value += sums;
    if gelu {
        let (bent, _slope) = with_derivative::<N>(value, comptime!(Activation::GeluTanh));
        value = bent;
    }
    Vector::<F, N>::cast_from(value)
}

#[cfg(all(test, feature = "cpu"))]
mod tests;
