//! Recording a network once and starting all of its kernels with one call from then on.
//!
//! A network of 28 blocks is some hundreds of kernels. On a GPU that computes a small batch faster
//! than the processor starts its kernels, the starting is what one waits for; CUDA replays a recorded
//! sequence of kernels as one.

use burn::tensor::{DType, Device, FloatDType, Graph, Int, Tensor, capture};

use crate::device::is_cuda;

/// Samples in a batch, two for a guided image, up to which starting the kernels takes longer than
/// computing them. A recording keeps the memory of everything that the network computes.
const MAX_BATCH: usize = 8;

/// What a network is evaluated at.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    /// Its streams, `[B, C, H, W]` each.
    pub streams: Vec<Tensor<4>>,
    /// `[B]`
    pub times: Tensor<1>,
    /// `[B]`
    pub labels: Tensor<1, Int>,
}

/// The inputs of a recording: memory that is written anew before each replay. Labels are floats
/// there, which hold their numbers exactly.
#[derive(Clone, Debug)]
struct Slots {
    streams: Vec<Tensor<4>>,
    times: Tensor<1>,
    labels: Tensor<1>,
}

impl Slots {
    /// For such inputs, which are not in them yet.
    fn like(inputs: &Inputs) -> Self {
        let empty = |x: &Tensor<4>| Tensor::zeros(x.dims(), (&x.device(), x.dtype()));
        let [n] = inputs.times.dims();
        let numbers = || Tensor::zeros([n], (&inputs.times.device(), DType::F32));
        Self {
            streams: inputs.streams.iter().map(empty).collect(),
            times: numbers(),
            labels: numbers(),
        }
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            streams: self.streams.clone(),
            times: self.times.clone(),
            labels: self.labels.clone().int(),
        }
    }

    /// Whether they have the same shapes, and so fit a recording.
    fn fit(&self, inputs: &Inputs) -> bool {
        let same =
            |(a, b): (&Tensor<4>, &Tensor<4>)| a.dims() == b.dims() && a.dtype() == b.dtype();
        self.streams.len() == inputs.streams.len()
            && self.streams.iter().zip(&inputs.streams).all(same)
    }

    /// Whether all could be written.
    fn write(&self, inputs: &Inputs) -> bool {
        let labels = inputs.labels.clone().float().cast(FloatDType::F32);
        let streams = inputs.streams.iter().zip(&self.streams);
        let streams = streams.map(|(from, to)| tintype_shaders::overwrite(from.clone(), to));
        streams.fold(true, |done, written| done & written)
            & tintype_shaders::overwrite(inputs.times.clone(), &self.times)
            & tintype_shaders::overwrite(labels, &self.labels)
    }
}

type Evaluate = Box<dyn FnMut() -> Vec<Tensor<4>> + Send>;

struct Recording {
    slots: Slots,
    graph: Graph<Vec<Tensor<4>>, Evaluate>,
}

/// The recordings of a network, one for each shape of its inputs.
#[derive(Default)]
pub(super) struct Replay {
    recordings: Vec<Recording>,
    /// A recording once gave something else than the network.
    failed: bool,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay({} recordings)", self.recordings.len())
    }
}

impl Replay {
    /// Whether a batch of so many samples is worth a recording on a device.
    pub(super) fn is_worthwhile(device: &Device, samples: usize) -> bool {
        samples <= MAX_BATCH && is_cuda(device) && tintype_shaders::uses_kernels()
    }

    /// What `network` makes of the inputs. It is recorded at its first evaluation at inputs of such
    /// shapes; later ones replay that, so it must always be the same network.
    pub(super) fn run(
        &mut self,
        inputs: Inputs,
        network: impl Fn(Inputs) -> Vec<Tensor<4>> + Send + 'static,
    ) -> Vec<Tensor<4>> {
        if self.failed {
            return network(inputs);
        }
        if let Some(recording) = self.recordings.iter_mut().find(|known| known.slots.fit(&inputs)) {
            return recording.at(&inputs).unwrap_or_else(|| network(inputs));
        }
        let slots = Slots::like(&inputs);
        let (held, expected) = (slots.clone(), network(inputs.clone()));
        let evaluate: Evaluate = Box::new(move || network(held.inputs()));
        let graph = capture(&inputs.times.device(), evaluate);
        let mut recording = Recording { slots, graph };
        // A recording is of other inputs than these; it is tried on them before it is relied on.
        self.failed = !recording.at(&inputs).is_some_and(|found| agree(&found, &expected));
        if !self.failed {
            self.recordings.push(recording);
        }
        expected
    }
}

impl Recording {
    /// The results at these inputs; `None` where they could not be written.
    fn at(&mut self, inputs: &Inputs) -> Option<Vec<Tensor<4>>> {
        if !self.slots.write(inputs) {
            return None;
        }
        // SAFETY: the recording owns its inputs, the network and the results, and everything is
        // started by whoever has the `Replay`.
        let results = unsafe { self.graph.replay() };
        // The next replay writes into the same memory.
        Some(results.iter().map(|result| result.clone() * 1.0).collect())
    }
}

/// Whether two evaluations of a network differ by rounding at most.
fn agree(found: &[Tensor<4>], expected: &[Tensor<4>]) -> bool {
    let norm = |x: Tensor<4>| x.cast(FloatDType::F32).square().sum().into_scalar::<f32>().sqrt();
    found.iter().zip(expected).all(|(found, expected)| {
        norm(found.clone() - expected.clone()) <= 0.01 * norm(expected.clone())
    })
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::{DeviceKind, TensorData};

    use super::*;

    #[test]
    fn a_replay_follows_its_inputs_and_leaves_earlier_results_alone() {
        let device = Device::wgpu(DeviceKind::Cpu);
        let network = |inputs: Inputs| {
            let [b, ..] = inputs.streams[0].dims();
            let row = |x: Tensor<1>| x.reshape([b, 1, 1, 1]);
            let labels = inputs.labels.float().cast(FloatDType::F32);
            vec![inputs.streams[0].clone() * row(inputs.times) + row(labels)]
        };
        let inputs = |value: f32, time: f32, label: i32| Inputs {
            streams: vec![Tensor::full([2, 1, 2, 2], value, &device)],
            times: Tensor::full([2], time, &device),
            labels: Tensor::from_data(TensorData::from([label, label + 1]), &device),
        };
        let mut replay = Replay::default();
        let mut run =
            |value, time, label| replay.run(inputs(value, time, label), network).remove(0);
        let results = [run(2.0, 3.0, 5), run(4.0, 0.5, 7), run(1.0, 1.0, 999)];
        for (result, first) in results.into_iter().zip([11.0, 9.0, 1000.0]) {
            let values = result.into_data().try_to_vec::<f32>().expect("float32");
            assert_eq!(values, [[first; 4], [first + 1.0; 4]].concat());
        }
        assert_eq!((replay.recordings.len(), replay.failed), (1, false));
    }
}
