//! AdamW's update of parameters and of their EMAs, one pass over memory instead of a dozen.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::for_each;
use super::lists::{PIECE, approach, own};
use super::tensor::wrap;
use super::vectors::vectorized;
use crate::{AdamWStep, AdamWUpdate, AdamWUpdated, StepGuard};

/// An update whose tensors are alone in their memory.
struct Owned {
    step: AdamWStep,
    gradient: FlexTensor,
    /// The parameter, its first and its second moment.
    tensors: [FlexTensor; 3],
    /// With the share by which each moves.
    averages: Vec<(FlexTensor, f32)>,
}

impl Owned {
    fn of(update: AdamWUpdate) -> Self {
        let AdamWUpdate { parameter, gradient, moments: [first, second], averages, step } = update;
        let average = |(average, share): (Tensor<1>, f64)| (own(average), share as f32);
        Self {
            step,
            gradient: own(gradient),
            tensors: [parameter, first, second].map(own),
            averages: averages.into_iter().map(average).collect(),
        }
    }

    fn updated(self) -> AdamWUpdated {
        let tensor = |x| Tensor::from_dispatch(wrap(x));
        let [parameter, first, second] = self.tensors.map(tensor);
        let averages = self.averages.into_iter().map(|(average, _)| tensor(average)).collect();
        AdamWUpdated { parameter, moments: [first, second], averages }
    }
}

/// The same range of all tensors of an update.
struct Piece<'a> {
    step: AdamWStep,
    gradient: &'a [f32],
    /// Of the parameter, its first and its second moment.
    tensors: [&'a mut [f32]; 3],
    averages: Vec<(&'a mut [f32], f32)>,
}

/// Parameters, their moments and their EMAs after a step, in the memory of those before where nobody else
/// refers to it.
///
/// # Panics
///
/// If [`takes`](super::lists::takes) says no to a tensor, or the sizes of an update differ.
pub(crate) fn steps(updates: Vec<AdamWUpdate>, guard: &StepGuard) -> Vec<AdamWUpdated> {
    let Some(scale) = guard.factor() else {
        return updates.into_iter().map(AdamWUpdate::unchanged).collect();
    };
    let mut updates: Vec<Owned> = updates.into_iter().map(Owned::of).collect();
    let mut pieces = Vec::new();
    for Owned { step, gradient, tensors, averages } in &mut updates {
        let (step, gradient) = (*step, gradient.storage::<f32>());
        let tensors = tensors.each_mut().map(|x| x.storage_mut::<f32>());
        let averages: Vec<(&mut [f32], f32)> =
            averages.iter_mut().map(|(x, share)| (x.storage_mut::<f32>(), *share)).collect();
        let sizes = tensors.each_ref().map(|x| x.len());
        assert_eq!(sizes, [gradient.len(); 3], "the sizes of parameter, moments and gradient");
        let fit = averages.iter().all(|(x, _)| x.len() == gradient.len());
        assert!(fit, "the sizes of a parameter and of its averages");
        let [p, first, second] = tensors.map(|x| x.chunks_mut(PIECE));
        let mut averages: Vec<_> =
            averages.into_iter().map(|(x, share)| (x.chunks_mut(PIECE), share)).collect();
        let chunks = p.zip(first).zip(second).zip(gradient.chunks(PIECE));
        pieces.extend(chunks.map(move |(((p, first), second), gradient)| {
            let averages = averages
                .iter_mut()
                .map(|(pieces, share)| (pieces.next().expect("of one size"), *share))
                .collect();
            Piece { step, gradient, tensors: [p, first, second], averages }
        }));
    }
    for_each(pieces, |_, piece| advance(piece, scale));
    updates.into_iter().map(Owned::updated).collect()
}

/// The step of a piece with `scale` times its gradients. Its EMAs follow while it is in the cache.
fn advance(piece: Piece<'_>, scale: f64) {
    let Piece { step, gradient: g, tensors: [p, first, second], averages } = piece;
    let count = p.len();
    let (first, second, g) = (&mut first[..count], &mut second[..count], &g[..count]);
    let [beta1, beta2] = step.betas.map(|beta| beta as f32);
    let [rest1, rest2] = step.betas.map(|beta| (1.0 - beta) as f32);
    let [scale, decay, rate, root, eps] =
        [scale, step.decay, step.rate, step.root, step.eps].map(|factor| factor as f32);
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
    for (average, share) in averages {
        approach(average, p, share);
    }
}
