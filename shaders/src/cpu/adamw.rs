//! AdamW's update of parameters, one pass over memory instead of a dozen.

use burn::tensor::Tensor;

use super::for_each;
use super::lists::{PIECE, own};
use super::tensor::wrap;
use super::vectors::vectorized;
use crate::{AdamWStep, AdamWUpdate};

/// Parameters and their moments after a step, in the memory of those before where nobody else
/// refers to it.
///
/// # Panics
///
/// If [`takes`](super::lists::takes) says no to a tensor, or the sizes of an update differ.
pub(crate) fn steps(updates: Vec<AdamWUpdate>) -> Vec<(Tensor<1>, [Tensor<1>; 2])> {
    let parts = |update: AdamWUpdate| {
        let AdamWUpdate { parameter, gradient, moments: [first, second], step } = update;
        (step, own(gradient), [parameter, first, second].map(own))
    };
    let mut updates: Vec<_> = updates.into_iter().map(parts).collect();
    let mut pieces = Vec::new();
    for (step, gradient, tensors) in &mut updates {
        let (step, gradient) = (*step, gradient.storage::<f32>());
        let tensors = tensors.each_mut().map(|x| x.storage_mut::<f32>());
        let sizes = tensors.each_ref().map(|x| x.len());
        assert_eq!(sizes, [gradient.len(); 3], "the sizes of parameter, moments and gradient");
        let [p, first, second] = tensors.map(|x| x.chunks_mut(PIECE));
        let chunks = p.zip(first).zip(second).zip(gradient.chunks(PIECE));
        pieces.extend(chunks.map(move |(((p, first), second), g)| (step, [p, first, second], g)));
    }
    for_each(pieces, |_, (step, tensors, gradient)| advance(step, tensors, gradient));
    let after = updates.into_iter().map(|(_, _, tensors)| {
        let [parameter, first, second] = tensors.map(|x| Tensor::from_dispatch(wrap(x)));
        (parameter, [first, second])
    });
    after.collect()
}

/// The step of a piece: of a parameter and its moments.
fn advance(step: AdamWStep, [p, first, second]: [&mut [f32]; 3], g: &[f32]) {
    let count = p.len();
    let (first, second, g) = (&mut first[..count], &mut second[..count], &g[..count]);
    let [beta1, beta2] = step.betas.map(|beta| beta as f32);
    let [rest1, rest2] = step.betas.map(|beta| (1.0 - beta) as f32);
    let [scale, decay, rate, root, eps] =
        [step.scale, step.decay, step.rate, step.root, step.eps].map(|factor| factor as f32);
    vectorized(
        #[inline(always)]
        || {
            for i in 0..count {
                let g = g[i] * scale;
                let m = first[i] * beta1 + g * rest1;
                let v = second[i] * beta2 + g * g * rest2;
                p[i] = p[i] * decay - m / (v.sqrt() * root + eps) * rate;
                first[i] = m;
                second[i] = v;
            }
        },
    );
}
