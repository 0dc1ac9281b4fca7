//! Recording a network once and starting all of its kernels with one call from then on.
//!
//! A network of 28 blocks is some hundreds of kernels. On a GPU that computes a small batch faster
//! than the processor starts its kernels, the starting is what one waits for; CUDA replays a recorded
//! sequence of kernels as one.

use std::thread::{self, ThreadId};

use burn::tensor::{DType, Device, FloatDType, Graph, Int, Tensor, capture};

use crate::device::is_cuda;
use crate::sampler::Stop;

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
    /// What else it is told, `[B]` each.
    pub conditions: Vec<Tensor<1>>,
    /// `[B]`
    pub labels: Tensor<1, Int>,
}

impl Inputs {
    /// So many of the samples from the first one on.
    pub(super) fn rows(&self, first: usize, count: usize) -> Self {
        let row = |x: &Tensor<1>| x.clone().narrow(0, first, count);
        Self {
            streams: self.streams.iter().map(|x| x.clone().narrow(0, first, count)).collect(),
            times: row(&self.times),
            conditions: self.conditions.iter().map(row).collect(),
            labels: self.labels.clone().narrow(0, first, count),
        }
    }
}

/// The inputs of a recording: memory that is written anew before each replay. Labels are floats
/// there, which hold their numbers exactly.
#[derive(Clone, Debug)]
struct Slots {
    streams: Vec<Tensor<4>>,
    times: Tensor<1>,
    conditions: Vec<Tensor<1>>,
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
            conditions: inputs.conditions.iter().map(|_| numbers()).collect(),
            labels: numbers(),
        }
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            streams: self.streams.clone(),
            times: self.times.clone(),
            conditions: self.conditions.clone(),
            labels: self.labels.clone().int(),
        }
    }

    /// Whether all could be written.
    fn write(&self, inputs: &Inputs) -> bool {
        let labels = inputs.labels.clone().float().cast(FloatDType::F32);
        let streams = inputs.streams.iter().zip(&self.streams);
        let streams = streams.map(|(from, to)| tintype_shaders::overwrite(from.clone(), to));
        let conditions = inputs.conditions.iter().zip(&self.conditions);
        let conditions = conditions.map(|(from, to)| tintype_shaders::overwrite(from.clone(), to));
        streams.chain(conditions).fold(true, |done, written| done & written)
            & tintype_shaders::overwrite(inputs.times.clone(), &self.times)
            & tintype_shaders::overwrite(labels, &self.labels)
    }
}

/// What a recording is of: all that its kernels hold besides what is in the slots.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    /// Shape and type of each stream.
    streams: Vec<([usize; 4], DType)>,
    /// Bits of the gate τ, which kernels compare times with; `None` where they do not.
    gate: Option<u64>,
}

impl Key {
    fn of(inputs: &Inputs, gate: Option<f64>) -> Self {
        let streams = inputs.streams.iter().map(|x| (x.dims(), x.dtype())).collect();
        Self { streams, gate: gate.map(f64::to_bits) }
    }

    /// Whether a recording of this key may still be asked for when one of another key is made. One gate at a time:
    /// a recording keeps all memory of a network, and a slider has many values.
    fn stays_with(&self, other: &Self) -> bool {
        self.gate.is_none() || other.gate.is_none() || self.gate == other.gate
    }
}

type Evaluate = Box<dyn FnMut() -> Vec<Tensor<4>> + Send>;

struct Recording {
    key: Key,
    slots: Slots,
    graph: Graph<Vec<Tensor<4>>, Evaluate>,
}

/// The recordings of a network, one for each shape of its inputs and gate.
#[derive(Default)]
pub(super) struct Replay {
    recordings: Vec<Recording>,
    /// The thread that recorded: a device has a stream for each thread, and a recording is of one stream.
    owner: Option<ThreadId>,
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
    /// shapes with this gate; later ones replay that, so it must always be the same network but for the gate.
    /// Other threads than the first one compute without recordings.
    pub(super) fn run(
        &mut self,
        inputs: Inputs,
        gate: Option<f64>,
        network: impl Fn(Inputs) -> Vec<Tensor<4>> + Send + 'static,
    ) -> Result<Vec<Tensor<4>>, Stop> {
        let here = thread::current().id();
        if self.failed || *self.owner.get_or_insert(here) != here {
            return Ok(network(inputs));
        }
        let key = Key::of(&inputs, gate);
        if let Some(recording) = self.recordings.iter_mut().find(|known| known.key == key) {
            return Ok(recording.at(&inputs).unwrap_or_else(|| network(inputs)));
        }
        self.recordings.retain(|known| known.key.stays_with(&key));
        let slots = Slots::like(&inputs);
        let (held, expected) = (slots.clone(), network(inputs.clone()));
        let evaluate: Evaluate = Box::new(move || network(held.inputs()));
        let graph = capture(&inputs.times.device(), evaluate);
        let mut recording = Recording { key, slots, graph };
        // A recording is of other inputs than these; it is tried on them before it is relied on.
        self.failed = match recording.at(&inputs) {
            Some(found) => !agree(&found, &expected)?,
            None => true,
        };
        if !self.failed {
            self.recordings.push(recording);
        }
        Ok(expected)
    }
}

