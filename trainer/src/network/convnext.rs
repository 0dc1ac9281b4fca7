//! ConvNeXt V2 (Woo et al., arXiv 2301.00808) up to its pooled features, of which pMF makes a perceptual loss; always
//! frozen.

use std::path::Path;

use tintype::burn; // the derive names it
use tintype::burn::module::{Initializer, Module, Param};
use tintype::burn::tensor::module::conv2d;
use tintype::burn::tensor::ops::ConvOptions;
use tintype::burn::tensor::{Device, FloatDType, Tensor};
use tintype::nn::activation::gelu_erf;
use tintype::nn::linear::{Init, Linear};
use tintype::nn::norm::LayerNorm;
use tintype::weights::{Rename, Weights, WeightsError, load, open};

/// transformers' names of the authors' layers; the classifier is left out.
const TRANSFORMERS: &str = "
convnextv2.embeddings.patch_embeddings.* -> downsample_layers.0.0.*
convnextv2.embeddings.layernorm.* -> downsample_layers.0.1.*
convnextv2.encoder.stages.*.downsampling_layer.*.* -> downsample_layers.*.*.*
convnextv2.encoder.stages.*.layers.*.layernorm.* -> stages.*.*.norm.*
convnextv2.encoder.stages.*.layers.*.grn.weight -> stages.*.*.grn.gamma
convnextv2.encoder.stages.*.layers.*.grn.bias -> stages.*.*.grn.beta
convnextv2.encoder.stages.*.layers.*.*.* -> stages.*.*.*.*
convnextv2.layernorm.* -> norm.*
classifier.* ->
head.* ->
";

/// Stages of every size.
const STAGES: usize = 4;
/// Added to squared norms over the positions, to their mean, and to the variance of every norm.
const EPS: f64 = 1e-6;

/// Shape of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvNextConfig {
    /// Blocks of each stage.
    pub depths: [usize; STAGES],
    /// Width of each stage.
    pub dims: [usize; STAGES],
}

impl ConvNextConfig {
    /// What a checkpoint tells; `None` if it is not of such a network.
    fn of(weights: &Weights) -> Option<Self> {
        let width = |stage: usize| {
            let layer = usize::from(stage > 0); // a norm comes first, but at the image
            let name = format!("downsample_layers.{stage}.{layer}.weight");
            weights.tensors.get(&name)?.shape.first().copied()
        };
        let has = |stage: usize, block: usize| {
            weights.tensors.contains_key(&format!("stages.{stage}.{block}.dwconv.weight"))
        };
        let mut config = Self { depths: [0; STAGES], dims: [0; STAGES] };
        for stage in 0..STAGES {
            config.dims[stage] = width(stage)?;
            config.depths[stage] = (0..).take_while(|&block| has(stage, block)).count();
        }
        Some(config)
    }

    /// The untrained network.
    pub fn init(&self, device: &Device) -> ConvNextV2 {
        let Self { depths, dims } = *self;
        let downsample = |stage: usize| match stage {
            0 => vec![
                Layer::Conv(Convolution::patches(3, dims[0], 4, device)),
                Layer::Norm(LayerNorm::new(dims[0], EPS, device)),
            ],
            _ => vec![
                Layer::Norm(LayerNorm::new(dims[stage - 1], EPS, device)),
                Layer::Conv(Convolution::patches(dims[stage - 1], dims[stage], 2, device)),
            ],
        };
        let blocks = |stage: usize| -> Vec<Block> {
            (0..depths[stage]).map(|_| Block::new(dims[stage], device)).collect()
        };
        ConvNextV2 {
            downsample_layers: (0..STAGES).map(downsample).collect(),
            stages: (0..STAGES).map(blocks).collect(),
            norm: LayerNorm::new(dims[STAGES - 1], EPS, device),
        }
    }
}

/// The network without its classifier.
#[derive(Module, Debug)]
pub struct ConvNextV2 {
    downsample_layers: Vec<Vec<Layer>>,
    stages: Vec<Vec<Block>>,
    norm: LayerNorm,
}

impl ConvNextV2 {
    /// Sides of images are multiples of this: patches of 4 are halved three times.
    pub const MULTIPLE: usize = 32;

    /// Loads the authors' `convnextv2_base_22k_224_ema.pt` or another size, or the same as transformers names it
    /// (`facebook/convnextv2-base-22k-224`).
    ///
    /// # Errors
    ///
    /// As [`from_weights`](Self::from_weights), and [`WeightsError::Io`] or [`WeightsError::Format`] if the file cannot
    /// be read.
    pub fn open(path: &Path, device: &Device) -> Result<Self, WeightsError> {
        Self::from_weights(open(path)?, device)
    }

