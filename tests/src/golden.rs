//! One file of reference values.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tintype::burn::module::Module;
use tintype::burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use tintype::device::state_dtype;
use tintype::weights::{TensorView, Weights, load, open};

/// Weights `w.*`, inputs `in.*`, expected values `out.*` and metadata.
pub struct Golden {
    file: Weights,
    /// Weights under the authors' names.
    pub weights: Weights,
}

impl Golden {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open(path)?;
        let mut weights = file.clone();
        weights.tensors = file
            .tensors
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix("w.")?.to_string(), view.clone())))
            .collect();
        Ok(Self { file, weights })
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<String> {
        self.file.metadata.get(key).cloned()
    }

    /// A JSON value of the metadata.
    ///
    /// # Errors
    ///
    /// If the metadata has no such key, or it is not JSON.
    pub fn json(&self, key: &str) -> Result<Value> {
        let text =
            self.file.metadata.get(key).with_context(|| format!("no metadata key {key:?}"))?;
        Ok(serde_json::from_str(text)?)
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// As [`json`](Self::json).
    pub fn config(&self) -> Result<Value> {
        self.json("config")
    }

    /// Whether there is a tensor of this name (`in.x`, `out.y`).
    pub fn has(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.file.tensors.keys()
    }

    /// Names of the expected values.
    pub fn outputs(&self) -> impl Iterator<Item = &String> {
        self.file.tensors.keys().filter(|name| name.starts_with("out."))
    }

    /// A tensor as it is stored.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    pub fn view(&self, name: &str) -> Result<&TensorView> {
        self.file.tensors.get(name).ok_or_else(|| anyhow!("{name} is missing"))
    }

    /// Values in float64.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    pub fn values(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.view(name)?.to_f64())
    }

    /// An input on a device, in float32.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or it has not `D` axes.
    ///
    /// # Shapes
    ///
    /// * returns the shape in the file
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Result<Tensor<D>> {
        let view = self.view(name)?;
        anyhow::ensure!(view.shape.len() == D, "{name} has shape {:?}", view.shape);
        Ok(Tensor::from_data(TensorData::new(view.to_f32(), view.shape.clone()), device))
    }

    /// An input as samplers want it: in the dtype of their state on this device.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    ///
    /// # Shapes
    ///
    /// * returns the shape in the file, `[B, C, H, W]`
    ///
    /// # Panics
    ///
    /// If the tensor has not four axes.
    pub fn state(&self, name: &str, device: &Device) -> Result<Tensor<4>> {
        let view = self.view(name)?;
        let data = TensorData::new(view.to_f64(), view.shape.clone());
        Ok(Tensor::from_data(data, (device, DType::from(state_dtype(device)))))
    }

    /// One slice of such an input with five axes.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or no such slice of it.
    ///
    /// # Shapes
    ///
    /// * returns `[B, C, H, W]` of `[n, B, C, H, W]` in the file
    ///
    /// # Panics
    ///
    /// If the tensor has not five axes.
    pub fn state_at(&self, name: &str, index: usize, device: &Device) -> Result<Tensor<4>> {
        let view = self.view(name)?;
        let shape = view.shape[1..].to_vec();
        let len: usize = shape.iter().product();
        let values = view.to_f64();
        anyhow::ensure!((index + 1) * len <= values.len(), "{name} has no entry {index}");
        let data = TensorData::new(values[index * len..(index + 1) * len].to_vec(), shape);
        Ok(Tensor::from_data(data, (device, DType::from(state_dtype(device)))))
    }

    /// Integers on a device.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    ///
    /// # Shapes
    ///
    /// * returns `[n]`, all values in row-major order
    pub fn ints(&self, name: &str, device: &Device) -> Result<Tensor<1, Int>> {
        let values: Vec<i32> = self.view(name)?.to_i64().iter().map(|&v| v as i32).collect();
        let n = values.len();
        Ok(Tensor::from_data(TensorData::new(values, [n]), device))
    }

    /// Fills a network from the file's weights; all of them must fit.
    ///
    /// # Errors
    ///
    /// If a weight is missing, has another shape, is not finite, or has no use.
    pub fn load<M: Module>(&self, network: M, device: &Device) -> Result<M> {
        self.load_part(network, "", device)
    }

    /// Fills a network from the weights below a prefix.
    ///
    /// # Errors
    ///
    /// If a weight is missing, has another shape, is not finite, or has no use.
    pub fn load_part<M: Module>(&self, network: M, prefix: &str, device: &Device) -> Result<M> {
        let mut part = self.weights.clone();
        part.tensors = self
            .weights
            .tensors
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_string(), view.clone())))
            .collect();
        let loaded = load(network, &part, FloatDType::F32, device)?;
        let unexpected = loaded.report.unexpected;
        anyhow::ensure!(unexpected.is_empty(), "weights without a use: {unexpected:?}");
        Ok(loaded.network)
    }
}
