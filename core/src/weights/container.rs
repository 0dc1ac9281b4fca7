//! Opening a checkpoint, whatever container it is in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diffusers::from_diffusers;
use super::source::{Bytes, Memory, Source};
use super::store::Weights;
use super::{WeightsError, kinds, pytorch, safetensors, sections};

impl Weights {
    /// Reads any supported container from memory; `file` is its name for messages.
    ///
    /// PyTorch checkpoints give the weights to sample with: averaged ones (`ema`, `model_ema`,
    /// `state_dict_ema`, `ema_model`, `model_ema1`, and other dictionaries with a word such as `ema` in their
    /// name and the raw weights' names in them), else `state_dict`, else `model`, else other raw ones or the
    /// flat dictionary; the metadata key `section` says which. Their pickled `config` and `args` become
    /// metadata, as JSON. A tensor of a kind that cannot be read is in [`Weights::unreadable`].
    /// Autoencoders under diffusers' names are renamed, without a configuration ([`from_diffusers`]).
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`] where the bytes are empty, damaged, of no supported container, or no
    /// tensor of them can be read.
    pub fn from_bytes(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        file: &str,
    ) -> Result<Self, WeightsError> {
        from_diffusers(Self::as_stored(Bytes::Memory(Arc::new(bytes)), file, None)?, None)
    }

    /// The same of a file that is read piece by piece: a safetensors file as its tensors are
    /// needed, a PyTorch file at once.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Io`] where the source's first bytes, or those of a PyTorch file, cannot be
    ///   read
    /// * [`WeightsError::Format`] where the file is empty, damaged or of no supported container, or
    ///   the header of a safetensors file cannot be read
    pub fn from_source(source: Arc<dyn Source>, file: &str) -> Result<Self, WeightsError> {
        from_diffusers(Self::as_stored(Bytes::Source(source), file, None)?, None)
    }

    /// The same of one of the averages that a PyTorch file holds ([`averages`](Self::averages)), counted from 1.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`] where it has no such average, which names those that there are
    /// * all of [`from_source`](Self::from_source)
    pub fn average_from_source(
        source: Arc<dyn Source>,
        file: &str,
        number: usize,
    ) -> Result<Self, WeightsError> {
        from_diffusers(Self::as_stored(Bytes::Source(source), file, Some(number))?, None)
    }

    /// Under the names that the file has; of a PyTorch file the average of a number, where one is asked for.
    pub(super) fn as_stored(
        bytes: Bytes,
        file: &str,
        average: Option<usize>,
    ) -> Result<Self, WeightsError> {
        let problem = |problem: String| WeightsError::Format { file: file.into(), problem };
        let io = |source| WeightsError::Io { path: file.into(), source };
        let start = bytes.read(0, bytes.len().min(64)).map_err(io)?;
        if start.is_empty() {
            return Err(problem("the file is empty".into()));
        }
        if pytorch::is_pytorch(&start) {
            let memory: Memory = match &bytes {
                Bytes::Memory(memory) => memory.clone(),
                #[cfg(feature = "files")]
                Bytes::Mapped(file) => file.clone(),
                Bytes::Source(_) => Arc::new(bytes.read(0, bytes.len()).map_err(io)?.into_owned()),
            };
            let sections = sections::read(memory).map_err(problem)?;
            return sections.into_inference_weights(file, average).map_err(problem);
        }
        if average.is_some() {
            return Err(problem("it holds no averages to choose from".into()));
        }
        let kind = kinds::other_kind(&start);
        drop(start);
        let name_kind = |other: String| match kind {
            Some(kind) => problem(format!("not a safetensors or PyTorch file but {kind}")),
            None => problem(other),
        };
        safetensors::read(bytes, file).map_err(name_kind)
    }

    /// The sections of a PyTorch checkpoint by name (`ema`, `model`, `opt.state.0`, …); the flat
    /// dictionary's own tensors are in the section "".
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`] where the bytes are no PyTorch file, or damaged.
    pub fn pytorch_sections(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        file: &str,
    ) -> Result<BTreeMap<String, Self>, WeightsError> {
        let problem = |problem: String| WeightsError::Format { file: file.into(), problem };
        let sections = sections::read(Arc::new(bytes)).map_err(problem)?;
        Ok(sections.into_weights(file))
    }

    /// The autoencoder that a PyTorch checkpoint holds beside its network, as REPA-E's joint training saves both
    /// (`vae`; an average of it, such as `vae_ema`, where there is one); `None` where there is none. The metadata
    /// key `section` says which entry it is.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Format`] where the bytes are no PyTorch file, or damaged.
    pub fn pytorch_autoencoder(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        file: &str,
    ) -> Result<Option<Self>, WeightsError> {
        let problem = |problem: String| WeightsError::Format { file: file.into(), problem };
        let sections = sections::read(Arc::new(bytes)).map_err(problem)?;
        sections.into_autoencoder(file).map_err(problem)
    }
}
