//! Operations that know their own gradient.

use std::sync::Arc;

use burn::backend::DispatchTensor;
#[cfg(feature = "autodiff")]
use burn::backend::DispatchTensorKind;
#[cfg(feature = "gpu")]
use burn_backend::TensorMetadata;

/// An operation with one result, and its derivative written by hand.
pub(crate) trait Operation: std::fmt::Debug + Send + Sync {
    /// The result, and what [`backward`](Self::backward) wants to have besides the inputs; nothing
    /// where these inputs are better left to the plain operations.
    fn forward(&self, inputs: &[DispatchTensor]) -> Option<(DispatchTensor, Vec<DispatchTensor>)>;

    /// The result alone, where no gradient will be asked for.
    fn result(&self, inputs: &[DispatchTensor]) -> Option<DispatchTensor> {
        self.forward(inputs).map(|(result, _)| result)
    }

    /// Whether it can be part of what is differentiated.
    fn has_gradient(&self) -> bool {
        true
    }

    /// The gradients of the inputs from that of the result, in the inputs' order: one for each, of which
    /// those that are not `wanted` need not be there. `None` where a kernel does not take these tensors,
    /// which ends the backward pass with a panic: it has no other way to fail.
    fn backward(
        &self,
        inputs: &[DispatchTensor],
        kept: &[DispatchTensor],
        gradient: DispatchTensor,
        wanted: &[bool],
    ) -> Option<Vec<Option<DispatchTensor>>>;
}

/// What an operation gives for gradients, held to what it was asked for: a gradient that is silently absent
/// trains a network wrongly.
///
/// # Panics
///
/// If there is not one place for each input, or a gradient that is wanted is missing.
#[cfg(any(test, feature = "autodiff"))]
fn complete<T>(
    operation: &dyn std::fmt::Debug,
    found: Option<Vec<Option<T>>>,
    wanted: &[bool],
) -> Vec<Option<T>> {
    let Some(found) = found else {
        panic!("{operation:?} made a result and does not make its gradients");
    };
    assert_eq!(found.len(), wanted.len(), "gradients that {operation:?} gives");
    let missing = found.iter().zip(wanted).position(|(found, &wanted)| wanted && found.is_none());
    if let Some(place) = missing {
        panic!("{operation:?} does not give the gradient of its input {place}");
    }
    found
}

/// Whether tensors are all of one type, as most kernels want their inputs.
#[cfg(feature = "gpu")]
pub(crate) fn of_one_type(inputs: &[DispatchTensor]) -> bool {
    inputs.iter().all(|x| x.dtype() == inputs[0].dtype())
}

/// The result of an operation, tracked where one of its inputs is; `None` where they are not
/// all in one place, or where the operation leaves them.
///
/// Not generic: the callers are, over the ranks of tensors, and would compile the graph and what it adds
/// gradients with once for each operation in every crate that calls them.
pub(crate) fn apply(
    operation: Arc<dyn Operation>,
    inputs: Vec<DispatchTensor>,
) -> Option<DispatchTensor> {
    #[cfg(feature = "autodiff")]
    {
        let is_tracked = |x: &DispatchTensor| matches!(x.kind, DispatchTensorKind::Autodiff(_));
        if let Some(DispatchTensorKind::Autodiff(kind)) =
            inputs.iter().find(|x| is_tracked(x)).map(|x| &x.kind)
        {
            if !operation.has_gradient() {
                return None;
            }
            #[allow(unreachable_patterns)] // where every backend has kernels
            return match **kind {
                #[cfg(feature = "cpu")]
                DispatchTensorKind::Flex(_) => {
                    tracked::apply::<burn::backend::Flex>(operation, inputs)
                }
                #[cfg(feature = "wgpu")]
                DispatchTensorKind::Wgpu(_) => {
                    tracked::apply::<burn::backend::Wgpu>(operation, inputs)
                }
                #[cfg(feature = "vulkan")]
                DispatchTensorKind::Vulkan(_) => {
                    tracked::apply::<burn::backend::Vulkan>(operation, inputs)
                }
                #[cfg(feature = "cuda")]
                DispatchTensorKind::Cuda(_) => {
                    tracked::apply::<burn::backend::Cuda>(operation, inputs)
                }
                _ => None,
            };
        }
    }
    operation.result(&inputs)
}

#[cfg(feature = "autodiff")]
mod tracked {
    use std::sync::Arc;

    use burn::backend::{Autodiff, BackendTensor, DispatchKindConversion, DispatchTensor};
    use burn_autodiff::checkpoint::base::Checkpointer;
    use burn_autodiff::checkpoint::strategy::NoCheckpointing;
    use burn_autodiff::grads::Gradients;
    use burn_autodiff::ops::{Backward, Ops, OpsKind};
    use burn_backend::{Backend, BackendTypes};

    use super::{Operation, complete};