impl Recording {
    /// The results at these inputs; `None` where they could not be written.
    fn at(&mut self, inputs: &Inputs) -> Option<Vec<Tensor<4>>> {
        if !self.slots.write(inputs) {
            return None;
        }
        // SAFETY: the recording owns its inputs, the network and the results, so they are there. Others read
        // the network's weights, which nobody writes, and nobody else has the inputs and the results: they are
        // written and copied here, under `&mut self`. `Replay::run` comes here on the thread that recorded
        // only, so all of that is on the recording's stream.
        let results = unsafe { self.graph.replay() };
        // The next replay writes into the same memory.
        Some(results.iter().map(|result| result.clone() * 1.0).collect())
    }
}

/// Whether two evaluations of a network differ by rounding at most. Only a browser cannot wait for a device, and
/// it has no recordings.
fn agree(found: &[Tensor<4>], expected: &[Tensor<4>]) -> Result<bool, Stop> {
    let norm = |x: Tensor<4>| {
        let sum = x.cast(FloatDType::F32).square().sum().try_into_scalar::<f32>();
        sum.map(f32::sqrt).map_err(|error| Stop::Device(format!("{error:?}")))
    };
    for (found, expected) in found.iter().zip(expected) {
        let difference = norm(found.clone() - expected.clone())?;
        let close = difference <= 0.01 * norm(expected.clone())?;
        if !close {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(all(test, feature = "cpu"))]
mod key_tests {
    use burn::tensor::TensorData;

    use super::*;

    fn inputs(batch: usize, dtype: FloatDType) -> Inputs {
        let device = Device::flex();
        Inputs {
            streams: vec![Tensor::<4>::zeros([batch, 1, 2, 2], &device).cast(dtype)],
            times: Tensor::zeros([batch], &device),
            conditions: Vec::new(),
            labels: Tensor::from_data(TensorData::from([0i32]), &device),
        }
    }

    #[test]
    fn a_recording_is_of_its_shapes_and_its_gate() {
        let key = |gate| Key::of(&inputs(2, FloatDType::F32), gate);
        assert_eq!(key(Some(0.3)), key(Some(0.3)));
        assert_ne!(key(Some(0.3)), key(Some(0.6)));
        assert_ne!(key(Some(0.3)), key(None));
        assert_ne!(key(None), Key::of(&inputs(4, FloatDType::F32), None));
        assert_ne!(key(None), Key::of(&inputs(2, FloatDType::F64), None));
        // A moved slider drops what was recorded at another gate, and nothing else.
        assert!(!key(Some(0.3)).stays_with(&key(Some(0.6))));
        assert!(key(None).stays_with(&key(Some(0.6))));
        assert!(Key::of(&inputs(4, FloatDType::F32), Some(0.6)).stays_with(&key(Some(0.6))));
    }

    #[test]
    fn another_thread_computes_without_recordings() {
        let mut replay = Replay::default();
        let network = |inputs: Inputs| inputs.streams;
        let owner = thread::spawn(thread::current).join().expect("a thread").id();
        replay.owner = Some(owner);
        let results = replay.run(inputs(1, FloatDType::F32), None, network).expect("it computes");
        assert_eq!((results.len(), replay.recordings.len()), (1, 0));
        assert_eq!(replay.owner, Some(owner));
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::{DeviceKind, TensorData};

    use super::*;

    #[test]
    fn a_replay_follows_its_inputs_and_leaves_earlier_results_alone() {
        let device = Device::wgpu(DeviceKind::Cpu);
        // As Hi-DiT's second stream, it holds its gate.
        let network = |gate: f64| {
            move |inputs: Inputs| {
                let [b, ..] = inputs.streams[0].dims();
                let row = |x: Tensor<1>| x.reshape([b, 1, 1, 1]);
                let labels = inputs.labels.float().cast(FloatDType::F32);
                let more = row(labels) + row(inputs.conditions[0].clone());
                vec![inputs.streams[0].clone() * row(inputs.times) + more + gate]
            }
        };
        let inputs = |value: f32, time: f32, label: i32| Inputs {
            streams: vec![Tensor::full([2, 1, 2, 2], value, &device)],
            times: Tensor::full([2], time, &device),
            conditions: vec![Tensor::full([2], value, &device)],
            labels: Tensor::from_data(TensorData::from([label, label + 1]), &device),
        };
        let mut replay = Replay::default();
        let mut run = |value, time, label, gate| {
            let results = replay.run(inputs(value, time, label), Some(gate), network(gate));
            results.expect("the device works").remove(0)
        };
        let results = [
            run(2.0, 3.0, 5, 0.0),
            run(4.0, 0.5, 7, 0.0),
            run(1.0, 1.0, 999, 0.0),
            run(1.0, 1.0, 2, 8.0),
            run(1.0, 1.0, 3, 8.0),
        ];
        for (result, first) in results.into_iter().zip([13.0, 13.0, 1001.0, 12.0, 13.0]) {
            let values = result.into_data().try_to_vec::<f32>().expect("float32");
            assert_eq!(values, [[first; 4], [first + 1.0; 4]].concat());
        }
        assert_eq!((replay.recordings.len(), replay.failed), (1, false));
    }
}