    /// The network of an opened file.
    ///
    /// # Errors
    ///
    /// * [`WeightsError::Format`]: the weights are not a ConvNeXt V2's.
    /// * [`WeightsError::Mismatch`]: a tensor is missing or has another shape.
    /// * [`WeightsError::NotFinite`]: a weight is not finite.
    pub fn from_weights(weights: Weights, device: &Device) -> Result<Self, WeightsError> {
        let weights = Rename::parse(TRANSFORMERS, "transformers' names")?.apply(weights)?;
        let config = ConvNextConfig::of(&weights).ok_or_else(|| WeightsError::Format {
            file: weights.file.clone(),
            problem: "not a ConvNeXt V2: it lacks downsample_layers".into(),
        })?;
        Ok(load(config.init(device), &weights, FloatDType::F32, device)?.network.no_grad())
    }

    /// The features that the classifier would see.
    ///
    /// # Shapes
    ///
    /// * `x`: `[B, 3, H, W]`, sides that are multiples of [`MULTIPLE`](Self::MULTIPLE)
    /// * returns `[B, D]`, D the width of the last stage
    ///
    /// # Panics
    ///
    /// If `x` has another number of channels or is smaller than that.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = x;
        for (layers, blocks) in self.downsample_layers.iter().zip(&self.stages) {
            x = layers.iter().fold(x, |x, layer| layer.forward(x)); // [B, c, h, w]
            x = blocks.iter().fold(x, |x, block| block.forward(x));
        }
        let [b, c, ..] = x.dims();
        let pooled = tokens(x).mean_dim(1); // [B, 1, D]
        self.norm.forward(pooled).reshape([b, c]) // [B, D]
    }
}

/// A layer before a stage.
#[derive(Module, Debug)]
enum Layer {
    Conv(Convolution),
    Norm(LayerNorm),
}

impl Layer {
    /// `[B, c, H, W]` → `[B, c', h, w]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Norm(norm) => {
                let [_, _, h, w] = x.dims();
                image(norm.forward(tokens(x)), [h, w])
            }
        }
    }
}

/// A convolution with weight `[out, in/groups, k, k]`.
#[derive(Module, Debug)]
struct Convolution {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Convolution {
    fn new(shape: [usize; 4], device: &Device) -> Self {
        let init = Initializer::Normal { mean: 0.0, std: 0.02 };
        let bias = Initializer::Zeros.init([shape[0]], device);
        Self { weight: init.init(shape, device), bias, stride: 1, padding: 0, groups: 1 }
    }

    /// Of square patches that do not overlap.
    fn patches(c_in: usize, c_out: usize, side: usize, device: &Device) -> Self {
        Self { stride: side, ..Self::new([c_out, c_in, side, side], device) }
    }

    /// Of each channel by itself, 7×7; the image keeps its size.
    fn depthwise(channels: usize, device: &Device) -> Self {
        Self { padding: 3, groups: channels, ..Self::new([channels, 1, 7, 7], device) }
    }

    /// `[B, in, H, W]` → `[B, out, h, w]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups);
        conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}

#[derive(Module, Debug)]
struct Block {
    dwconv: Convolution,
    norm: LayerNorm,
    pwconv1: Linear,
    grn: ResponseNorm,
    pwconv2: Linear,
}

impl Block {
    fn new(d: usize, device: &Device) -> Self {
        Self {
            dwconv: Convolution::depthwise(d, device),
            norm: LayerNorm::new(d, EPS, device),
            pwconv1: Linear::new(d, 4 * d, Init::Normal, device),
            grn: ResponseNorm::new(4 * d, device),
            pwconv2: Linear::new(4 * d, d, Init::Normal, device),
        }
    }

    /// `[B, d, H, W]` → the same
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let y = self.norm.forward(tokens(self.dwconv.forward(x.clone()))); // [B, N, d]
        let y = self.grn.forward(gelu_erf(self.pwconv1.forward(y))); // [B, N, 4d]
        x + image(self.pwconv2.forward(y), [h, w])
    }
}

/// Global response normalisation: each channel is scaled by its norm over the positions, relative to the mean of those.
#[derive(Module, Debug)]
struct ResponseNorm {
    /// `[1, 1, 1, d]`
    gamma: Param<Tensor<4>>,
    /// `[1, 1, 1, d]`
    beta: Param<Tensor<4>>,
}

impl ResponseNorm {
    fn new(d: usize, device: &Device) -> Self {
        let zeros = || Initializer::Zeros.init([1, 1, 1, d], device);
        Self { gamma: zeros(), beta: zeros() }
    }

    /// `[B, N, d]` → the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let d = x.dims()[2];
        let row = |p: &Param<Tensor<4>>| -> Tensor<3> { p.val().reshape([1, 1, d]) };
        let norm = (x.clone().square().sum_dim(1) + EPS).sqrt(); // [B, 1, d]
        let share = norm.clone() / (norm.mean_dim(2) + EPS); // [B, 1, d]
        x.clone() * share * row(&self.gamma) + row(&self.beta) + x
    }
}