    type Floats<B> = <B as BackendTypes>::FloatTensorPrimitive;
    type Tracked<B> = <Autodiff<B> as BackendTypes>::FloatTensorPrimitive;

    #[derive(Clone, Debug)]
    struct Step(Arc<dyn Operation>);

    impl<B: Backend, const N: usize> Backward<B, N> for Step
    where
        DispatchTensor: DispatchKindConversion<B>,
    {
        /// The inputs, and what the forward pass kept.
        type State = (Vec<DispatchTensor>, Vec<DispatchTensor>);

        fn backward(
            self,
            ops: Ops<Self::State, N>,
            gradients: &mut Gradients,
            _: &mut Checkpointer,
        ) {
            let gradient = wrap::<B>(gradients.consume::<B>(&ops.node));
            let wanted: Vec<bool> = ops.parents.iter().map(|parent| parent.is_some()).collect();
            let (inputs, kept) = ops.state;
            let found = self.0.backward(&inputs, &kept, gradient, &wanted);
            let found = complete(&self.0, found, &wanted);
            for (parent, gradient) in ops.parents.iter().zip(found) {
                if let Some(parent) = parent {
                    let gradient = gradient.and_then(unwrap::<B>);
                    let gradient =
                        gradient.expect("a gradient is a tensor of the result's backend");
                    gradients.register::<B>(parent.id, gradient);
                }
            }
        }
    }

    pub(super) fn apply<B: Backend>(
        operation: Arc<dyn Operation>,
        inputs: Vec<DispatchTensor>,
    ) -> Option<DispatchTensor>
    where
        DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
    {
        let float = |x: DispatchTensor| -> Option<Tracked<B>> {
            match <DispatchTensor as DispatchKindConversion<Autodiff<B>>>::try_into_backend(x) {
                Ok(BackendTensor::Float(x)) => Some(x),
                _ => None,
            }
        };
        let inputs = inputs.into_iter().map(float).collect::<Option<Vec<_>>>()?;
        let inner: Vec<_> = inputs.iter().map(|x| wrap::<B>(x.primitive.clone())).collect();
        let (result, kept) = operation.forward(&inner)?;
        let result = unwrap::<B>(result)?;
        let state = (inner, kept);
        let result = match inputs.len() {
            1 => record::<B, 1>(operation, &inputs, state, result),
            2 => record::<B, 2>(operation, &inputs, state, result),
            3 => record::<B, 3>(operation, &inputs, state, result),
            4 => record::<B, 4>(operation, &inputs, state, result),
            5 => record::<B, 5>(operation, &inputs, state, result),
            6 => record::<B, 6>(operation, &inputs, state, result),
            7 => record::<B, 7>(operation, &inputs, state, result),
            n => unreachable!("no operation has {n} inputs"),
        };
        Some(DispatchTensor::from_backend(BackendTensor::<Autodiff<B>>::Float(result)))
    }

    /// Enters a step into the graph.
    fn record<B: Backend, const N: usize>(
        operation: Arc<dyn Operation>,
        inputs: &[Tracked<B>],
        state: (Vec<DispatchTensor>, Vec<DispatchTensor>),
        result: Floats<B>,
    ) -> Tracked<B>
    where
        DispatchTensor: DispatchKindConversion<B>,
    {
        let nodes = std::array::from_fn::<_, N, _>(|i| inputs[i].node.clone());
        let step = Step(operation).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
        match step {
            OpsKind::Tracked(step) => step.finish(state, result),
            OpsKind::UnTracked(step) => step.finish(result),
        }
    }

    fn wrap<B: Backend>(tensor: Floats<B>) -> DispatchTensor
    where
        DispatchTensor: DispatchKindConversion<B>,
    {
        <DispatchTensor as DispatchKindConversion<B>>::from_backend(BackendTensor::Float(tensor))
    }

    fn unwrap<B: Backend>(tensor: DispatchTensor) -> Option<Floats<B>>
    where
        DispatchTensor: DispatchKindConversion<B>,
    {
        match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
            Ok(BackendTensor::Float(tensor)) => Some(tensor),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn what_is_not_wanted_may_be_missing() {
        let found = complete(&"sum", Some(vec![Some(1), None, Some(3)]), &[true, false, false]);
        assert_eq!(found, [Some(1), None, Some(3)]);
    }

    #[test]
    #[should_panic(expected = "gradients that \"sum\" gives")]
    fn a_list_that_is_too_short_is_seen() {
        complete(&"sum", Some(vec![Some(1)]), &[true, true]);
    }

    #[test]
    #[should_panic(expected = "gradient of its input 1")]
    fn a_wanted_gradient_that_is_missing_is_seen() {
        complete(&"sum", Some(vec![Some(1), None]), &[true, true]);
    }

    #[test]
    #[should_panic(expected = "does not make its gradients")]
    fn a_kernel_that_refuses_is_seen() {
        complete::<u8>(&"sum", None, &[true]);
    }
}
