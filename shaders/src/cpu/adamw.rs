//! AdamW's update of a parameter, one pass over memory instead of a dozen.

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexTensor};

use super::for_each_pieces;
use super::tensor::{float32, wrap};
use super::vectors::vectorized;
use crate::AdamWStep;

/// Values that a piece holds.
const PIECE: usize = 1 << 14;

/// Whether all are float32 on the CPU backend, and not tracked.
pub(crate) fn takes(tensors: [&Tensor<1>; 4]) -> bool {
    tensors.into_iter().all(|x| float32(&x.clone().into_dispatch()).is_some())
}

/// The parameter and its moments after a step, in the memory of those before where nobody else
/// refers to it.
///
/// # Panics
///
/// If [`takes`] says no.
pub(crate) fn step(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    [first, second]: [Tensor<1>; 2],
    step: AdamWStep,
) -> (Tensor<1>, [Tensor<1>; 2]) {
    let gradient = own(gradient);
    let g = gradient.storage::<f32>();
    let mut tensors = [parameter, first, second].map(own);
    let [beta1, beta2] = step.betas.map(|beta| beta as f32);
    let [rest1, rest2] = step.betas.map(|beta| (1.0 - beta) as f32);
    let [decay, rate, root, eps] =
        [step.decay, step.rate, step.root, step.eps].map(|factor| factor as f32);
    let values = tensors.each_mut().map(|x| x.storage_mut::<f32>());
    for_each_pieces(values, [PIECE; 3], |i, [p, first, second]| {
        let count = p.len();
        let (first, second) = (&mut first[..count], &mut second[..count]);
        let g = &g[i * PIECE..][..count];
        vectorized(
            #[inline(always)]
            || {
                for i in 0..count {
                    let m = first[i] * beta1 + g[i] * rest1;
                    let v = second[i] * beta2 + g[i] * g[i] * rest2;
                    p[i] = p[i] * decay - m / (v.sqrt() * root + eps) * rate;
                    first[i] = m;
                    second[i] = v;
                }
            },
        );
    });
    let [parameter, first, second] = tensors.map(|x| Tensor::from_dispatch(wrap(x)));
    (parameter, [first, second])
}

/// The tensor itself, its values alone in their memory.
fn own(x: Tensor<1>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("`takes` said yes").to_contiguous()
}