/// `[B, C, H, W]` → `[B, H·W, C]`
fn tokens(x: Tensor<4>) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h * w]).swap_dims(1, 2)
}

/// `[B, H·W, C]` → `[B, C, H, W]`
fn image(x: Tensor<3>, [h, w]: [usize; 2]) -> Tensor<4> {
    let [b, _, c] = x.dims();
    x.swap_dims(1, 2).reshape([b, c, h, w])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tintype::burn::tensor::TensorData;
    use tintype::weights::{TensorView, layout};

    use super::*;

    const SIDE: usize = 64;

    /// Weights by a formula, in the order of their names.
    fn formula(config: ConvNextConfig) -> BTreeMap<String, TensorView> {
        let mut n = 0u32;
        let mut value = || {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (n >> 8) as f32 / (1 << 23) as f32 * 0.8 - 0.8
        };
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| value()).collect();
            (name, TensorView::from_f32(shape, &values).expect("as many as the shape"))
        };
        layout(&config.init(&Device::flex())).into_iter().map(tensor).collect()
    }

    fn picture(device: &Device) -> Tensor<4> {
        let values = (0..3 * SIDE * SIDE).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0);
        let values: Vec<f32> = values.collect();
        Tensor::from_data(TensorData::new(values, [1, 3, SIDE, SIDE]), device)
    }

    fn loaded(tensors: BTreeMap<String, TensorView>, device: &Device) -> ConvNextV2 {
        let weights = Weights { file: "test".into(), tensors, ..Weights::default() };
        ConvNextV2::from_weights(weights, device).expect("it fits")
    }

    /// Values of the network in pMF's code with the same weights and the same picture.
    #[test]
    fn features_and_their_gradient_are_the_reference_s() {
        let device = Device::flex().autodiff();
        let config = ConvNextConfig { depths: [1, 2, 1, 1], dims: [4, 6, 8, 10] };
        let network = loaded(formula(config), &device);
        let x = picture(&device).require_grad();
        let features = network.features(x.clone());
        let found: Vec<f64> = features.to_data().iter::<f64>().collect();
        let expected = [
            0.608672, 1.169933, -0.174895, 0.699487, 0.211346, 0.078604, -0.574959, 0.134471,
            0.315286, -0.072488,
        ];
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
        }
        let gradients = features.square().sum().backward();
        let gradient = x.grad(&gradients).expect("it has one").into_data();
        let gradient: Vec<f64> = gradient.iter::<f64>().collect();
        for (at, expected) in [(0, 9.16983e-5), (SIDE * SIDE + 5, 5.70319e-4)] {
            let found = gradient[at];
            assert!((found - expected).abs() < 1e-2 * expected, "{found} and {expected}");
        }
    }

    #[test]
    fn transformers_names_are_known() {
        let device = Device::flex();
        let config = ConvNextConfig { depths: [1, 2, 1, 1], dims: [4, 6, 8, 10] };
        let authors = formula(config);
        let theirs = |name: &str| -> String {
            let parts: Vec<&str> = name.split('.').collect();
            match parts.as_slice() {
                ["downsample_layers", "0", "0", kind] => {
                    format!("convnextv2.embeddings.patch_embeddings.{kind}")
                }
                ["downsample_layers", "0", "1", kind] => {
                    format!("convnextv2.embeddings.layernorm.{kind}")
                }
                ["downsample_layers", stage, layer, kind] => {
                    format!("convnextv2.encoder.stages.{stage}.downsampling_layer.{layer}.{kind}")
                }
                ["stages", stage, block, layer, kind] => {
                    let layer = layer.replace("norm", "layernorm");
                    let kind = kind.replace("gamma", "weight").replace("beta", "bias");
                    format!("convnextv2.encoder.stages.{stage}.layers.{block}.{layer}.{kind}")
                }
                ["norm", kind] => format!("convnextv2.layernorm.{kind}"),
                other => panic!("{other:?}"),
            }
        };
        let mut renamed: BTreeMap<String, TensorView> =
            authors.iter().map(|(name, view)| (theirs(name), view.clone())).collect();
        let classifier = TensorView::from_f32(vec![2], &[0.0; 2]).expect("two values");
        renamed.insert("classifier.bias".into(), classifier);
        let of = |tensors: BTreeMap<String, TensorView>| -> Vec<f32> {
            let features = loaded(tensors, &device).features(picture(&device));
            features.into_data().iter::<f32>().collect()
        };
        assert_eq!(of(renamed), of(authors));
        let none = Weights { file: "other.pt".into(), ..Weights::default() };
        let error = ConvNextV2::from_weights(none, &device).expect_err("nothing is there");
        assert!(error.to_string().contains("not a ConvNeXt V2"), "{error}");
    }
}
